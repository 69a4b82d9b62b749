"""The control plane as the gateway sees it: calls by method path, over as many connections as the streams need."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from gateway.routes import Route
from headrace.client import connect_async
from headrace.errors import HeadraceError

# A server takes 100 streams on one connection; the rest is left for their ends to overlap with new beginnings.
STREAMS_PER_CONNECTION = 80
Metadata = Sequence[tuple[str, str]]
_HEALTH = "/grpc.health.v1.Health/Check"


class Backend:
    """Open it with `async with`. Streams get connections of their own, so that thousands of watchers never make a
    unary call wait."""

    def __init__(self, address: str):
        self._address = address
        self._stack = AsyncExitStack()
        self._unary: grpc.aio.Channel
        self._for_streams: list[_Counted] = []

    async def __aenter__(self) -> Self:
        self._unary = await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def call(self, route: Route, request: Message, timeout_s: float, metadata: Metadata = ()) -> Message:
        """One unary call. Raises HeadraceError."""
        method = self._unary.unary_unary(
            route.rpc_path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=route.response_class.FromString,
        )
        answer: Message = await method(request, timeout=timeout_s, metadata=metadata)
        return answer

    async def stream(self, route: Route, request: Message) -> AsyncIterator[Message]:
        """The messages of a server stream, which ends when the server ends it or the caller closes it."""
        counted = await self._stream_channel()
        counted.streams += 1
        try:
            method = counted.channel.unary_stream(
                route.rpc_path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=route.response_class.FromString,
            )
            call = method(request)
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()
        finally:
            counted.streams -= 1

    async def is_serving(self, timeout_s: float = 2.0) -> bool:
        """Whether the control plane answers and says that it serves."""
        check = self._unary.unary_unary(
            _HEALTH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except HeadraceError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _stream_channel(self) -> "_Counted":
        for counted in self._for_streams:
            if counted.streams < STREAMS_PER_CONNECTION:
                return counted
        counted = _Counted(await self._connect())
        self._for_streams.append(counted)
        return counted

    async def _connect(self) -> grpc.aio.Channel:
        return await self._stack.enter_async_context(connect_async(self._address))


class _Counted:
    """A channel and how many streams it carries."""

    def __init__(self, channel: Any):
        self.channel = channel
        self.streams = 0
