"""Clients that flood a server, or go away without a word: the others are served, and its memory is bounded."""

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.client import connect_async
from headrace.server import ServerOptions
from headrace.v1.result_collector_pb2 import WatchResultsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.headrace import raw_http2
from tests.headrace.servicers import CATALOG, COLLECTOR, GET, Catalog, Collector, address, on_loopback

ROOT = Path(__file__).parents[2]
AWAIT_STREAM = f"/{CATALOG}/AwaitStream"
FLOOD, AT_ONCE = 20_000, 100
MANY = 10_000


class Server:
    """In a process of its own, with the limits that all of ours have."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self._process = psutil.Process(process.pid)

    @property
    def memory_mb(self) -> float:
        """What is in memory."""
        return float(self._process.memory_info().rss) / 1e6


@pytest.fixture
def server() -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.headrace.served"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[list[float]]:
    """Another client calls all the time; how long each call took, complete after the block."""
    took: list[float] = []
    over = asyncio.Event()

    async def call() -> None:
        async with connect_async(f"127.0.0.1:{port}") as channel:
            stub: Any = StreamCatalogStub(channel)
            while not over.is_set():
                began = time.perf_counter()
                assert (await stub.GetStream(GET)).id == 7
                took.append(time.perf_counter() - began)

    task = asyncio.create_task(call())
    try:
        yield took
    finally:
        over.set()
        await task


async def told(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """Kind and payload of what the server says, up to the end of the connection."""
    try:
        while True:
            kind, _, payload = await raw_http2.read_frame(reader)
            yield kind, payload
    except (asyncio.IncompleteReadError, ConnectionError):
        return


async def is_told(reader: asyncio.StreamReader, error: int) -> bool:
    """Blocks until the server gives this as the reason why a call or the connection ends; False when it just ends."""
    async for kind, payload in told(reader):
        if kind in (raw_http2.RST_STREAM, raw_http2.GOAWAY) and payload[:8].endswith(error.to_bytes(4, "big")):
            return True
    return False


def expect_unharmed(server: Server, before_mb: float, took: list[float]) -> None:
    assert took
    assert max(took) < 5
    assert server.memory_mb - before_mb < 100


def cancelled_call(number: int) -> bytes:
    """A call that is begun and cancelled at once."""
    stream = 2 * number + 1
    return raw_http2.headers(AWAIT_STREAM, stream) + raw_http2.message(stream, b"") + raw_http2.reset(stream)


async def test_a_flood_of_cancelled_calls_is_refused_and_the_others_are_served(
    server: Server,
) -> None:
    before_mb = server.memory_mb
    async with calling(server.port) as took:
        reader, writer = await raw_http2.connect(server.port)
        refused = asyncio.create_task(is_told(reader, raw_http2.ENHANCE_YOUR_CALM))
        for first in range(0, FLOOD, AT_ONCE):
            writer.write(b"".join(cancelled_call(number) for number in range(first, first + AT_ONCE)))
            await asyncio.sleep(0)  # The other client's turn: nothing is waited for.
        assert await refused
        writer.close()
    expect_unharmed(server, before_mb, took)


async def test_a_flood_of_pings_ends_its_connection_and_the_others_are_served(server: Server) -> None:
    before_mb = server.memory_mb
    async with calling(server.port) as took:
        reader, writer = await raw_http2.connect(server.port)
        # Its reason may be lost with the connection.
        ended = asyncio.create_task(is_told(reader, raw_http2.ENHANCE_YOUR_CALM))
        async with asyncio.timeout(10):
            while not ended.done():
                writer.write(AT_ONCE * raw_http2.ping())
                await asyncio.sleep(0)
        writer.close()
    expect_unharmed(server, before_mb, took)


async def test_calls_beyond_the_limit_of_a_connection_are_refused() -> None:
    async with on_loopback(Catalog(), options=ServerOptions(max_concurrent_streams=3)) as running:
        reader, writer = await raw_http2.connect(running.port)
        assert await greeting(reader)
        writer.write(raw_http2.frame(raw_http2.SETTINGS, raw_http2.ACK))  # From here on the limit is known.
        for stream in range(1, 30, 2):
            writer.write(raw_http2.headers(AWAIT_STREAM, stream) + raw_http2.message(stream, b""))
        assert await is_told(reader, raw_http2.REFUSED_STREAM)
        async with connect_async(address(running)) as channel:
            stub: Any = StreamCatalogStub(channel)
            assert (await stub.GetStream(GET)).id == 7
        writer.close()


async def test_connections_beyond_the_limit_of_a_server_are_closed_and_the_others_go_on() -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(on_loopback(Catalog(), options=ServerOptions(max_connections=5)))
        stub: Any = StreamCatalogStub(await stack.enter_async_context(connect_async(address(running))))
        await stub.GetStream(GET)
        connections = [await raw_http2.connect(running.port) for _ in range(5)]
        greeted = [await greeting(reader) for reader, _ in connections]
        assert greeted == [True] * 4 + [False]
        assert (await stub.GetStream(GET)).id == 7
        for _, writer in connections:
            writer.close()
        async with asyncio.timeout(10):
            while not await is_let_in(running.port):
                pass


async def is_let_in(port: int) -> bool:
    """Whether a connection that is made now is one of those that may be."""
    reader, writer = await raw_http2.connect(port)
    greeted = await greeting(reader)
    writer.close()
    return greeted


async def greeting(reader: asyncio.StreamReader) -> bool:
    """Whether the server speaks to this connection."""
    return await anext(told(reader), None) is not None


@pytest.mark.parametrize("pings", [0, 1])
async def test_a_watcher_that_is_gone_without_a_word_is_forgotten(pings: int) -> None:
    collector = Collector()
    options = ServerOptions(keepalive_s=0.5, keepalive_timeout_s=0.5)
    async with on_loopback(collector, options=options) as running, connect_async(address(running)) as channel:
        watch: Any = aiter(ResultCollectorStub(channel).WatchResults(WatchResultsRequest(result_id=1)))
        await anext(watch)
        # The other end of a connection that is cut answers nothing, and closes nothing either.
        reader, silent = await raw_http2.connect(running.port)
        silent.write(raw_http2.headers(f"/{COLLECTOR}/WatchResults", 1) + raw_http2.message(1, b""))
        await answer_pings(pings, reader, silent)
        async with asyncio.timeout(10):
            await collector.cut.wait()
        assert collector.watchers == 1, "who answers is not forgotten"
        silent.close()
        await watch.aclose()


async def answer_pings(count: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Blocks until so many have come."""
    answers = told(reader)
    while count:
        kind, payload = await anext(answers)
        if kind == raw_http2.PING:
            writer.write(raw_http2.frame(raw_http2.PING, raw_http2.ACK, 0, payload))
            count -= 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as this process is allowed to have; its children inherit that."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.chaos
async def test_ten_thousand_connections_hold_nobody_up(many_files: None, server: Server) -> None:
    before_mb = server.memory_mb
    connections = [await raw_http2.connect(server.port) for _ in range(MANY - 10)]
    assert all([await greeting(reader) for reader, _ in connections])
    async with calling(server.port) as took:
        while len(took) < 1000:
            await asyncio.sleep(0)
    assert sorted(took)[990] < 0.1
    assert server.memory_mb - before_mb < 400
    print(f"{server.memory_mb - before_mb:.0f} MB, p50 {1000 * sorted(took)[500]:.1f} ms")
    for _, writer in connections:
        writer.close()
