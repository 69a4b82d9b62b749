"""Pages of a List, newest first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from control_plane.store import Store
from headrace import pages
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2

# Half of what a message may have: a page ends early rather than fail.
PAGE_BYTES = 2 * 1024 * 1024


class _Item(Protocol):
    id: int

    def ByteSize(self) -> int: ...


R = TypeVar("R", bound=_Item)


async def newest_first(store: Store, request: Any, query: Callable[[int | None, int], list[R]]) -> tuple[list[R], str]:
    """One page of `query(before_id, limit)` and the token of the next, which is empty on the last."""
    size = pages.page_size(request.page_size)
    before_id = position(request, int)
    items = await store.read(lambda: query(before_id, size + 1))
    shown = items[: _fitting(items[:size])]
    if len(shown) == len(items):
        return items, ""
    return shown, pages.encode_token(request, shown[-1].id)


def _fitting(items: Sequence[_Item]) -> int:
    """How many of the first ones make a page of `PAGE_BYTES`, and one in any case."""
    sizes = itertools.accumulate(item.ByteSize() for item in items)
    return max(sum(size <= PAGE_BYTES for size in sizes), min(1, len(items)))


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
