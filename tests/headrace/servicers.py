"""Servicers that do what a test tells them, and servers for them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from google.api import httpbody_pb2

from headrace.server import RunningServer, ServerOptions, Servicer, serving
from headrace.v1 import result_collector_pb2, result_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorServicer, add_ResultCollectorServicer_to_server
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogServicer, add_StreamCatalogServicer_to_server

CATALOG = "headrace.v1.StreamCatalog"
COLLECTOR = "headrace.v1.ResultCollector"


async def _stream(request: Any) -> stream_pb2.Stream:
    return stream_pb2.Stream(id=request.id)


@dataclass
class Catalog(StreamCatalogServicer):
    """`answer` is what GetStream and RecordStream do; `calls` counts them. AwaitStream waits for ever."""

    answer: Callable[[Any], Awaitable[Any]] = _stream
    calls: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetStream(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return await self.answer(request)

    async def RecordStream(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return await self.answer(request)

    async def AwaitStream(self, request: Any, context: Any) -> Any:
        self.waiting.set()
        await asyncio.Event().wait()

    def served(self) -> Servicer:
        """For `serving`."""
        return add_StreamCatalogServicer_to_server, self, CATALOG


@dataclass
class Collector(ResultCollectorServicer):
    """Watches tell one event and then nothing; downloads bring `chunks`; reports are acknowledged as they come."""

    chunks: AsyncIterator[bytes] | None = None
    error: Exception | None = None
    watchers: int = 0
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    async def WatchResults(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.watchers += 1
        try:
            yield result_pb2.ResultEvent(sequence=request.after_sequence + 1)
            if self.error:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.watchers -= 1
            self.cut.set()

    async def DownloadArtifact(self, request: Any, context: Any) -> AsyncIterator[Any]:
        assert self.chunks is not None
        async for chunk in self.chunks:
            yield httpbody_pb2.HttpBody(data=chunk)

    async def Report(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield result_collector_pb2.ReportResponse(acked_seq=request.seq)

    async def UploadArtifact(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return result_pb2.Artifact(size_bytes=len([request async for request in requests]))

    def served(self) -> Servicer:
        """For `serving`."""
        return add_ResultCollectorServicer_to_server, self, COLLECTOR


def on_loopback(
    *servicers: Catalog | Collector, options: ServerOptions | None = None
) -> AbstractAsyncContextManager[RunningServer]:
    """A server for them on a free port."""
    return serving("127.0.0.1:0", [servicer.served() for servicer in servicers], options=options)


def address(running: RunningServer) -> str:
    return f"127.0.0.1:{running.port}"


@contextmanager
def on_a_thread(make: Callable[[], Catalog | Collector], port: int = 0) -> Iterator[str]:
    """The address of a server in an event loop of its own, for tests of synchronous code."""
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with serving(f"127.0.0.1:{port}", [make().served()]) as running:
            ports.append(running.port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="server")
    thread.start()
    assert started.wait(10)
    try:
        yield f"127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


GET = stream_catalog_pb2.GetStreamRequest(id=7)
