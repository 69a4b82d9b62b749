"""Creates that may be sent twice: the same request_id gets the first answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from control_plane.store import Store, requests
from control_plane.validation import refuse
from headrace.errors import FieldViolation

M = TypeVar("M", bound=Message)


async def first_answer(store: Store, request: Any, kind: type[M]) -> M | None:
    """What this request got before, if it has a request_id that was used for it. InvalidArgument for no UUID."""
    if not request.request_id:
        return None
    _check(request.request_id)
    answer = kind()
    method = type(request).__name__
    found = await store.write(lambda: requests.answered(method, request.request_id, request, answer))
    return answer if found else None


async def create_once(store: Store, request: Any, create: Callable[[], M], kind: type[M]) -> M:
    """Run `create` and remember its answer in one transaction; two that come at once get the same."""
    method = type(request).__name__

    def work() -> M:
        answer = kind()
        if request.request_id and requests.answered(method, request.request_id, request, answer):
            return answer
        answer = create()
        requests.remember(method, request.request_id, request, answer)
        return answer

    return await store.write(work)


def _check(request_id: str) -> None:
    try:
        uuid.UUID(request_id)
    except ValueError:
        refuse([FieldViolation("request_id", f"must be a UUID, not {request_id[:80]!r}")])
