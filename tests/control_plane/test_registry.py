"""Models, aliases, configurations, over gRPC."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from control_plane.store import deployments, reports, results
from headrace.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from headrace.v1 import configuration_pb2, deployment_pb2, model_pb2, result_collector_pb2, result_pb2
from headrace.v1 import model_registry_pb2 as api
from tests.control_plane.conftest import Plane, StartPlane

CODE = "model = build()\n"


def a_model(name: str = "digits", code: str = CODE, **fields: Any) -> model_pb2.Model:
    return model_pb2.Model(name=name, code=code, **({"framework": model_pb2.FRAMEWORK_TENSORFLOW} | fields))


async def created(plane: Plane, name: str = "digits", **fields: Any) -> model_pb2.Model:
    model: model_pb2.Model = await plane.registry.CreateModel(api.CreateModelRequest(model=a_model(name, **fields)))
    return model


async def configured(plane: Plane, name: str, *models: model_pb2.Model) -> configuration_pb2.Configuration:
    wish = configuration_pb2.Configuration(name=name, model_ids=[model.id for model in models])
    configuration: configuration_pb2.Configuration = await plane.registry.CreateConfiguration(
        api.CreateConfigurationRequest(configuration=wish)
    )
    return configuration


async def test_a_created_model_has_what_building_its_code_showed(plane: Plane) -> None:
    model = await created(plane, imports="import os")
    assert model.id == 1
    assert model.signature.parameter_count == len(CODE)
    assert len(model.code_sha256) == 64
    assert model.etag
    assert await plane.registry.GetModel(api.GetModelRequest(id=model.id)) == model


async def test_validate_only_stores_nothing(plane: Plane) -> None:
    answer = await plane.registry.CreateModel(api.CreateModelRequest(model=a_model(), validate_only=True))
    assert answer.id == 0
    assert answer.signature.summary
    assert not (await plane.registry.ListModels(api.ListModelsRequest())).models


@pytest.mark.parametrize(
    ("code", "imports", "reason", "field", "place"),
    [
        ("x = 1\nmodel = (", "", "CODE_ERROR", "model.code", {"file": "code", "line": "2", "column": "9"}),
        (CODE, "import", "CODE_ERROR", "model.imports", {"file": "imports", "line": "1", "column": "7"}),
        ("x = 1", "", "NO_MODEL", "model.code", {"file": "code"}),
    ],
)
async def test_code_that_builds_no_model_is_refused_with_its_place(
    plane: Plane, code: str, imports: str, reason: str, field: str, place: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await created(plane, code=code, imports=imports)
    assert caught.value.reason_name == reason
    assert [bad.field for bad in caught.value.fields] == [field]
    assert caught.value.metadata == place
    assert not (await plane.registry.ListModels(api.ListModelsRequest())).models


async def test_every_bad_field_is_named_at_once_and_nothing_is_built(plane: Plane) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await plane.registry.CreateModel(api.CreateModelRequest(model=model_pb2.Model(name="a/b", code=" ")))
    assert {bad.field for bad in caught.value.fields} == {"model.name", "model.framework", "model.code"}
    assert plane.executor.built == 0


async def test_an_executor_that_is_away_is_named(plane: Plane) -> None:
    with pytest.raises(Unavailable) as caught:
        await created(plane, framework=model_pb2.FRAMEWORK_PYTORCH)
    assert caught.value.reason_name == "SERVICE_UNAVAILABLE"
    assert caught.value.metadata["address"] == "127.0.0.1:1"
    assert caught.value.metadata["framework"] == "PyTorch"


DYING_EXECUTOR = """
import os, signal
from concurrent import futures
import grpc
from headrace.v1.code_executor_pb2_grpc import CodeExecutorServicer, add_CodeExecutorServicer_to_server
class Dying(CodeExecutorServicer):
    def ValidateCode(self, request, context):
        os.kill(os.getpid(), signal.SIGKILL)
