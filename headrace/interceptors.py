"""What every call of a server passes through: errors as google.rpc.Status, metrics, the end of the server.

The one place that does either on a server.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace import logs, metrics
from headrace.errors import DataLoss, HeadraceError, Internal, Unavailable, not_yet
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")

REQUEST_ID_KEY = "x-request-id"
# When the server ends: a stream on which nothing comes for so long is cut; one on which something always comes, later.
QUIET_S = 0.2
BUSY_S = 2.0
# Clients refuse more than 8 KiB of metadata. The status travels in base64, and its message a second time as text of
# which each byte may become three ("%C3"): 4/3 · 3 KiB + 3 · 1 KiB = 7 KiB.
STATUS_BYTES = 3 * 1024
MESSAGE_BYTES = 1024
FACT_BYTES = 200
_END: Any = object()


class Ending:
    """Whether the server ends. Calls that may last (streams, `Await…`) then end early, for the client to go on
    elsewhere or later: the drain need not wait for them.
    """

    def __init__(self) -> None:
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy_until = float("inf")

    def begin(self) -> None:
        """Has the lasting calls end."""
        if not self._begun.done():
            self._begun.set_result(None)
            self._busy_until = time.monotonic() + BUSY_S

    async def unless(self, work: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
        """The result of `work`, run in `context`. Raises Unavailable and cancels `work` if the server ends first."""
        task = asyncio.create_task(work, context=context)
        either: set[asyncio.Future[Any]] = {task, self._begun}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await asyncio.wait({task}, timeout=QUIET_S)
            if not task.done() or time.monotonic() > self._busy_until:
                raise Unavailable(
                    error_pb2.REASON_SERVICE_UNAVAILABLE, "the server is being stopped; call again", retry_after_s=1
                )
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """HeadraceError goes to the client whole; anything else is our bug: a constant message with an id, the rest in the
    log. A call that was cancelled or ran out of time ends as gRPC has it.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

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
        wrap = self._stream if handler.response_streaming else self._unary
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(wrap(behavior, method), handler.request_deserializer, handler.response_serializer)

    def _unary(self, behavior: Any, method: str) -> Any:
        waits = method.rsplit("/", 1)[-1].startswith("Await")

        async def call(request: Any, context: Context) -> Any:
            with _measured(method, context), logs.bind(request=_request_id(context)):
                try:
                    if waits:
                        return await self._ending.unless(behavior(request, context), contextvars.copy_context())
                    return await behavior(request, context)
                except Exception as error:
                    await _abort(error, context, method)

        return call

    def _stream(self, behavior: Any, method: str) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            bound = contextvars.copy_context()
            bound.run(logs.bind_for_good, request=_request_id(context))
            with _measured(method, context):
                try:
                    responses = behavior(request, context)
                    if hasattr(responses, "__aiter__"):
                        async for response in self._until_the_end(responses, bound):
                            yield response
                    else:  # the health service writes its responses itself
                        await self._ending.unless(responses, bound)
                except Exception as error:
                    await _abort(error, context, method)

        return call

    async def _until_the_end(self, responses: Any, bound: contextvars.Context) -> AsyncIterator[Any]:
        """The responses until there are no more; Unavailable if the server ends first."""
        try:
            while (response := await self._ending.unless(_next(responses), bound)) is not _END:
                yield response
        finally:
            if hasattr(responses, "aclose"):
                await responses.aclose()


async def _next(responses: AsyncIterator[Any]) -> Any:
    return await anext(responses, _END)


_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _request_id(context: Context) -> str:
    """The caller's `x-request-id` if it sent a sane one, otherwise one of ours."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and value.isprintable() and len(value) <= 64:
            return value
    return uuid.uuid4().hex[:16]


async def _abort(error: Exception, context: Context, method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, NotImplementedError):  # the generated base class raises it
        error = not_yet(method, "see the list of services by reflection")
    if isinstance(error, Internal | DataLoss):
        log.error("a call failed", extra={"method": method, **logs.error_fields(error)}, exc_info=error)
    if not isinstance(error, HeadraceError):
        error = _bug(error, method)
    await context.abort_with_status(rpc_status.to_status(fitted(error.to_status())))


def _bug(error: Exception, method: str) -> Internal:
    error_id = uuid.uuid4().hex
    log.error("a call failed by a bug", extra={"method": method, "error_id": error_id}, exc_info=error)
    return Internal(
        error_pb2.REASON_INTERNAL_ERROR, f"internal error {error_id}; the server's log has the rest", error_id=error_id
    )


def fitted(status: status_pb2.Status) -> status_pb2.Status:
    """The status, shortened where clients would refuse it for its size; code, reason and shortened facts are left."""
    if status.ByteSize() <= STATUS_BYTES and len(status.message.encode()) <= MESSAGE_BYTES:
        return status
    short = status_pb2.Status(code=status.code, message=_shortened(status.message, MESSAGE_BYTES))
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            for name, value in info.metadata.items():
                info.metadata[name] = _shortened(value, FACT_BYTES)
            detail.Pack(info)
        if short.ByteSize() + detail.ByteSize() <= STATUS_BYTES:
            short.details.append(detail)
    return short


def _shortened(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    return encoded[: limit_bytes - len("…".encode())].decode(errors="ignore") + "…"


@contextmanager
def _measured(method: str, context: Context) -> Iterator[None]:
    """Counts a call by its code and times it."""
    started = time.perf_counter()
    name = "CANCELLED"  # also for the GeneratorExit of a stream that nobody reads any more
    try:
        yield
        name = _code_name(context) or "OK"
    except Exception:
        name = _code_name(context) or "UNKNOWN"
        raise
    finally:
        metrics.REQUESTS.labels(method, name).inc()
        metrics.REQUEST_SECONDS.labels(method).observe(time.perf_counter() - started)


def _code_name(context: Context) -> str | None:
    code: Any = context.code()  # a grpc.StatusCode, or its number once the call is aborted
    number = getattr(code, "value", (code,))[0]
    return next((status.name for status in grpc.StatusCode if status.value[0] == number), None) if code else None
