"""What of an HTTP request ends up where in the request message, and what bad input is answered."""

import json
from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import routes, transcode
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2, model_pb2, result_pb2
from tests.gateway.conftest import Behind

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGEST = 2**63 - 1


def violations(answer: Any) -> dict[str, str]:
    details = {detail["@type"].rpartition(".")[2]: detail for detail in answer.json()["details"]}
    assert details["ErrorInfo"]["domain"] == "headrace"
    return {bad["field"]: bad["description"] for bad in details["BadRequest"]["fieldViolations"]}


async def test_a_body_fills_the_field_that_the_rule_names(behind: Behind) -> None:
    body = {
        "configurationId": str(LARGEST),
        "settings": {"batch_size": 32, "seed": 7, "split": "SPLIT_ORDERED", "deadline": "90.5s", "single": {}},
    }
    answer = await behind.http.post("/v1/deployments?validateOnly=true&request_id=abc", json=body)
    assert answer.status_code == 200
    _, request = behind.echo.asked[-1]
    assert request.validate_only
    assert request.request_id == "abc"
    assert request.deployment.configuration_id == LARGEST
    wanted = deployment_pb2.TrainingSettings(
        batch_size=32, seed=7, split=deployment_pb2.SPLIT_ORDERED, single=deployment_pb2.SingleMode()
    )
    wanted.deadline.FromJsonString("90.5s")
    assert request.deployment.settings == wanted


async def test_a_body_of_all_the_rest_joins_the_path(behind: Behind) -> None:
    answer = await behind.http.post("/v1/inferences/9:predict", json={"sample": [[0, 1.5], [None, "x"]]})
    assert answer.status_code == 200
    _, request = behind.echo.asked[-1]
    assert request.inference_id == 9
    wanted = struct_pb2.Struct()
    wanted.update({"sample": [[0, 1.5], [None, "x"]]})
    assert request.sample == wanted.fields["sample"]


async def test_a_body_may_be_left_out_where_all_its_fields_may(behind: Behind) -> None:
    assert (await behind.http.post("/v1/deployments/3:cancel")).status_code == 200
    assert behind.echo.asked[-1][1].id == 3


async def test_a_query_fills_nested_fields_and_enums(behind: Behind) -> None:
    answer = await behind.http.get("/v1/results?deploymentId=5&view=VIEW_FULL&state=9&pageToken=")
    assert answer.status_code == 200
    _, request = behind.echo.asked[-1]
    assert (request.deployment_id, request.view, request.state) == (5, model_pb2.VIEW_FULL, deployment_pb2.STATE_FAILED)
    await behind.http.delete("/v1/inferences/4?force=1")
    assert behind.echo.asked[-1][1].force


async def test_a_patch_changes_what_its_body_has(behind: Behind) -> None:
    body = {"replicas": 0, "batch": {"maxRows": 8, "maxWait": "0.1s"}, "inputConfig": {"a": "b"}, "alias": None}
    answer = await behind.http.patch("/v1/inferences/6", json=body)
    assert answer.status_code == 200
    _, request = behind.echo.asked[-1]
    assert list(request.update_mask.paths) == ["replicas", "batch.max_rows", "batch.max_wait", "input_config", "alias"]
    assert request.inference.id == 6
    assert request.inference.batch.max_rows == 8


async def test_a_patch_with_a_mask_keeps_it(behind: Behind) -> None:
    body = {"name": "n", "description": "d"}
    await behind.http.patch("/v1/models/6?updateMask=description", json=body)
    assert list(behind.echo.asked[-1][1].update_mask.paths) == ["description"]


async def test_a_patch_of_another_resource_than_the_path_is_refused(behind: Behind) -> None:
    answer = await behind.http.patch("/v1/models/6", json={"id": 7, "name": "n"})
    assert answer.status_code == 400
    assert "model.id" in violations(answer)
    assert (await behind.http.patch("/v1/models/6", json={"id": "6", "name": "n"})).status_code == 200


