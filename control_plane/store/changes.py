"""What a transaction changed, told to the store's listeners once it is committed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum

from headrace.v1 import result_pb2


class Kind(Enum):
    MODEL = "model"
    CONFIGURATION = "configuration"
    DEPLOYMENT = "deployment"
    RESULT = "result"
    STREAM = "stream"
    INFERENCE = "inference"
    REPLICA = "replica"
    QUEUE = "queue"
    REFUSAL = "refusal"


@dataclass(frozen=True)
class Change:
    """The resource `id` of this kind was created, changed or deleted.

    `event` is set for what watchers of results see, in the order of its sequence numbers. For a REPLICA, `id` is
    that of its inference. A QUEUE is the place of a result in the queue, which no transaction changes: it follows from
    those of others. A REFUSAL is an announcement for the deployment of the result `id` that was refused.
    """

    kind: Kind
    id: int
    event: result_pb2.ResultEvent | None = None


_noted = threading.local()


def note(kind: Kind, id: int, event: result_pb2.ResultEvent | None = None) -> None:
    """Called by queries that write, inside their transaction."""
    _noted.changes.append(Change(kind, id, event))


def begin() -> None:
    _noted.changes = []


def collected() -> list[Change]:
    return list(_noted.changes)
