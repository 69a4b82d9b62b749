"""The HTTP server: the REST API, its description, the probes, and the web pages."""

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import h11
import uvicorn
from google.protobuf.message import Message
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway import checking, errors, events, messages, openapi, requests, routes, transcode
from gateway.backend import Backend
from gateway.pages import DIST, pages
from gateway.settings import Settings
from gateway.targets import replica_targets
from headrace.errors import FailedPrecondition, HeadraceError, Internal, InvalidArgument, NotFound, Unimplemented
from headrace.v1 import error_pb2, result_pb2

T = TypeVar("T")

log = logging.getLogger(__name__)

# A stream is answered 200 after so long without a message: until then a failure still gets its own HTTP status.
FIRST_MESSAGE_S = 1.0
# The head of a request has to be here after so long, or the connection is closed.
HEAD_S = 10.0
# Requests that still run so long after the signal to stop are cut.
DRAIN_S = 20
# Bodies and answers beyond this are transcoded in a thread, so that they do not hold the others up.
_LARGE_BYTES = 64 * 1024
_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

REQUESTS = Counter("headrace_gateway_requests_total", "Answered requests.", ["verb", "route", "status"])
SECONDS = Histogram("headrace_gateway_request_seconds", "Time to an answer's first byte.", ["verb", "route"])
STREAMS = Gauge("headrace_gateway_streams", "Streams that are open.")