async def test_every_bad_field_is_named_at_once(behind: Behind) -> None:
    body = {
        "configurationId": "x",
        "descripton": "typo",
        "stream_id": 1.5,
        "settings": {"batchSize": 2**31, "split": "SIDEWAYS", "pytorch": {"fitArgs": 5}, "deadline": "soon"},
        "resultIds": ["1", "two"],
        "resources": "",
        "createTime": 5,
    }
    answer = await behind.http.post("/v1/deployments?validateOnly=maybe&color=red", json=body)
    assert answer.status_code == 400
    found = violations(answer)
    assert set(found) == {
        "deployment.configurationId",
        "deployment.descripton",
        "deployment.stream_id",
        "deployment.settings.batchSize",
        "deployment.settings.split",
        "deployment.settings.pytorch.fitArgs",
        "deployment.settings.deadline",
        "deployment.resultIds[1]",
        "deployment.resources",
        "deployment.createTime",
        "validateOnly",
        "color",
    }
    assert "description" in found["deployment.descripton"]
    assert "SPLIT_ORDERED" in found["deployment.settings.split"]
    assert all(request.validate_only for _, request in behind.echo.asked)


async def test_what_the_service_finds_wrong_with_the_rest_is_told_with_it(behind: Behind) -> None:
    looks_missing = FieldViolation("deployment.settings.batch_size", "must be 1 or more")
    wrong = FieldViolation("deployment.description", "is too long")
    behind.echo.answers["CreateDeployment"] = [
        InvalidArgument(error_pb2.REASON_INVALID_FIELD, "2 fields are wrong", fields=[looks_missing, wrong])
    ]
    answer = await behind.http.post("/v1/deployments", json={"settings": {"batchSize": "many"}, "description": "x"})
    found = violations(answer)
    assert set(found) == {"deployment.settings.batchSize", "deployment.description"}
    assert "whole number" in found["deployment.settings.batchSize"]
    (asked,) = behind.echo.asked
    assert (asked[1].validate_only, asked[1].deployment.description) == (True, "x")


async def test_a_method_that_cannot_only_check_is_not_called_for_a_request_that_is_wrong(behind: Behind) -> None:
    answer = await behind.http.post("/v1/configurations", json={"name": "a", "modelIds": ["one"]})
    assert set(violations(answer)) == {"configuration.modelIds[0]"}
    assert behind.echo.asked == []


BAD_QUERIES = ["pageSize=", "pageSize=1&pageSize=2", "pageSize=1e9999", "view=VIEW_WIDE", "modelId=9223372036854775808"]


