"""Answers kept by request_id, so that a create that is sent twice happens once."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from google.protobuf.message import Message

from control_plane.store.clock import now_us
from control_plane.store.rows import MICROS
from control_plane.store.tables import AnswerRow
from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2

M = TypeVar("M", bound=Message)

KEPT_US = 24 * 3600 * MICROS


def answered(method: str, request_id: str, request: Message, answer: M) -> bool:
    """Fill `answer` with what the same request got before; False when it is new or has no request_id.

    The same id with another request raises InvalidArgument.
    """
    _forget_old()
    row = AnswerRow.get_or_none(AnswerRow.request_id == request_id) if request_id else None
    if row is None:
        return False
    if (row.method, row.request_sha256) != (method, _digest(request)):
        raise InvalidArgument(
            error_pb2.REASON_REQUEST_ID_REUSED,
            f"the request_id {request_id!r} was used for another request; make a new UUID for each",
            request_id=request_id,
        )
    answer.ParseFromString(bytes(row.answer_pb))
    return True


def remember(method: str, request_id: str, request: Message, answer: Message) -> None:
    """Keep the answer; call it in the transaction that did the work. Without a request_id nothing is kept."""
    if request_id:
        AnswerRow.create(
            request_id=request_id,
            method=method,
            request_sha256=_digest(request),
            answer_pb=answer.SerializeToString(),
            create_time=now_us(),
        )


def _digest(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def _forget_old() -> None:
    AnswerRow.delete().where(AnswerRow.create_time < now_us() - KEPT_US).execute()
