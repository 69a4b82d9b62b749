"""Reads a topic from given positions on, for as long as it exists, without a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.kafka import (
    KafkaSettings,
    as_headrace_error,
    is_transient,
    kafka_errors,
    log_ends,
    partitions_of,
    unknown_topic,
)

log = logging.getLogger(__name__)

PARTITIONS_CHECK_S = 30.0


class TopicFollower:
    """Every committed record of all partitions, in order per partition; partitions that are added later are read too.

    positions: partition → the first offset to read; a missing one is read from its start. Where retention has deleted
    the position, reading goes on at the first record that is left, with a warning: what is gone cannot be read.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, positions: Mapping[int, int]) -> None:
        self._kafka = kafka
        self._topic = topic
        self._positions = dict(positions)
        self._consumer: Consumer | None = None
        self._followed: set[int] = set()
        self._checked_at = 0.0

    def __enter__(self) -> TopicFollower:
        """Raises NotFound (UNKNOWN_TOPIC), Unavailable."""
        self._consumer = self._kafka.consumer({"fetch.wait.max.ms": 50})
        try:
            self._follow_new_partitions()
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def read(self, max_wait_s: float, max_records: int = 500) -> list[Message]:
        """The next records, at the latest after `max_wait_s`; a broker that is away is waited for.

        Raises PermissionDenied, and NotFound when the topic was deleted.
        """
        if time.monotonic() > self._checked_at + PARTITIONS_CHECK_S:
            self._follow_new_partitions()
        with kafka_errors(self._kafka, topic=self._topic):
            first = self._open_consumer.poll(max_wait_s)
            found = [] if first is None else [first, *self._open_consumer.consume(max_records - 1, 0)]
        return [message for message in found if not self._is_event(message)]

    @property
    def _open_consumer(self) -> Consumer:
        assert self._consumer is not None, "use the follower in a with block"
        return self._consumer

    def _is_event(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._skip_expired(message)
        elif not is_transient(error):
            raise as_headrace_error(error, self._kafka, topic=self._topic)
        return True

    def _skip_expired(self, message: Message) -> None:
        number = message.partition()
        assert number is not None
        ends = log_ends(self._kafka, self._topic)
        if number not in ends:
            raise unknown_topic(self._topic, number)
        low = ends[number].low
        log.warning(
            "records were deleted before they were read",
            extra={"topic": self._topic, "partition": number, "position": message.offset(), "low": low},
        )
        with kafka_errors(self._kafka, topic=self._topic):
            # Not by a seek: of a topic that was made anew librdkafka fetches nothing more, and refuses to seek.
            self._open_consumer.incremental_unassign([TopicPartition(self._topic, number)])
            self._open_consumer.incremental_assign([TopicPartition(self._topic, number, low)])

    def _follow_new_partitions(self) -> None:
        new = set(partitions_of(self._kafka, self._topic)) - self._followed
        self._checked_at = time.monotonic()
        if not new:
            return
        starts = log_ends(self._kafka, self._topic)
        self._open_consumer.incremental_assign(
            [
                TopicPartition(self._topic, number, self._positions.get(number, starts[number].low))
                for number in sorted(new)
            ]
        )
        self._followed |= new
