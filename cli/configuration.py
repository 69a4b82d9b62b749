"""`headrace configuration …`."""

from __future__ import annotations

from typing import Annotated

import grpc
import typer

from cli import output
from cli.connection import control_plane, find_configuration, find_model, list_all
from cli.output import Json, Limit
from headrace.v1 import configuration_pb2, model_registry_pb2
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="CONFIGURATION", help="Its name or id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 63 of letters, digits, `-`, `_`, `.` and blank.")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names or ids of models.")],
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    as_json: Json = False,
) -> None:
    """Group models that train on the same stream."""
    with control_plane() as channel:
        configuration = configuration_pb2.Configuration(
            name=name, description=description, model_ids=[find_model(channel, model).id for model in models]
        )
        request = model_registry_pb2.CreateConfigurationRequest(configuration=configuration)
        created = ModelRegistryStub(channel).CreateConfiguration(request)
    if as_json:
        output.print_json(created)
        return
    output.console.print(
        f"Created configuration {created.id}: {created.name}. Train it with: headrace train {created.id}"
    )


@app.command("list")
def list_configurations(limit: Limit = 50, as_json: Json = False) -> None:
    """List the configurations, newest first."""
    with control_plane() as channel:
        registry = ModelRegistryStub(channel)
        found = list_all(registry.ListConfigurations, model_registry_pb2.ListConfigurationsRequest(), limit)
        names = {} if as_json else _model_names(channel)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "name", "models", "description", "created"],
        [
            (each.id, each.name, _named(each, names), each.description, output.ago(each.create_time))
            for each in found.configurations
        ],
        empty="There are no configurations yet; create one with `headrace configuration create NAME MODEL…`.",
        more=bool(found.next_page_token),
    )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a configuration."""
    with control_plane() as channel:
        found = find_configuration(channel, name)
        names = {} if as_json else _model_names(channel)
    if as_json:
        output.print_json(found)
        return
    output.print_fields({
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "models": _named(found, names),
        "created": output.ago(found.create_time),
        "changed": output.ago(found.update_time),
    })  # fmt: skip


@app.command()
def delete(name: Name) -> None:
    """Delete a configuration that no deployment uses."""
    with control_plane() as channel:
        found = find_configuration(channel, name)
        ModelRegistryStub(channel).DeleteConfiguration(model_registry_pb2.DeleteConfigurationRequest(id=found.id))
    output.console.print(f"Deleted configuration {found.id}: {found.name}.")


def _model_names(channel: grpc.Channel) -> dict[int, str]:
    found = list_all(ModelRegistryStub(channel).ListModels, model_registry_pb2.ListModelsRequest(), 1000)
    return {model.id: model.name for model in found.models}


def _named(configuration: configuration_pb2.Configuration, names: dict[int, str]) -> str:
    return ", ".join(names.get(model_id, str(model_id)) for model_id in configuration.model_ids)
