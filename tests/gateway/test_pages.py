"""Web pages: where files and addresses of pages lead, what is cached, and what browsers are told to forbid."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.server import serving
from gateway.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def built(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway with small pages."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>index</title>")
    (tmp_path / "icon.svg").write_text("<svg/>")
    (tmp_path / "assets" / "main-1234.js").write_text("//" + "x" * 5000)
    settings = Settings(listen="127.0.0.1:0")
    async with serving(settings, tmp_path) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
        yield http


@pytest.mark.parametrize("path", ["/", "/deployments/7", "/inferences/1?x=y", "/not/a/page"])
async def test_addresses_of_pages_are_the_index(built: httpx.AsyncClient, path: str) -> None:
    answer = await built.get(path)
    assert (answer.status_code, answer.text) == (200, "<title>index</title>")
    assert answer.headers["cache-control"] == "no-cache"
    again = await built.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_files_are_files(built: httpx.AsyncClient) -> None:
    script = await built.get("/assets/main-1234.js")
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip"
    assert "javascript" in script.headers["content-type"]
    icon = await built.get("/icon.svg")
    assert (icon.headers["content-type"], icon.headers["cache-control"]) == ("image/svg+xml", "no-cache")
    assert (await built.get("/assets/gone-99.js")).status_code == 404
    assert (await built.post("/")).status_code == 405
    for path in ("/v1", "/v2/models"):
        assert (await built.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/../settings.py", "/%2e%2e/settings.py", "/assets/..%2f..%2fsettings.py", "/%00.js"])
async def test_nothing_outside_is_served(built: httpx.AsyncClient, path: str) -> None:
    answer = await built.get(path)
    assert answer.status_code in (404, 400) or answer.text == "<title>index</title>"


async def test_browsers_are_told_to_be_strict(built: httpx.AsyncClient) -> None:
    for path in ("/", "/openapi.json", "/v1/nothing", "/healthz"):
        headers = (await built.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_pages_that_are_not_built_say_how(tmp_path: Path) -> None:
    settings = Settings(listen="127.0.0.1:0")
    async with serving(settings, tmp_path / "none") as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.get("/deployments/7")
        assert answer.status_code == 404
        assert "make web" in answer.text
        assert (await http.get("/healthz")).status_code == 200


async def test_metrics_count_requests_by_route(built: httpx.AsyncClient) -> None:
    await built.get("/v1/models/77", headers={"grpc-timeout": "1m"})
    text = (await built.get("/metrics")).text
    assert 'headrace_gateway_requests_total{route="/v1/models/{id}",status="50' in text
