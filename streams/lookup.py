"""Single records by their place in the log."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from types import TracebackType

from confluent_kafka import TopicPartition

from streams.kafka import KafkaSettings, kafka_errors

READ = 500
SMALL_FETCHES = {"fetch.message.max.bytes": 65536, "queued.max.messages.kbytes": 1024}

Place = tuple[int, int]


class RecordLookup:
    """Finds records of one topic. Used by one thread; a context manager."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka, self._topic = kafka, topic

    def __enter__(self) -> RecordLookup:
        self._consumer = self._kafka.consumer(defaults=SMALL_FETCHES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def values(self, places: Collection[Place], within_s: float) -> dict[Place, bytes]:
        """Of those places, partition and offset, that are found in time. Each partition is read from the first of its
        places on, so they should lie close together. Raises what Kafka's errors become.
        """
        found: dict[Place, bytes] = {}
        deadline = time.monotonic() + within_s
        with kafka_errors(self._kafka, topic=self._topic):
            self._consumer.assign(self._starts(places))
            while len(found) < len(places) and (left_s := deadline - time.monotonic()) > 0:
                for message in self._consumer.consume(READ, left_s / 4):
                    place = (message.partition() or 0, message.offset() or 0)
                    if message.error() is None and place in places:
                        found[place] = message.value() or b""
            self._consumer.unassign()
        return found

    def _starts(self, places: Collection[Place]) -> list[TopicPartition]:
        offsets: dict[int, list[int]] = defaultdict(list)
        for partition, offset in places:
            offsets[partition].append(offset)
        return [TopicPartition(self._topic, partition, min(each)) for partition, each in offsets.items()]
