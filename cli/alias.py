"""`headrace model alias …`: names that point to a version of a model."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cli import output
from cli.connection import control_plane, find_model, list_all
from cli.options import id_option
from cli.output import Json, Limit
from headrace.v1 import model_pb2, model_registry_pb2
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub

app = typer.Typer()

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name or id.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="1 to 63 of lower-case letters, digits and `-`.")]
Expect = Annotated[
    int | None,
    id_option("--expect", metavar="RESULT", help="Only if it points to this result now (0: to none).", min=0),
]
_VERSION = re.compile(r"[vV](\d{1,9})")


@app.command("set")
def set_alias(
    model: Model,
    alias: Alias,
    to: Annotated[str, typer.Argument(metavar="RESULT|VERSION", help="A result's id, as 7, or a version, as v2.")],
    expect: Expect = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version of a model, wherever it pointed before. Its history is kept."""
    result_id, version = _result_or_version(to)
    with control_plane() as channel:
        found = find_model(channel, model)
        request = model_registry_pb2.SetModelAliasRequest(
            model_id=found.id, alias=alias, result_id=result_id, version=version, expected_result_id=expect
        )
        moved = ModelRegistryStub(channel).SetModelAlias(request)
    if as_json:
        output.print_json(moved)
        return
    output.console.print(f"{alias} of {found.name} points to version {moved.version} (result {moved.result_id}).")


@app.command("list")
def list_aliases(model: Model, limit: Limit = 50, as_json: Json = False) -> None:
    """List where the aliases of a model point."""
    with control_plane() as channel:
        request = model_registry_pb2.ListModelAliasesRequest(model_id=find_model(channel, model).id)
        found = list_all(ModelRegistryStub(channel).ListModelAliases, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["alias", "#version", "#result", "since"],
        [(each.alias, each.version, each.result_id, output.ago(each.update_time)) for each in found.aliases],
        empty="It has no aliases; `headrace model alias set MODEL ALIAS RESULT` makes one.",
        more=bool(found.next_page_token),
    )


@app.command()
def history(
    model: Model,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Only of this alias.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List where aliases of a model pointed and since when, newest first; deleted ones too."""
    with control_plane() as channel:
        request = model_registry_pb2.ListModelAliasPeriodsRequest(model_id=find_model(channel, model).id, alias=alias)
        found = list_all(ModelRegistryStub(channel).ListModelAliasPeriods, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["alias", "#version", "#result", "from", "until"],
        [
            (each.alias, each.version, each.result_id, output.ago(each.start_time), _until(each))
            for each in found.periods
        ],
        empty="No alias has pointed anywhere yet.",
        more=bool(found.next_page_token),
    )


@app.command()
def delete(model: Model, alias: Alias, expect: Expect = None) -> None:
    """Delete an alias. Where it pointed stays in its history."""
    with control_plane() as channel:
        found = find_model(channel, model)
        request = model_registry_pb2.DeleteModelAliasRequest(model_id=found.id, alias=alias, expected_result_id=expect)
        ModelRegistryStub(channel).DeleteModelAlias(request)
    output.console.print(f"Deleted alias {alias} of {found.name}.")


def _result_or_version(text: str) -> tuple[int, int]:
    """The id of a result, and a version; one of them is 0."""
    if version := _VERSION.fullmatch(text):
        return 0, int(version[1])
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return int(text), 0
    raise typer.BadParameter(f"{text!r} is neither a result's id, as 7, nor a version, as v2")


def _until(period: model_pb2.ModelAliasPeriod) -> str:
    if not period.HasField("end_time"):
        return "now"
    return f"{output.ago(period.end_time)}{', then deleted' if period.deleted else ''}"
