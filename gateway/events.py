"""A server stream of messages as HTTP: JSON lines, server-sent events, or plain bytes.

**JSON lines**, as grpc-gateway: `{"result": …}` a message, at last `{"error": …}` if the stream failed.

**Server-sent events**: `data` is the message. Where messages have a `sequence` it is the event's id, and a client that
comes back with `Last-Event-ID` goes on after it (field `after_sequence` of the request). Two events have a name:

- `end`: the stream ended in order. More may come later: come back with the last id. The answer is 204 No Content when
  nothing ever will, which also makes a browser's EventSource stop.
- `failure`: `{"error": …, "resume": …}`. Coming back is useless when `resume` is false.

Keep-alives are comments, in the stream's own rhythm and whenever it is silent for long.
"""

import asyncio
import enum
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message

from gateway import errors, messages
from headrace.errors import HeadraceError, Unavailable
from headrace.v1 import error_pb2

JSON_LINES = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
# EventSource waits so long before it comes back.
RECONNECT_MS = 1000
KEEP_ALIVE = b": keep-alive\n\n"


class Pause(enum.Enum):
    """What a feed gives when it has no message."""

    SILENT = enum.auto()
    ENDED = enum.auto()


class Feed:
    """A stream of messages, read without blocking for ever. Close it: that ends the gRPC call."""

    def __init__(self, stream: AsyncIterator[Message], closing: asyncio.Event):
        self._stream = stream
        self._closing = asyncio.ensure_future(closing.wait())
        self._next: asyncio.Future[Message] | None = None

    async def next(self, timeout_s: float | None) -> Message | Pause:
        """The next message; SILENT when none came in time; ENDED after the last.

        Raises HeadraceError when the stream failed, and Unavailable when this server is being stopped."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._stream))
        await asyncio.wait((self._next, self._closing), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._next.done():
            done, self._next = self._next, None
            try:
                return done.result()
            except StopAsyncIteration:
                return Pause.ENDED
        if self._closing.done():
            raise Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, "The gateway is being stopped.", service="gateway")
        return Pause.SILENT

    async def close(self) -> None:
        self._closing.cancel()
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait((self._next,))
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


async def json_lines(first: Message | Pause, feed: Feed) -> AsyncIterator[bytes]:
    """The rest of a feed, with its first item, as JSON lines."""
    try:
        item = first
        while item is not Pause.ENDED:
            if isinstance(item, Message):
                yield _line({"result": messages.to_json(item)})
            item = await feed.next(None)
    except HeadraceError as error:
        yield _line({"error": errors.status_json(error)})


async def server_sent(first: Message | Pause, feed: Feed, keep_alive_s: float) -> AsyncIterator[bytes]:
    """The rest of a feed, with its first item, as server-sent events."""
    yield b"retry: %d\n\n" % RECONNECT_MS
    try:
        item = first
        while item is not Pause.ENDED:
            yield _event(item) if isinstance(item, Message) else KEEP_ALIVE
            item = await feed.next(keep_alive_s)
        yield b"event: end\ndata: {}\n\n"
    except HeadraceError as error:
        yield _failure(error)


async def raw_bytes(first: Message | Pause, feed: Feed) -> AsyncIterator[bytes]:
    """The data of a feed of HttpBody. A failure is raised: the connection is cut, so that no client takes a part for
    the whole."""
    item = first
    while item is not Pause.ENDED:
        if isinstance(item, Message):
            yield item.data  # type: ignore[attr-defined]
        item = await feed.next(None)


def _line(value: Any) -> bytes:
    return messages.dump_json(value) + b"\n"


def _event(message: Message) -> bytes:
    if _is_keep_alive(message):
        return KEEP_ALIVE
    data = messages.dump_json(messages.to_json(message))
    sequence = getattr(message, "sequence", 0)
    return b"id: %d\ndata: %b\n\n" % (sequence, data) if sequence else b"data: %b\n\n" % data


def _is_keep_alive(message: Message) -> bool:
    """By the convention of the API: a message of a stream whose oneof `kind` is not set."""
    return "kind" in message.DESCRIPTOR.oneofs_by_name and message.WhichOneof("kind") is None


def _failure(error: HeadraceError) -> bytes:
    value = {"error": errors.status_json(error), "resume": errors.is_passing(error)}
    return b"event: failure\ndata: %b\n\n" % messages.dump_json(value)