@pytest.mark.parametrize(
    "query", [*BAD_QUERIES, "state.x=1", "x.y.z=1", "%ff=1", "pageToken=%ff", "&".join("x" * 2000)]
)
async def test_a_bad_query_is_refused(behind: Behind, query: str) -> None:
    answer = await behind.http.get(f"/v1/results?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize("path", ["x", "1.5", "", "9223372036854775808", "%ff", "%00", "1%20", "-"])
async def test_a_bad_id_in_a_path_is_refused(behind: Behind, path: str) -> None:
    answer = await behind.http.get(f"/v1/models/{path}/aliases")
    assert answer.status_code == (404 if path == "" else 400)
    assert behind.echo.asked == []


async def test_fields_of_path_and_body_are_not_taken_from_the_query(behind: Behind) -> None:
    assert "id" in violations(await behind.http.get("/v1/models/6?id=7"))
    assert "model.name" in violations(await behind.http.patch("/v1/models/6?model.name=n", json={}))
    assert "deploymentId" in violations(await behind.http.post("/v1/streams/6:replay?deploymentId=1", json={}))


BAD_BODIES = {
    "cut": b'{"name": "x',
    "no object": b"[1, 2]",
    "a text": b'"model"',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "twice": b'{"name": "a", "name": "b"}',
    "twice under both names": b'{"codeSha256": "a", "code_sha256": "b"}',
    "twice inside": b'{"signature": {"summary": "a", "summary": "b"}}',
    "NaN": b'{"upperModelId": NaN}',
    "huge number": b'{"upperModelId": 1e999}',
    "number of many digits": b'{"upperModelId": ' + b"9" * 10_000 + b"}",
    "deep": b'{"name": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"signature":' * 200 + b"1" + b"}" * 200,
    "two values": b"{} {}",
    "nothing known": b'{"constructor": 1}',
    "extension": b'{"[google.rpc.Status]": 1}',
    "boolean for a number": b'{"upperModelId": true}',
    "boolean for a text": b'{"name": false}',
    "number for a text": b'{"name": 5}',
    "null in a list": b'{"signature": {"inputs": [null]}}',
    "object for an enum": b'{"framework": {}}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_refused(behind: Behind, body: bytes) -> None:
    answer = await behind.http.post("/v1/models", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    assert all(request.validate_only for _, request in behind.echo.asked)


async def test_only_one_of_a_choice_may_be_set(behind: Behind) -> None:
    body: Any = {"settings": {"single": {}, "incremental": {"indefinite": True}}}
    answer = await behind.http.post("/v1/deployments", json=body)
    assert list(violations(answer)) == ["deployment.settings.incremental"]
    body = {"settings": {"single": {}, "incremental": None}}
    assert (await behind.http.post("/v1/deployments", json=body)).status_code == 200


async def test_a_body_where_none_belongs_is_refused(behind: Behind) -> None:
    answer = await behind.http.request("GET", "/v1/models/6", json={"a": 1})
    assert answer.status_code == 400


async def test_answers_have_every_field(behind: Behind) -> None:
    result = result_pb2.Result(id=LARGEST, state=deployment_pb2.STATE_TRAINING)
    result.metrics.splits["training"].values["loss"] = float("nan")
    result.metrics.splits["training"].values["accuracy"] = 0.5
    result.start_time.FromJsonString("2026-01-31T12:00:00.5Z")
    behind.echo.answers["GetResult"] = [result]
    answer = (await behind.http.get("/v1/results/7")).json()
    assert answer["id"] == str(LARGEST)
    assert answer["state"] == "STATE_TRAINING"
    assert answer["startTime"] == "2026-01-31T12:00:00.500Z"
    assert answer["metrics"] == {"splits": {"training": {"values": {"loss": "NaN", "accuracy": 0.5}}}}
    assert (answer["artifacts"], answer["version"], answer["modelName"]) == ([], 0, "")
    for unset in ("error", "progress", "stream", "endTime"):
        assert answer[unset] is None
    behind.echo.answers["GetInference"] = [inference_pb2.Inference()]
    answer = (await behind.http.get("/v1/inferences/7")).json()
    assert (answer["inputConfig"], answer["startOffsets"], answer["limit"]) == ({}, {}, 0.0)


async def test_unset_members_of_a_choice_are_left_out(behind: Behind) -> None:
    deployment = deployment_pb2.Deployment(settings={"single": {}})
    behind.echo.answers["GetDeployment"] = [deployment]
    settings_ = (await behind.http.get("/v1/deployments/7")).json()["settings"]
    assert settings_["single"] == {}
    assert "incremental" not in settings_


async def test_details_of_errors_keep_their_types(behind: Behind) -> None:
    result = result_pb2.Result()
    result.error.code = 3
    result.error.details.add().Pack(deployment_pb2.Resources(gpu_count=2))
    result.error.details.add(type_url="type.googleapis.com/some.Unknown", value=b"\x00")
    behind.echo.answers["GetResult"] = [result]
    answer = (await behind.http.get("/v1/results/7")).json()
    assert [detail["@type"] for detail in answer["error"]["details"]] == ["type.googleapis.com/headrace.v1.Resources"]


# ---- whatever a client sends -------------------------------------------------------------------------------------

NAMES = sorted(
    {field.json_name for file in routes.api_files() for m in file.message_types_by_name.values() for field in m.fields}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "1s", "NaN"]),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), child, max_size=5),
    max_leaves=12,
)
ROUTES = st.sampled_from(routes.routes())
QUERIES = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(), st.text(max_size=8)), max_size=3)


def read(match: routes.Match, query: list[tuple[str, str]], body: bytes) -> Message:
    """The request message, or the Status that says why there is none."""
    try:
        return transcode.request_message(match, query, body)
    except InvalidArgument as error:
        status: Message = error.to_status()
        return status


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(route=ROUTES, values=st.lists(st.binary(max_size=6), min_size=3, max_size=3), query=QUERIES, body=JSON)
async def test_any_request_is_a_message_or_a_bad_request(
    route: routes.Route, values: list[bytes], query: list[tuple[str, str]], body: Any
) -> None:
    match = routes.Match(route, dict(zip(route.path_fields, values, strict=False)))
    text = json.dumps(body).encode() if route.body else b""
    assert isinstance(read(match, query, text), route.request_class | Status)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.binary(max_size=60))
async def test_any_bytes_are_a_message_or_a_bad_request(text: bytes) -> None:
    match = routes.find("POST", "/v1/models")
    assert match is not None
    assert isinstance(read(match, [], text), match.route.request_class | Status)
