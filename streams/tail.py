"""Reads topics from where they end now, without a group: for those who wait for what comes."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from confluent_kafka import Consumer, Message, TopicPartition

from streams.kafka import KafkaSettings, as_headrace_error, kafka_errors, log_ends


class TailReader:
    """Committed records that are written to the topics after it was entered, in order per partition.

    Commits nothing. Entering raises NotFound (UNKNOWN_TOPIC) where a topic does not exist.
    """

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._kafka = kafka
        self._topics = topics
        self._consumer: Consumer | None = None

    def __enter__(self) -> TailReader:
        positions = [
            TopicPartition(topic, partition, ends.high)
            for topic in self._topics
            for partition, ends in log_ends(self._kafka, topic).items()
        ]
        self._consumer = self._kafka.consumer({"fetch.wait.max.ms": 50})
        self._consumer.assign(positions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def read(self, max_wait_s: float, max_records: int = 1000) -> list[Message]:
        """The records that came, at the latest after `max_wait_s`; empty if none did.

        Raises Unavailable and PermissionDenied as Kafka says them.
        """
        assert self._consumer is not None, "use the reader in a with block"
        with kafka_errors(self._kafka):
            first = self._consumer.poll(max_wait_s)
            found = [] if first is None else [first, *self._consumer.consume(max_records - 1, 0)]
        for message in found:
            if (error := message.error()) is not None and not error.retriable():
                raise as_headrace_error(error, self._kafka)
        return [message for message in found if message.error() is None]
