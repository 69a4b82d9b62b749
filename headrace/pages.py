"""Pages of lists (AIP-158)."""

import base64
import binascii
import hashlib
import json
from typing import Any

from google.protobuf.message import Message

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2

DEFAULT_SIZE = 50
LIMIT = 1000


def page_size(asked: int) -> int:
    """The number of items of a page: 50 for 0, at most 1000. Raises InvalidArgument for a negative one."""
    if asked < 0:
        raise _invalid("page_size", f"{asked} is negative; 0 means {DEFAULT_SIZE}")
    return min(asked or DEFAULT_SIZE, LIMIT)


def encode_token(request: Message, position: Any) -> str:
    """An opaque token for the page after `position` (JSON), bound to the other arguments of the request."""
    text = json.dumps([_digest(request), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(request: Message, token: str) -> Any:
    """The position of a token; None for an empty one. Raises InvalidArgument if it is not of this request."""
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        digest, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise _invalid("page_token", "it is not one that a list returned") from error
    if digest != _digest(request):
        raise _invalid("page_token", "it belongs to a list with other arguments; start from the first page")
    return position


def _digest(request: Message) -> str:
    other = type(request)()
    other.CopyFrom(request)
    for paging in ("page_size", "page_token"):
        other.ClearField(paging)
    return hashlib.sha256(other.SerializeToString(deterministic=True)).hexdigest()[:16]


def _invalid(field: str, description: str) -> InvalidArgument:
    message = f"{field} is wrong: {description}"
    return InvalidArgument(
        error_pb2.REASON_INVALID_FIELD, message, fields=[FieldViolation(field, description)], field=field
    )