server = grpc.server(futures.ThreadPoolExecutor(1))
add_CodeExecutorServicer_to_server(Dying(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"""


async def test_an_executor_that_is_killed_while_it_validates_leaves_nothing(start_plane: StartPlane) -> None:
    with subprocess.Popen([sys.executable, "-c", DYING_EXECUTOR], stdout=subprocess.PIPE) as executor:
        assert executor.stdout is not None
        plane = await start_plane(pytorch_executor=f"127.0.0.1:{int(executor.stdout.readline())}")
        with pytest.raises(Unavailable) as caught:
            await created(plane, framework=model_pb2.FRAMEWORK_PYTORCH)
        assert executor.wait(10) == -signal.SIGKILL
    assert caught.value.reason_name == "SERVICE_UNAVAILABLE"
    assert not (await plane.registry.ListModels(api.ListModelsRequest())).models
    assert (await created(plane)).id == 1, "its name is free"


async def test_a_name_is_taken_once(plane: Plane) -> None:
    await created(plane)
    with pytest.raises(AlreadyExists) as caught:
        await created(plane)
    assert caught.value.reason_name == "NAME_TAKEN"
    assert caught.value.metadata["id"] == "1"
    assert plane.executor.built == 1


async def test_of_two_creates_at_once_with_one_name_one_wins(plane: Plane) -> None:
    answers = await asyncio.gather(*(created(plane) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(answer, model_pb2.Model) for answer in answers) == 1
    assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 3


async def test_pages_are_newest_first_and_complete(plane: Plane) -> None:
    for number in range(5):
        await created(plane, f"model {number}")
    request = api.ListModelsRequest(page_size=2)
    names: list[str] = []
    while True:
        page = await plane.registry.ListModels(request)
        names += [model.name for model in page.models]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == [f"model {number}" for number in (4, 3, 2, 1, 0)]


async def test_a_page_token_fits_only_its_own_list(plane: Plane) -> None:
    for number in range(2):
        await created(plane, f"model {number}")
    token = (await plane.registry.ListModels(api.ListModelsRequest(page_size=1))).next_page_token
    for other in (
        api.ListModelsRequest(page_token=token, framework=model_pb2.FRAMEWORK_PYTORCH),
        api.ListModelsRequest(page_token="made up"),
        api.ListModelsRequest(page_size=-1),
    ):
        with pytest.raises(InvalidArgument):
            await plane.registry.ListModels(other)


async def test_a_list_leaves_code_out_unless_asked(plane: Plane) -> None:
    await created(plane)
    (basic,) = (await plane.registry.ListModels(api.ListModelsRequest())).models
    assert (basic.code, basic.signature.summary) == ("", "")
    assert basic.signature.parameter_count
    (full,) = (await plane.registry.ListModels(api.ListModelsRequest(view=model_pb2.VIEW_FULL))).models
    assert full.code == CODE


async def test_lists_are_filtered(plane: Plane) -> None:
    await created(plane, "a")
    await created(plane, "b")
    found = await plane.registry.ListModels(api.ListModelsRequest(name="b"))
    assert [model.name for model in found.models] == ["b"]
    none = await plane.registry.ListModels(api.ListModelsRequest(framework=model_pb2.FRAMEWORK_PYTORCH))
    assert not none.models


async def test_an_update_changes_the_masked_fields_alone(plane: Plane) -> None:
    model = await created(plane, description="old")
    changed = await plane.registry.UpdateModel(
        api.UpdateModelRequest(
            model=model_pb2.Model(id=model.id, name="ignored", description="new"),
            update_mask=FieldMask(paths=["description"]),
        )
    )
    assert (changed.name, changed.description, changed.code) == ("digits", "new", CODE)
    assert changed.etag != model.etag
    assert plane.executor.built == 1


async def test_changed_code_is_built_again(plane: Plane) -> None:
    model = await created(plane)
    changed = await plane.registry.UpdateModel(
        api.UpdateModelRequest(model=model_pb2.Model(id=model.id, code="model = build(2)"))
    )
    assert changed.code_sha256 != model.code_sha256
    with pytest.raises(InvalidArgument) as caught:
        await plane.registry.UpdateModel(api.UpdateModelRequest(model=model_pb2.Model(id=model.id, code="model = (")))
    assert caught.value.reason_name == "CODE_ERROR"
    assert (await plane.registry.GetModel(api.GetModelRequest(id=model.id))) == changed


async def test_a_stale_etag_is_aborted(plane: Plane) -> None:
    model = await created(plane)
    update = api.UpdateModelRequest(
        model=model_pb2.Model(id=model.id, description="mine", etag=model.etag),
        update_mask=FieldMask(paths=["description"]),
    )
    await plane.registry.UpdateModel(update)
    with pytest.raises(Aborted) as caught:
        await plane.registry.UpdateModel(update)
    assert caught.value.reason_name == "STALE_ETAG"


async def test_an_unknown_mask_path_is_refused(plane: Plane) -> None:
    model = await created(plane)
    with pytest.raises(InvalidArgument):
        await plane.registry.UpdateModel(
            api.UpdateModelRequest(model=model_pb2.Model(id=model.id), update_mask=FieldMask(paths=["colour"]))
        )


async def test_tiers_do_not_form_a_circle(plane: Plane) -> None:
    top = await created(plane, "top")
    low = await created(plane, "low", upper_model_id=top.id)
    with pytest.raises(InvalidArgument):
        await plane.registry.UpdateModel(
            api.UpdateModelRequest(model=model_pb2.Model(id=top.id, upper_model_id=low.id))
        )


async def test_a_model_in_use_is_not_deleted_and_says_by_what(plane: Plane) -> None:
    model = await created(plane)
    configuration = await configured(plane, "both", model)
    with pytest.raises(FailedPrecondition) as caught:
        await plane.registry.DeleteModel(api.DeleteModelRequest(id=model.id))
    assert caught.value.reason_name == "RESOURCE_IN_USE"
    assert caught.value.metadata["used_by"] == "configuration"
    assert caught.value.metadata["used_by_ids"] == str(configuration.id)
    await plane.registry.DeleteConfiguration(api.DeleteConfigurationRequest(id=configuration.id))
    await plane.registry.DeleteModel(api.DeleteModelRequest(id=model.id))
    with pytest.raises(NotFound) as missing:
        await plane.registry.GetModel(api.GetModelRequest(id=model.id))
    assert missing.value.metadata == {"resource": "model", "id": str(model.id)}


async def test_ids_are_never_given_twice(plane: Plane) -> None:
    model = await created(plane)
    await plane.registry.DeleteModel(api.DeleteModelRequest(id=model.id))
    assert (await created(plane)).id == model.id + 1


async def test_a_configuration_keeps_the_order_of_its_models(plane: Plane) -> None:
    a, b, c = [await created(plane, name) for name in "abc"]
    configuration = await configured(plane, "three", c, a, b)
    read = await plane.registry.GetConfiguration(api.GetConfigurationRequest(id=configuration.id))
    assert list(read.model_ids) == [c.id, a.id, b.id]
    with_b = await plane.registry.ListConfigurations(api.ListConfigurationsRequest(model_id=b.id))
    assert [one.id for one in with_b.configurations] == [configuration.id]


async def test_a_configuration_is_edited_like_a_model(plane: Plane) -> None:
    a, b = [await created(plane, name) for name in "ab"]
    before = await configured(plane, "one", a)
    after = await plane.registry.UpdateConfiguration(
        api.UpdateConfigurationRequest(
            configuration=configuration_pb2.Configuration(id=before.id, model_ids=[b.id], etag=before.etag)
        )
    )
    assert (after.name, list(after.model_ids)) == ("one", [b.id])
    with pytest.raises(Aborted):
        await plane.registry.UpdateConfiguration(
            api.UpdateConfigurationRequest(
                configuration=configuration_pb2.Configuration(id=before.id, name="two", etag=before.etag)
            )
        )


async def test_a_configuration_names_models_that_exist_each_once(plane: Plane) -> None:
    model = await created(plane)
    wish = configuration_pb2.Configuration(name="", model_ids=[model.id, model.id])
    with pytest.raises(InvalidArgument) as twice:
        await plane.registry.CreateConfiguration(api.CreateConfigurationRequest(configuration=wish))
    assert {bad.field for bad in twice.value.fields} == {"configuration.name", "configuration.model_ids"}
    wish = configuration_pb2.Configuration(name="c", model_ids=[model.id, 99])
    with pytest.raises(NotFound) as missing:
        await plane.registry.CreateConfiguration(api.CreateConfigurationRequest(configuration=wish))
    assert missing.value.metadata["id"] == "99"


async def test_an_alias_points_to_a_finished_result_of_its_model(plane: Plane) -> None:
    deployment = await plane.training("a", "b")
    first, second = deployment.result_ids
    model_id = (await plane.store.read(lambda: results.get(first))).model_id
    alias = api.SetModelAliasRequest(model_id=model_id, alias="champion", result_id=first)
    with pytest.raises(FailedPrecondition):
        await plane.registry.SetModelAlias(alias)
    for one in (first, second):
        await plane.store.write(partial(results.set_state, one, deployment_pb2.STATE_FINISHED))
    await plane.registry.SetModelAlias(alias)
    alias.result_id = second
    with pytest.raises(InvalidArgument):
        await plane.registry.SetModelAlias(alias)
    listed = await plane.registry.ListModelAliases(api.ListModelAliasesRequest(model_id=model_id))
    assert [(one.alias, one.result_id) for one in listed.aliases] == [("champion", first)]
    assert (await plane.store.read(lambda: results.get(first))).aliases == ["champion"]
    await plane.registry.DeleteModelAlias(api.DeleteModelAliasRequest(model_id=model_id, alias="champion"))
    with pytest.raises(NotFound):
        await plane.registry.DeleteModelAlias(api.DeleteModelAliasRequest(model_id=model_id, alias="champion"))


async def finished_versions(plane: Plane, count: int) -> tuple[int, list[int]]:
    """A model, and finished results of it: its versions 1, 2, …"""
    first = await plane.training("versioned")
    (result_id,) = first.result_ids
    model_id = (await plane.store.read(lambda: results.get(result_id))).model_id
    ids = [result_id]
    for _ in range(1, count):
        wish = deployment_pb2.Deployment(configuration_id=first.configuration_id)
        more = await plane.store.write(partial(deployments.create, wish))
        ids += more.result_ids
    for one in ids:
        await plane.store.write(partial(finish_version, one))
    return model_id, ids


def finish_version(result_id: int) -> None:
    """Through the report that a trainer sends."""
    attempt = results.get(result_id).attempt or results.start_attempt(result_id)
    results.add_artifact(result_id, attempt, result_pb2.Artifact(name="model.keras", sha256="0" * 64, size_bytes=1))
    finish = result_collector_pb2.StateChange(state=deployment_pb2.STATE_FINISHED)
    event = result_collector_pb2.ReportRequest(result_id=result_id, attempt=attempt, seq=1, state_change=finish)
    reports.store(result_id, attempt, [event])


async def periods(plane: Plane, model_id: int, **more: Any) -> list[model_pb2.ModelAliasPeriod]:
    request = api.ListModelAliasPeriodsRequest(model_id=model_id, **more)
    return list((await plane.registry.ListModelAliasPeriods(request)).periods)


async def test_an_alias_is_moved_by_version_and_keeps_its_history(plane: Plane) -> None:
    model_id, (first, second) = await finished_versions(plane, 2)
    move = api.SetModelAliasRequest(model_id=model_id, alias="champion", version=1)
    assert (await plane.registry.SetModelAlias(move)).result_id == first
    move.version = 2
    moved = await plane.registry.SetModelAlias(move)
    assert (moved.result_id, moved.version) == (second, 2)
    other = api.SetModelAliasRequest(model_id=model_id, alias="other", result_id=first)
    await plane.registry.SetModelAlias(other)
    await plane.registry.DeleteModelAlias(api.DeleteModelAliasRequest(model_id=model_id, alias="champion"))
    newest, oldest = await periods(plane, model_id, alias="champion")
    assert (oldest.result_id, oldest.version, oldest.deleted) == (first, 1, False)
    assert (newest.result_id, newest.version, newest.deleted) == (second, 2, True)
    assert oldest.start_time.ToNanoseconds() <= oldest.end_time.ToNanoseconds()
    assert oldest.end_time == newest.start_time == moved.update_time
    everything = await periods(plane, model_id)
    assert [one.alias for one in everything] == ["other", "champion", "champion"]
    assert not everything[0].HasField("end_time")


async def test_the_history_of_an_alias_outlives_its_results(plane: Plane) -> None:
    model_id, (first, second) = await finished_versions(plane, 2)
    for result_id in (first, second):
        await plane.registry.SetModelAlias(
            api.SetModelAliasRequest(model_id=model_id, alias="champion", result_id=result_id)
        )
    await plane.store.write(lambda: results.delete(first))
    assert [one.result_id for one in await periods(plane, model_id)] == [second, first]
    with pytest.raises(FailedPrecondition):
        await plane.store.write(lambda: results.delete(second))


async def test_the_history_of_aliases_pages(plane: Plane) -> None:
    model_id, (first, second) = await finished_versions(plane, 2)
    for number in range(5):
        to = (first, second)[number % 2]
        await plane.registry.SetModelAlias(api.SetModelAliasRequest(model_id=model_id, alias="champion", result_id=to))
    request = api.ListModelAliasPeriodsRequest(model_id=model_id, page_size=2)
    found: list[int] = []
    while True:
        page = await plane.registry.ListModelAliasPeriods(request)
        found += [one.result_id for one in page.periods]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [first, second, first, second, first]


async def test_an_alias_set_where_it_points_has_not_moved(plane: Plane) -> None:
    model_id, (first,) = await finished_versions(plane, 1)
    request = api.SetModelAliasRequest(model_id=model_id, alias="champion", result_id=first)
    answers = [await plane.registry.SetModelAlias(request) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(await periods(plane, model_id)) == 1


async def test_of_movers_that_expect_the_same_one_wins(plane: Plane) -> None:
    model_id, (first, second, third) = await finished_versions(plane, 3)

    async def move(result_id: int, expected: int) -> str:
        request = api.SetModelAliasRequest(
            model_id=model_id, alias="champion", result_id=result_id, expected_result_id=expected
        )
        try:
            await plane.registry.SetModelAlias(request)
        except Aborted as lost:
            return f"{lost.reason_name} {lost.metadata['result_id']}"
        return ""

    with pytest.raises(Aborted):
        await plane.registry.SetModelAlias(
            api.SetModelAliasRequest(model_id=model_id, alias="champion", result_id=first, expected_result_id=second)
        )
    assert sorted(await asyncio.gather(*(move(first, 0) for _ in range(5)))) == ["", *[f"STALE_ETAG {first}"] * 4]
    assert "" in await asyncio.gather(move(second, first), move(third, first))
    assert len(await periods(plane, model_id)) == 2
    with pytest.raises(Aborted):
        await plane.registry.DeleteModelAlias(
            api.DeleteModelAliasRequest(model_id=model_id, alias="champion", expected_result_id=first)
        )


async def test_an_alias_that_says_not_where_is_refused(plane: Plane) -> None:
    model_id, (first,) = await finished_versions(plane, 1)
    for wrong in ({}, {"result_id": first, "version": 1}):
        with pytest.raises(InvalidArgument) as refused:
            await plane.registry.SetModelAlias(api.SetModelAliasRequest(model_id=model_id, alias="Not Good", **wrong))
        assert [bad.field for bad in refused.value.fields] == ["alias", "result_id"]
    for missing in (-1, 2):
        with pytest.raises(NotFound) as unknown:
            await plane.registry.SetModelAlias(
                api.SetModelAliasRequest(model_id=model_id, alias="champion", version=missing)
            )
        assert unknown.value.metadata["version"] == str(missing)
    with pytest.raises(NotFound):
        await periods(plane, 99)