@dataclass(frozen=True)
class RunningGateway:
    """Where it listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@asynccontextmanager
async def serving(settings: Settings, pages_folder: Path = DIST) -> AsyncIterator[RunningGateway]:
    """Listens while the block runs, then ends the streams, drains what runs, and closes.

    Raises FailedPrecondition when the port is taken."""
    closing = asyncio.Event()
    with _listening(settings.listen) as listener:
        async with Backend(settings.address) as backend:
            app = application(Api(settings, backend, closing), backend, pages_folder)
            server = _Server(_uvicorn_config(app, settings))
            running = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
            try:
                host, port = listener.getsockname()[:2]
                yield RunningGateway(host, port)
            finally:
                closing.set()
                server.should_exit = True
                await running


def application(api: ASGIApp, backend: Backend, pages_folder: Path) -> ASGIApp:
    """Everything that is served, by path."""

    async def ready(request: Request) -> Response:
        if await backend.is_serving():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("The control plane does not answer.\n", 503, {"retry-after": "1"})

    async def targets(request: Request) -> Response:
        try:
            return JSONResponse(await replica_targets(backend))
        except HeadraceError as error:
            return errors.response(error)

    app = Starlette(
        routes=[
            Mount("/v1", app=api),
            Route("/openapi.json", _describe),
            Route("/healthz", _live),
            Route("/readyz", ready),
            Route("/metrics", _metrics),
            Route("/metrics/targets", targets),
            Mount("/", app=pages(pages_folder)),
        ]
    )
    return _Measured(app)


class Api:
    """The ASGI application below /v1: every request becomes a gRPC call."""

    def __init__(self, settings: Settings, backend: Backend, closing: asyncio.Event):
        self._settings = settings
        self._backend = backend
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._call(request)
        except errors.Refused as refused:
            return errors.response(refused.error, http_status=refused.http_status, headers=refused.headers)
        except HeadraceError as error:
            return errors.response(error)
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("Request failed", extra={"error_id": error_id, "path": request.url.path})
            message = "This is a bug of the gateway; its log has the rest under this id."
            return errors.response(Internal(error_pb2.REASON_INTERNAL_ERROR, message, id=error_id))

    async def _call(self, request: Request) -> Response:
        match = _match(request)
        request.scope["headrace.route"] = match.route.template
        requests.check_head(request)
        requests.check_origin(request)
        timeout_s = requests.timeout_s(request, self._settings.request_timeout_s)
        query = requests.query_of(request)
        body = await requests.body_of(request, self._settings.max_body_bytes)
        try:
            message = await _maybe_in_thread(len(body), lambda: transcode.request_message(match, query, body))
        except transcode.WrongFields as wrong:
            raise await checking.whole(wrong, self._backend, match.route) from wrong
        if match.route.streams:
            return await self._stream(request, match.route, message, timeout_s)
        return await _unary_response(
            await self._backend.call(match.route, message, timeout_s, requests.trace_of(request))
        )

    async def _stream(self, request: Request, route: routes.Route, message: Message, timeout_s: float) -> Response:
        as_events = events.EVENT_STREAM in request.headers.get("accept", "") and not route.returns_bytes
        resumed = as_events and _resume(request, message)
        feed = events.Feed(self._backend.stream(route, message), self._closing)
        try:
            first = await feed.next(timeout_s if route.returns_bytes else FIRST_MESSAGE_S)
        except BaseException:
            await feed.close()
            raise
        if route.returns_bytes:
            return _download(message, first, feed)
        if not as_events:
            return _Streaming(feed, events.json_lines(first, feed), events.JSON_LINES)
        if resumed and first is events.Pause.ENDED:
            await feed.close()
            return Response(status_code=204)
        content = events.server_sent(first, feed, self._settings.keep_alive_s)
        return _Streaming(feed, content, events.EVENT_STREAM)


def _match(request: Request) -> routes.Match:
    verb = request.method
    path = request.scope["raw_path"].decode("ascii")
    match = routes.find("GET" if verb == "HEAD" else verb, path)
    if match is not None and not (verb == "HEAD" and match.route.streams):
        return match
    allowed = routes.verbs_of(path)
    if not allowed:
        what = f"The API has no path {path[:200]}; /openapi.json lists them."
        raise NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, what, path=path[:200])
    what = f"{path[:200]} takes {', '.join(allowed)}, not {verb[:20]}."
    error = Unimplemented(error_pb2.REASON_MALFORMED_REQUEST, what, verb=verb[:20])
    raise errors.Refused(405, error, {"allow": ", ".join(allowed)})


def _resume(request: Request, message: Message) -> bool:
    """Puts Last-Event-ID into the request where its method can resume. True when the client has read some already."""
    field = messages.type_of(message).fields_by_name.get("after_sequence")
    if field is None:
        return False
    last_id = request.headers.get("last-event-id", "")
    if last_id and not messages.set_scalar(message, field, last_id):
        what = f"Last-Event-ID must be the id of an event, a whole number, not {last_id[:40]!r}."
        raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, what, field="Last-Event-ID")
    return bool(getattr(message, field.name))


async def _unary_response(answer: Message) -> Response:
    if messages.type_of(answer).full_name == routes.HTTP_BODY:
        return Response(answer.data, media_type=answer.content_type or None)  # type: ignore[attr-defined]
    text = await _maybe_in_thread(answer.ByteSize(), lambda: messages.dump_json(messages.to_json(answer)))
    return Response(text, headers={"cache-control": "no-store"}, media_type="application/json")


class _Streaming(StreamingResponse):
    """What a feed becomes. Closes the feed when the client has it all or goes away."""

    def __init__(
        self,
        feed: events.Feed,
        content: AsyncIterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ):
        # X-Accel-Buffering: nginx would hold events back.
        all_headers = {"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})}
        super().__init__(content, headers=all_headers, media_type=media_type)
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        STREAMS.inc()
        try:
            await super().__call__(scope, receive, send)
        finally:
            STREAMS.dec()
            await self._feed.close()


def _download(request: Message, first: Message | events.Pause, feed: events.Feed) -> Response:
    """A stream of HttpBody as one body. A headrace.v1.Artifact among the first message's extensions tells name and,
    where it is known, size of the whole, of which a request with an `offset` gets the rest."""
    headers = {}
    media_type = "application/octet-stream"
    if isinstance(first, Message):
        media_type = first.content_type or media_type  # type: ignore[attr-defined]
        artifact = _artifact(first)
        if artifact is not None:
            headers["content-disposition"] = f"attachment; filename*=utf-8''{quote(artifact.name, safe='')}"
            # What is made as it is sent has neither a digest nor a size that anybody knows.
            if artifact.sha256 or artifact.size_bytes:
                headers["content-length"] = str(artifact.size_bytes - getattr(request, "offset", 0))
    return _Streaming(feed, events.raw_bytes(first, feed), media_type, headers)


def _artifact(first: Any) -> result_pb2.Artifact | None:
    artifact = result_pb2.Artifact()
    return artifact if any(extension.Unpack(artifact) for extension in first.extensions) else None


async def _maybe_in_thread(size_bytes: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if size_bytes > _LARGE_BYTES else work()


async def _live(request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _describe(request: Request) -> Response:
    return Response(_document(), headers={"cache-control": "no-cache"}, media_type="application/json")


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(), headers={"cache-control": "no-store"}, media_type=CONTENT_TYPE_LATEST)


@cache
def _document() -> bytes:
    return messages.dump_json(openapi.document())


class _Measured:
    """Counts and times requests, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def send_measured(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                route, verb = scope.get("headrace.route", "other"), scope["method"]
                verb = verb if verb in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE") else "other"
                REQUESTS.labels(verb, route, message["status"]).inc()
                SECONDS.labels(verb, route).observe(time.monotonic() - began)
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in _SECURITY_HEADERS.items() if k.encode() not in present),
                ]
            await send(message)

        await self._app(scope, receive, send_measured)


class _Protocol(H11Protocol):
    """uvicorn's strict parser, and a time limit for the head of a request: uvicorn alone waits for ever."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between_requests():
            self._expect_head()
        else:
            self._stop_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals: the process has one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=DRAIN_S,
        h11_max_incomplete_event_size=requests.MAX_HEAD_BYTES,
    )


@contextlib.contextmanager
def _listening(listen: str) -> Generator[socket.socket]:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
    except (ValueError, OverflowError) as error:
        what = f"HEADRACE_LISTEN must be HOST:PORT, such as 127.0.0.1:8080, not {listen!r}"
        raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, what, listen=listen) from error
    except OSError as error:
        what = f"cannot listen on {listen}: {error.strerror}; stop what uses it, or choose another"
        raise FailedPrecondition(error_pb2.REASON_WRONG_STATE, what, listen=listen) from error
    with listener:
        yield listener
