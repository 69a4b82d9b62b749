"""Errors of servicers as google.rpc.Status, and metrics of every call. The one place that does either on a server."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from headrace import metrics
from headrace.errors import HeadraceError, Internal, not_yet
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """HeadraceError goes to the client whole; anything else is our bug: a constant message with an id, the rest in the
    log. A call that was cancelled or ran out of time ends as gRPC has it.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of the method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        behavior = handler.stream_stream or handler.unary_stream or handler.stream_unary or handler.unary_unary
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(wrap(behavior, method), handler.request_deserializer, handler.response_serializer)


_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _wrap_unary(behavior: Any, method: str) -> Any:
    async def call(request: Any, context: Context) -> Any:
        with _Measured(method, context):
            try:
                return await behavior(request, context)
            except Exception as error:
                await _abort(error, context, method)

    return call


def _wrap_stream(behavior: Any, method: str) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with _Measured(method, context):
            try:
                async for response in behavior(request, context):
                    yield response
            except Exception as error:
                await _abort(error, context, method)

    return call


async def _abort(error: Exception, context: Context, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    if isinstance(error, NotImplementedError):  # the generated base class raises it
        error = not_yet(method, "see the list of services by reflection")
    if not isinstance(error, HeadraceError):
        error = _bug(error, method)
    await context.abort_with_status(rpc_status.to_status(error.to_status()))


def _bug(error: Exception, method: str) -> Internal:
    error_id = uuid.uuid4().hex
    log.error("a call failed by a bug", extra={"method": method, "error_id": error_id}, exc_info=error)
    return Internal(
        error_pb2.REASON_INTERNAL_ERROR, f"internal error {error_id}; the server's log has the rest", error_id=error_id
    )


class _Measured:
    """Counts a call by its code and times it."""

    def __init__(self, method: str, context: Context) -> None:
        self._method, self._context = method, context
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        code: Any = self._context.code()
        if kind is None and not code:
            name = "OK"
        elif kind is not None and issubclass(kind, asyncio.CancelledError):
            name = "CANCELLED"
        else:
            name = getattr(code, "name", None) or _code_name(code)
        metrics.REQUESTS.labels(self._method, name).inc()
        metrics.REQUEST_SECONDS.labels(self._method).observe(time.perf_counter() - self._started)


def _code_name(code: Any) -> str:
    for status in grpc.StatusCode:
        if status.value[0] == code:
            return status.name
    return "UNKNOWN"
