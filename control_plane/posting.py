"""Writes single records to Kafka, and says where they stand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from streams.kafka import KafkaSettings, partitions_of
from streams.writer import StreamProducer

# A person waits for the answer.
DELIVERY_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Place:
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


async def post(
    kafka: KafkaSettings,
    topic: str,
    value: bytes,
    *,
    key: bytes | None = None,
    headers: Sequence[tuple[str, str | bytes | None]] = (),
) -> Place:
    """Write one record to any partition of the topic and return when it is confirmed.

    Raises NotFound (UNKNOWN_TOPIC), Unavailable (KAFKA_UNAVAILABLE, NOT_DELIVERED).
    """
    return await asyncio.to_thread(_post, kafka, topic, key, value, list(headers))


def _post(
    kafka: KafkaSettings,
    topic: str,
    key: bytes | None,
    value: bytes,
    headers: list[tuple[str, str | bytes | None]],
) -> Place:
    partition = random.choice(partitions_of(kafka, topic, ASK_TIMEOUT_S))  # noqa: S311 - spreads load, guards nothing
    with StreamProducer(kafka, topic, headers=headers, settings={"linger.ms": 0}) as producer:
        producer.send(partition, key, value)
        producer.flush(DELIVERY_TIMEOUT_S)
        (written,) = producer.ranges()
    return Place(topic, partition, written.start)
