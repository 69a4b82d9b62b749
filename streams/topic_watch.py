"""Notices that a topic which is being read is deleted, or made anew under its name.

Kafka tells a consumer of neither: it waits at its position, and once the new log is as long as the old one was it goes
on there, as if it had read what is before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from headrace.errors import FailedPrecondition, HeadraceError
from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings, topic_id, topic_ids, unknown_topic

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
# A broker that has just begun may not know of all its topics yet.
GONE_AFTER_LOOKS = 2


class TopicWatch:
    """Looks every few seconds, on a thread of its own. A context manager.

    held_to: the id that the topic has to have. Empty: what it is on entering.
    on_change: called on that thread, once, with NotFound (UNKNOWN_TOPIC) or FailedPrecondition (TOPIC_RECREATED).
    on_contact: called on that thread after each look, with why Kafka did not answer, or None: a reader that waits for
        records does not hear of it.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        on_change: Callable[[HeadraceError], None],
        *,
        on_contact: Callable[[HeadraceError | None], None] = lambda _: None,
        held_to: str = "",
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._kafka, self._topic, self._on_change, self._every_s = kafka, topic, on_change, every_s
        self._on_contact = on_contact
        self._id = held_to
        self._missed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="topic-watch", daemon=True)

    def __enter__(self) -> TopicWatch:
        """Raises NotFound (UNKNOWN_TOPIC), FailedPrecondition (TOPIC_RECREATED), Unavailable, PermissionDenied."""
        found = topic_id(self._kafka, self._topic)
        self._id = self._id or found
        if found != self._id:
            raise recreated(self._topic, self._id, found)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Does not wait for a look that is on its way."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            if (changed := self._look()) is not None and not self._ended.is_set():
                self._on_change(changed)
                return

    def _look(self) -> HeadraceError | None:
        try:
            found = topic_ids(self._kafka, [self._topic]).get(self._topic)
        except HeadraceError as error:
            log.debug("the topic cannot be looked at", extra={"topic": self._topic, "cause": str(error)})
            self._on_contact(error)
            return None
        self._on_contact(None)
        self._missed = self._missed + 1 if found is None else 0
        if found is None:
            return unknown_topic(self._topic) if self._missed >= GONE_AFTER_LOOKS else None
        return None if found == self._id else recreated(self._topic, self._id, found)


def recreated(topic: str, before: str, found: str) -> FailedPrecondition:
    """TOPIC_RECREATED, of a topic that somebody reads on."""
    return FailedPrecondition(
        error_pb2.REASON_TOPIC_RECREATED,
        f"the topic {topic!r} was deleted and made anew (its id was {before}, and is {found}), so the positions in it "
        "are those of other records; begin anew at its first record",
        topic=topic, before=before, found=found,
    )  # fmt: skip
