"""Every HTTP rule of the protos reaches its method."""

from typing import Any

import pytest
from google.protobuf import json_format

from gateway import routes
from headrace.v1 import result_collector_pb2
from tests.gateway.conftest import Behind

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNARY = [route for route in routes.routes() if not route.streams]


@pytest.mark.parametrize("route", UNARY, ids=lambda route: f"{route.verb} {route.template}")
async def test_every_unary_rule_reaches_its_method(behind: Behind, route: routes.Route) -> None:
    path = route.template
    for field in route.path_fields:
        path = path.replace("{" + field + "}", "7")
    answer = await behind.http.request(route.verb, path, json={} if route.body else None)
    assert answer.status_code == 200, answer.text
    name, request = behind.echo.asked[-1]
    assert name == route.method.name
    asked = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for field in route.path_fields:
        value: Any = asked
        for part in field.split("."):
            value = value[part]
        assert value == "7"


async def test_internal_methods_have_no_route() -> None:
    routed = {route.method.name for route in routes.routes()}
    assert routed.isdisjoint(
        {"ReportReplica", "Report", "UploadArtifact", "RecordStream", "AwaitStream", "ValidateCode"}
    )


@pytest.mark.parametrize(
    ("path", "method", "values"),
    [
        ("/v1/results/7", "GetResult", {"id": b"7"}),
        ("/v1/results/7:watch", "WatchResults", {"result_id": b"7"}),
        ("/v1/deployments/7:watch", "WatchResults", {"deployment_id": b"7"}),
        (
            "/v1/results/7/artifacts/model.keras:download",
            "DownloadArtifact",
            {"result_id": b"7", "name": b"model.keras"},
        ),
        ("/v1/results/7/artifacts/a%2Fb%3Ac:download", "DownloadArtifact", {"result_id": b"7", "name": b"a/b:c"}),
    ],
)
async def test_verbs_and_escapes_in_paths(path: str, method: str, values: dict[str, bytes]) -> None:
    match = routes.find("GET", path)
    assert match is not None
    assert (match.route.method.name, match.path_values) == (method, values)


async def test_an_unknown_path_is_not_found(behind: Behind) -> None:
    for path in ("/v1/", "/v1/nothing", "/v1/models/7:explode", "/v1/models/7/aliases/a/b", "/v1//models"):
        answer = await behind.http.post(path)
        assert (answer.status_code, answer.json()["code"]) == (404, 5), path
    assert behind.echo.asked == []


async def test_a_wrong_verb_says_which_are_right(behind: Behind) -> None:
    answer = await behind.http.put("/v1/models/7")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, PATCH"
    assert answer.json()["code"] == 12


async def test_head_answers_as_get_without_a_body(behind: Behind) -> None:
    answer = await behind.http.head("/v1/models/7")
    assert (answer.status_code, answer.content) == (200, b"")
    assert behind.echo.asked[-1][0] == "GetModel"


async def test_a_rendered_picture_comes_as_it_is(behind: Behind) -> None:
    from google.api import httpbody_pb2

    behind.echo.answers["RenderConfusionMatrix"] = [httpbody_pb2.HttpBody(content_type="image/png", data=b"\x89PNG")]
    answer = await behind.http.get("/v1/results/7:confusionMatrix")
    assert (answer.headers["content-type"], answer.content) == ("image/png", b"\x89PNG")
    assert behind.echo.asked[-1][1] == result_collector_pb2.RenderConfusionMatrixRequest(result_id=7)


async def test_the_trace_context_goes_on_to_the_call_behind(behind: Behind) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    await behind.http.post("/v1/inferences/7:predict", json={"sample": 1}, headers=trace)
    assert {name: behind.echo.metadata[-1].get(name) for name in trace} == trace
    for malformed in ("00-zz-b7ad6b7169203331-01", "x" * 600):
        await behind.http.post("/v1/inferences/7:predict", json={"sample": 1}, headers={"traceparent": malformed})
        assert "traceparent" not in behind.echo.metadata[-1]
