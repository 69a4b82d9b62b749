"""Errors as HTTP: a status code and `{"code", "message", "details"}`, as grpc-gateway maps them."""

import math
from collections.abc import Mapping
from typing import Any

from google.rpc import code_pb2
from starlette.responses import Response

from gateway import messages
from headrace.errors import HeadraceError

# grpc-gateway's runtime.HTTPStatusFromCode.
HTTP_STATUS: Mapping[int, int] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}
# A client that reads a stream may come back after these; the others would only be answered the same again.
_PASSING = frozenset(
    {
        code_pb2.CANCELLED,
        code_pb2.UNKNOWN,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.RESOURCE_EXHAUSTED,
        code_pb2.ABORTED,
        code_pb2.INTERNAL,
        code_pb2.UNAVAILABLE,
    }
)
_DEFAULT_RETRY_S = 1.0


class Refused(Exception):
    """A request that HTTP has a better word for than the error's code: 405, 408, 413, 415."""

    def __init__(self, http_status: int, error: HeadraceError, headers: Mapping[str, str] | None = None):
        super().__init__(error.message)
        self.http_status = http_status
        self.error = error
        self.headers = dict(headers or {})


def status_json(error: HeadraceError) -> Any:
    """The error as JSON values."""
    return messages.to_json(error.to_status())


def is_passing(error: HeadraceError) -> bool:
    """Whether the same request may succeed later without a change."""
    return error.code in _PASSING


def response(
    error: HeadraceError, *, http_status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a request that failed; says when to try again where waiting helps."""
    status = http_status or HTTP_STATUS.get(error.code, 500)
    all_headers = {"cache-control": "no-store", **(headers or {})}
    if status in (429, 503) or error.retry_after_s is not None:
        all_headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or _DEFAULT_RETRY_S)))
    return Response(messages.dump_json(status_json(error)), status, all_headers, media_type="application/json")
