"""Channels to our servers: deadlines, retries, and errors as the server raised them.

A stub made on such a channel (`ModelRegistryStub(channel)`) works like any other, except that a unary call has a
deadline of ten seconds unless `timeout=` says otherwise, that UNAVAILABLE is retried where repeating is harmless, and
that every failure is a HeadraceError.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from google.rpc import status_pb2

from headrace.errors import HeadraceError, Unavailable, from_status
from headrace.v1 import error_pb2

DETAILS_KEY = "grpc-status-details-bin"
TIMEOUT_S = 10.0
TRIES = 4
FIRST_PAUSE_S = 0.1
IDEMPOTENT = ("Get", "List", "Await", "Validate", "Check")
OPTIONS = [
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that was started again is found at once; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Each of our channels has its own connection: a broken one is nobody else's.
    ("grpc.use_local_subchannel_pool", 1),
]


@contextmanager
def connect(address: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[grpc.Channel]:
    """A channel for synchronous code. Connects on the first call."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        yield _Channel(channel, address, timeout_s)


@asynccontextmanager
async def connect_async(address: str, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[grpc.aio.Channel]:
    """A channel for asyncio code. Connects on the first call."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        yield _AsyncChannel(channel, address, timeout_s)


def as_headrace_error(error: grpc.RpcError, address: str) -> HeadraceError:
    """What the server raised; from the status code alone where it was not one of ours, with `address` in the facts."""
    status = _rich_status(error)
    if status is not None:
        return from_status(status)
    call: Any = error
    code = call.code() or grpc.StatusCode.UNKNOWN
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            error_pb2.REASON_SERVICE_UNAVAILABLE,
            f"{address} cannot be reached; see that it runs, and that the address is right",
            address=address,
        )
    mapped = from_status(status_pb2.Status(code=code.value[0], message=f"{address}: {call.details()}"))
    reasons = {
        grpc.StatusCode.DEADLINE_EXCEEDED: error_pb2.REASON_DEADLINE,
        grpc.StatusCode.CANCELLED: error_pb2.REASON_CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: error_pb2.REASON_OVERLOADED,
        grpc.StatusCode.UNIMPLEMENTED: error_pb2.REASON_NOT_YET,
    }
    mapped.reason = reasons.get(code, error_pb2.REASON_INTERNAL_ERROR)
    mapped.metadata = {"address": address}
    return mapped


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    call: Any = error
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def _is_idempotent(method: str) -> bool:
    return method.rsplit("/", 1)[-1].startswith(IDEMPOTENT)


def _pause_s(failed_tries: int) -> float:
    return FIRST_PAUSE_S * 2.0**failed_tries * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


class _Channel(grpc.Channel):
    """Wraps the callables that stubs are made of."""

    def __init__(self, channel: grpc.Channel, address: str, timeout_s: float) -> None:
        self._channel, self._address, self._timeout_s = channel, address, timeout_s

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._unary(method, self._channel.unary_unary(method, *args, **kwargs), _is_idempotent(method))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._unary(method, self._channel.stream_unary(method, *args, **kwargs), False)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stream(self._channel.unary_stream(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stream(self._channel.stream_stream(method, *args, **kwargs))

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "_Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unary(self, method: str, inner: Callable[..., Any], retry: bool) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
            deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
            for tried in range(TRIES):
                try:
                    return inner(request, timeout=max(0.001, deadline - time.monotonic()), **kwargs)
                except grpc.RpcError as error:
                    failed = as_headrace_error(error, self._address)
                    pause_s = _pause_s(tried)
                    if not (retry and _worth_retrying(failed, tried, deadline - pause_s)):
                        raise failed from error
                time.sleep(pause_s)
            raise AssertionError("the last try returns or raises")

        return call

    def _stream(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
            return _Responses(inner(request, timeout=timeout, **kwargs), self._address)

        return call


def _worth_retrying(error: HeadraceError, tried: int, deadline: float) -> bool:
    return isinstance(error, Unavailable) and tried < TRIES - 1 and time.monotonic() < deadline


class _Responses:
    """The responses of a call, to be iterated or cancelled."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    def __iter__(self) -> "_Responses":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise as_headrace_error(error, self._address) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _AsyncChannel(grpc.aio.Channel):
    """The same for asyncio."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout_s: float) -> None:
        self._channel, self._address, self._timeout_s = channel, address, timeout_s

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._unary(self._channel.unary_unary(method, *args, **kwargs), _is_idempotent(method))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._unary(self._channel.stream_unary(method, *args, **kwargs), False)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stream(self._channel.unary_stream(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stream(self._channel.stream_stream(method, *args, **kwargs))

    def _unary(self, inner: Callable[..., Any], retry: bool) -> Callable[..., Any]:
        async def call(request: Any, timeout: float | None = None, **kwargs: Any) -> Any:  # noqa: ASYNC109 - stubs have it
            deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
            for tried in range(TRIES):
                try:
                    return await inner(request, timeout=max(0.001, deadline - time.monotonic()), **kwargs)
                except grpc.RpcError as error:
                    failed = as_headrace_error(error, self._address)
                    pause_s = _pause_s(tried)
                    if not (retry and _worth_retrying(failed, tried, deadline - pause_s)):
                        raise failed from error
                await asyncio.sleep(pause_s)
            raise AssertionError("the last try returns or raises")

        return call

    def _stream(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
            return _AsyncResponses(inner(request, timeout=timeout, **kwargs), self._address)

        return call

    async def __aenter__(self) -> "_AsyncChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> Any:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: Any) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()


class _AsyncResponses:
    """The responses of a call, to be iterated or cancelled."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for response in self._call:
                yield response
        except grpc.RpcError as error:
            raise as_headrace_error(error, self._address) from error
        finally:  # who stops reading early has the server stop too
            self._call.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
