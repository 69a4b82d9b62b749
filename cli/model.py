"""`headrace model …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import alias, output
from cli.connection import VALIDATION_TIMEOUT_S, control_plane, find_model, list_all
from cli.output import Json, Limit
from headrace.v1 import deployment_pb2, model_pb2, model_registry_pb2, result_collector_pb2, result_pb2
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub

app = typer.Typer()
app.add_typer(
    alias.app, name="alias", help="Names that point to a version: set, list, history, delete.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Its name or id.")]
FRAMEWORKS = {
    "tensorflow": model_pb2.FRAMEWORK_TENSORFLOW,
    "keras": model_pb2.FRAMEWORK_TENSORFLOW,
    "pytorch": model_pb2.FRAMEWORK_PYTORCH,
    "torch": model_pb2.FRAMEWORK_PYTORCH,
}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 63 of letters, digits, `-`, `_`, `.` and blank.")],
    framework: Annotated[str, typer.Option("--framework", "-f", help="tensorflow or pytorch.")],
    code: Annotated[Path, typer.Option("--code", exists=True, dir_okay=False, help="Python that leaves `model`.")],
    imports: Annotated[Path | None, typer.Option("--imports", exists=True, dir_okay=False, help="Runs before.")] = None,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Only check the code.")] = False,
    as_json: Json = False,
) -> None:
    """Check a model's code by building it once, and store it."""
    model = model_pb2.Model(
        name=name,
        description=description,
        framework=parse_framework(framework),
        code=_text(code),
        imports=_text(imports) if imports is not None else "",
    )
    request = model_registry_pb2.CreateModelRequest(model=model, validate_only=validate_only)
    with control_plane() as channel, output.errors.status("Building the model in a sandbox"):
        created = ModelRegistryStub(channel).CreateModel(request, timeout=VALIDATION_TIMEOUT_S)
    if as_json:
        output.print_json(created)
        return
    done = "The code is right; nothing was stored." if validate_only else f"Created model {created.id}: {created.name}."
    output.console.print(done)
    _print_signature(created.signature)


@app.command("list")
def list_models(
    framework: Annotated[str, typer.Option("--framework", "-f", help="Only of this framework.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the models, newest first."""
    request = model_registry_pb2.ListModelsRequest(framework=parse_framework(framework) if framework else None)
    with control_plane() as channel:
        found = list_all(ModelRegistryStub(channel).ListModels, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "name", "framework", "#parameters", "description", "changed"],
        [_row(model) for model in found.models],
        empty="There are no models yet; create one with `headrace model create`.",
        more=bool(found.next_page_token),
    )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a model with its code."""
    with control_plane() as channel:
        model = find_model(channel, name)
    if as_json:
        output.print_json(model)
        return
    output.print_fields({
        "id": model.id,
        "name": model.name,
        "description": model.description,
        "framework": output.framework_name(model.framework),
        "created": output.ago(model.create_time),
        "changed": output.ago(model.update_time),
        "SHA-256": model.code_sha256,
    })  # fmt: skip
    _print_signature(model.signature)
    for title, text in (("imports", model.imports), ("code", model.code)):
        if text.strip():
            output.console.print(f"\n[bold]{title}[/bold]")
            output.console.print(text.rstrip(), markup=False)


@app.command()
def update(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="A new description.")] = None,
    code: Annotated[Path | None, typer.Option("--code", exists=True, dir_okay=False, help="New code.")] = None,
    imports: Annotated[Path | None, typer.Option("--imports", exists=True, dir_okay=False, help="New imports.")] = None,
    as_json: Json = False,
) -> None:
    """Change a model; new code is checked first. Trained results keep the code that they were trained with."""
    changes = {
        "name": new_name,
        "description": description,
        "code": _text(code) if code is not None else None,
        "imports": _text(imports) if imports is not None else None,
    }
    changed = {field: value for field, value in changes.items() if value is not None}
    if not changed:
        raise typer.BadParameter("nothing to change; give --name, --description, --code or --imports")
    with control_plane() as channel:
        stored = find_model(channel, name)
        request = model_registry_pb2.UpdateModelRequest(
            model=model_pb2.Model(id=stored.id, etag=stored.etag, **changed),  # type: ignore[arg-type]
            update_mask={"paths": list(changed)},
        )
        updated = ModelRegistryStub(channel).UpdateModel(request, timeout=VALIDATION_TIMEOUT_S)
    if as_json:
        output.print_json(updated)
        return
    output.console.print(f"Changed model {updated.id}: {', '.join(changed)}.")


@app.command()
def versions(name: Name, limit: Limit = 50, as_json: Json = False) -> None:
    """List the versions of a model (its finished results), newest first, with the aliases that point to them."""
    with control_plane() as channel:
        request = result_collector_pb2.ListResultsRequest(
            model_id=find_model(channel, name).id, state=deployment_pb2.STATE_FINISHED
        )
        found = list_all(ResultCollectorStub(channel).ListResults, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#version", "#result", "aliases", "metrics", "code", "finished"],
        [_version_row(result) for result in found.results],
        empty="It has no versions yet; each training that finishes makes one.",
        more=bool(found.next_page_token),
    )


@app.command()
def delete(name: Name) -> None:
    """Delete a model that no configuration and no result uses."""
    with control_plane() as channel:
        model = find_model(channel, name)
        ModelRegistryStub(channel).DeleteModel(model_registry_pb2.DeleteModelRequest(id=model.id))
    output.console.print(f"Deleted model {model.id}: {model.name}.")


def parse_framework(text: str) -> model_pb2.Framework:
    """`tensorflow` or `pytorch`, and what else people call them."""
    if text.lower() not in FRAMEWORKS:
        raise typer.BadParameter(f"there is no framework {text!r}; choose tensorflow or pytorch")
    return FRAMEWORKS[text.lower()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is no UTF-8 text (byte {error.start}); is it the file with the code?"
        ) from error


def _row(model: model_pb2.Model) -> tuple[object, ...]:
    parameters = output.count(model.signature.parameter_count) if model.HasField("signature") else ""
    framework = output.framework_name(model.framework)
    return model.id, model.name, framework, parameters, model.description, output.ago(model.update_time)


def _version_row(result: result_pb2.Result) -> tuple[object, ...]:
    metrics = output.metrics_line(result.metrics)
    aliases, code = ", ".join(result.aliases), result.code_sha256[:12]
    return result.version, result.id, aliases, metrics, code, output.ago(result.end_time)


def _print_signature(signature: model_pb2.Signature) -> None:
    output.print_fields({
        "inputs": _specs(list(signature.inputs)),
        "outputs": _specs(list(signature.outputs)),
        "parameters": output.count(signature.parameter_count) if signature.parameter_count else "",
    })  # fmt: skip


def _specs(specs: list[model_pb2.TensorSpec]) -> str:
    return ", ".join(f"{spec.name or 'input'} {spec.dtype}{tuple(spec.shape)}" for spec in specs)
