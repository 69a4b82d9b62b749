"""What is read from an HTTP request before its message is made: limits, headers, query and body."""

import asyncio
import re
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from gateway.errors import Refused
from headrace.errors import Cancelled, DeadlineExceeded, InvalidArgument, PermissionDenied, ResourceExhausted
from headrace.v1 import error_pb2

MAX_HEAD_BYTES = 16 * 1024
# Between two pieces of a body.
BODY_PAUSE_S = 10.0
MAX_QUERY_FIELDS = 1000
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TRACE_STATE = 512
_TIMEOUT_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeout_s(request: Request, default_s: float) -> float:
    """The deadline that the client gave in `Grpc-Timeout`, such as `10S` or `500m`; else the default."""
    text = request.headers.get("grpc-timeout")
    if text is None:
        return default_s
    found = re.fullmatch(r"(\d{1,8})([HMSmun])", text, re.ASCII)
    if found is None:
        raise _malformed(f"Grpc-Timeout must be up to 8 digits and one of H M S m u n, not {text[:40]!r}.")
    return int(found[1]) * _TIMEOUT_UNITS_S[found[2]]


def trace_of(request: Request) -> list[tuple[str, str]]:
    """W3C's trace context as metadata for the call behind; empty where there is none or it is malformed."""
    parent = request.headers.get("traceparent", "")
    if TRACE_PARENT.fullmatch(parent) is None:
        return []
    state = request.headers.get("tracestate", "")
    is_sane = 0 < len(state) <= MAX_TRACE_STATE and state.isascii() and state.isprintable()
    return [("traceparent", parent), *([("tracestate", state)] if is_sane else [])]


def query_of(request: Request) -> list[tuple[str, str]]:
    """The query's names and texts, in order."""
    raw = request.scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError as error:
        raise _malformed("The query is not UTF-8 in percent-encoding.") from error
    except ValueError as error:
        raise _malformed(f"The query has more than {MAX_QUERY_FIELDS} fields.") from error


def check_head(request: Request) -> None:
    """Refuses headers that are too large, and a body of two lengths: what is one request here must be one request for
    every proxy before us."""
    headers = request.scope["headers"]
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
        raise Refused(431, _malformed(f"The headers are larger than {MAX_HEAD_BYTES} bytes."))
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        error = _malformed("Content-Length and Transfer-Encoding exclude each other.")
        raise Refused(400, error, {"connection": "close"})


def check_origin(request: Request) -> None:
    """Refuses what a page of another site made the browser send: the API trusts whoever reaches it."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise PermissionDenied(
            error_pb2.REASON_INVALID_FIELD, f"Pages of {origin[:100]} may not use this API.", origin=origin[:100]
        )


async def body_of(request: Request, limit_bytes: int) -> bytes:
    """The body. Raises Refused 413 when it is too large, 415 when it says that it is not JSON, 408 when it stalls."""
    length = request.headers.get("content-length", "0")
    if int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    pieces, size = [], 0
    try:
        stream = request.stream()
        while piece := await asyncio.wait_for(anext(stream, b""), BODY_PAUSE_S):
            size += len(piece)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            pieces.append(piece)
    except TimeoutError as error:
        raise Refused(408, DeadlineExceeded(error_pb2.REASON_DEADLINE, "The body did not arrive in time.")) from error
    except ClientDisconnect as error:
        raise Cancelled(error_pb2.REASON_CANCELLED, "The client went away before its body was here.") from error
    if size:
        _check_content_type(request)
    return b"".join(pieces)


def _check_content_type(request: Request) -> None:
    kind, _, _ = request.headers.get("content-type", "application/json").partition(";")
    if kind.strip().lower() != "application/json":
        what = f"The body must be application/json, not {kind[:60]!r} (curl: -H 'Content-Type: application/json')."
        raise Refused(415, _malformed(what))


def _too_large(limit_bytes: int) -> Refused:
    what = f"The body is larger than {limit_bytes} bytes."
    return Refused(413, ResourceExhausted(error_pb2.REASON_MALFORMED_REQUEST, what, limit_bytes=limit_bytes))


def _malformed(what: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_MALFORMED_REQUEST, what)
