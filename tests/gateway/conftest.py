"""A gateway in front of a gRPC server, both on loopback, for the tests of one module."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest_asyncio

from gateway.server import serving
from gateway.settings import Settings
from tests.gateway.echo import Echo, echoing


@dataclass(frozen=True)
class Behind:
    """A client of a gateway, and the server behind that."""

    http: httpx.AsyncClient
    echo: Echo
    url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_behind() -> AsyncIterator[Behind]:
    async with echoing() as echo:
        settings = Settings(listen="127.0.0.1:0", address=f"127.0.0.1:{echo.port}", keep_alive_s=0.1)
        async with serving(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
            yield Behind(http, echo, gateway.url)


@pytest_asyncio.fixture(loop_scope="module")
async def behind(module_behind: Behind) -> Behind:
    """The gateway and its server, with nothing asked and nothing told yet."""
    echo = module_behind.echo
    echo.asked.clear()
    echo.answers.clear()
    echo.silent.clear()
    echo.timeouts_s.clear()
    echo.metadata.clear()
    echo.cancelled.clear()
    return module_behind
