"""The OpenAPI document: complete, consistent, and with the words of the protos."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import openapi, routes
from tests.gateway.conftest import Behind

pytestmark = pytest.mark.asyncio(loop_scope="module")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


async def test_it_is_served(behind: Behind) -> None:
    answer = await behind.http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == openapi.document()


async def test_it_has_every_route_and_nothing_else() -> None:
    document = openapi.document()
    described = {(verb.upper(), path) for path, operations in document["paths"].items() for verb in operations}
    assert described == {(route.verb, openapi.openapi_path(route)) for route in routes.routes()}
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


async def test_every_reference_has_its_schema_and_every_schema_is_used() -> None:
    document = openapi.document()
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names == set(document["components"]["schemas"])


async def test_parameters_are_those_of_their_paths() -> None:
    for path, operations in openapi.document()["paths"].items():
        for operation in operations.values():
            in_path = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert in_path == re.findall(r"\{([^}]+)\}", path)
            names = [(p["name"], p["in"]) for p in operation["parameters"]]
            assert len(names) == len(set(names))
            assert all(p["schema"] for p in operation["parameters"])


async def test_the_comments_of_the_protos_are_the_descriptions() -> None:
    document = openapi.document()
    assert document["components"]["schemas"]["Model"]["properties"]["name"]["description"].startswith("Unique; 1 to 63")
    assert "STATE_FAILED: Ended with an error." in document["components"]["schemas"]["State"]["description"]
    operation = document["paths"]["/v1/deployments/{id}:cancel"]["post"]
    assert operation["description"] == "Stops a training. Its finished results stay."
    ours = [name for name in document["components"]["schemas"] if name not in ("Status", "Empty")]
    for name in ours:
        assert document["components"]["schemas"][name]["description"], name


async def test_kinds_of_fields() -> None:
    result = openapi.document()["components"]["schemas"]["Result"]["properties"]
    assert result["id"]["type"] == "string"
    assert result["id"]["readOnly"]
    assert result["attempt"]["type"] == "integer"
    assert result["artifacts"]["items"] == {"$ref": "#/components/schemas/Artifact"}
    assert {"type": "null"} in result["progress"]["anyOf"]
    body = openapi.document()["paths"]["/v1/streams/{id}:replay"]["post"]["requestBody"]
    assert list(body["content"]["application/json"]["schema"]["properties"]) == ["deploymentId"]


async def test_streams_are_described_in_both_forms() -> None:
    answer = openapi.document()["paths"]["/v1/deployments/{deploymentId}:watch"]["get"]["responses"]["200"]
    assert set(answer["content"]) == {"application/x-ndjson", "text/event-stream"}
