"""A gRPC server that has every method of the API, remembers what it was asked, and answers as it was told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_status import rpc_status

from gateway.routes import api_files
from headrace.errors import HeadraceError

Answer = Message | HeadraceError


class Echo(grpc.GenericRpcHandler):
    """`answers` by method name: one for a unary method, several for a stream. Unset: the empty message, or none."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, Sequence[Answer]] = {}
        self.timeouts_s: list[float | None] = []
        self.metadata: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()
        # A method in here answers nothing until its call is cancelled.
        self.silent: set[str] = set()
        self._methods = {
            f"/{service.full_name}/{method.name}": method
            for file in api_files()
            for service in file.services_by_name.values()
            for method in service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(handler_call_details.method)
        if method is None or method.client_streaming:
            return None
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        behavior = self._stream(method) if method.server_streaming else self._unary(method)
        return make(
            behavior,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, method: MethodDescriptor) -> Any:
        async def answer(request: Message, context: Any) -> Message:
            await self._hear(method, request, context)
            for told in self.answers.get(method.name, ()):
                return await _give(told, context)
            return message_factory.GetMessageClass(method.output_type)()

        return answer

    def _stream(self, method: MethodDescriptor) -> Any:
        async def answer(request: Message, context: Any) -> AsyncIterator[Message]:
            for told in self.answers.get(method.name, ()):
                yield await _give(told, context)
            await self._hear(method, request, context)

        return answer

    async def _hear(self, method: MethodDescriptor, request: Message, context: Any) -> None:
        self.asked.append((method.name, request))
        self.timeouts_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        if method.name in self.silent:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()


async def _give(told: Answer, context: Any) -> Message:
    if isinstance(told, HeadraceError):
        await context.abort_with_status(rpc_status.to_status(told.to_status()))
    assert isinstance(told, Message)
    return told


@asynccontextmanager
async def echoing(port: int = 0) -> AsyncIterator[Echo]:
    """A running Echo on loopback."""
    echo = Echo()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([echo])
    echo.port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield echo
    finally:
        await server.stop(0)
