"""Pages of a List, newest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from control_plane.store import Store
from headrace import pages
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2


class _HasId(Protocol):
    id: int


R = TypeVar("R", bound=_HasId)


async def newest_first(store: Store, request: Any, query: Callable[[int | None, int], list[R]]) -> tuple[list[R], str]:
    """One page of `query(before_id, limit)` and the token of the next, which is empty on the last."""
    size = pages.page_size(request.page_size)
    before_id = position(request, int)
    items = await store.read(lambda: query(before_id, size + 1))
    if len(items) <= size:
        return items, ""
    return items[:size], pages.encode_token(request, items[size - 1].id)


def position(request: Any, kind: type[Any]) -> Any:
    """Where the page begins, None at first. InvalidArgument for a token that a client made up."""
    found = pages.decode_token(request, request.page_token)
    if found is not None and not isinstance(found, kind):
        description = "it is not one that a list returned"
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            f"page_token is wrong: {description}",
            fields=[FieldViolation("page_token", description)],
            field="page_token",
        )
    return found
