"""Whether Kafka still holds the records of streams: by the ends of the log, and on the real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control_plane.availability import Topic, add_availability, availability_of
from headrace.v1.stream_pb2 import (
    AVAILABILITY_AVAILABLE,
    AVAILABILITY_BLOCKED,
    AVAILABILITY_EXPIRED,
    AVAILABILITY_NOT_WRITTEN,
    AVAILABILITY_PARTLY_EXPIRED,
    AVAILABILITY_UNSPECIFIED,
    OffsetRange,
    Stream,
)
from streams.kafka import KafkaSettings, LogEnds, ensure_topics, topic_ids
from streams.writer import TransactionalWriter
from tests.streams.log import delete_before, delete_topic, flush, write

# What Kafka tells: `secret` is a topic that it does not tell of.
TOPICS = {"digits": Topic("id-1", {0: LogEnds(5, 20, 18), 1: LogEnds(0, 9, 9)}), "gone": None}


def a_range(topic: str = "digits", partition: int = 0, start: int = 0, end: int = 10) -> OffsetRange:
    return OffsetRange(topic=topic, partition=partition, start=start, end=end)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([a_range(start=5, end=10)], AVAILABILITY_AVAILABLE),
        ([a_range(start=5, end=18)], AVAILABILITY_AVAILABLE),
        ([a_range(start=5, end=19)], AVAILABILITY_BLOCKED),
        ([a_range(start=5, end=20)], AVAILABILITY_BLOCKED),
        ([a_range(start=5, end=21)], AVAILABILITY_NOT_WRITTEN),
        ([a_range(start=4, end=20)], AVAILABILITY_PARTLY_EXPIRED),
        ([a_range(start=0, end=5)], AVAILABILITY_EXPIRED),
        ([a_range(start=0, end=5), a_range(start=5, end=6)], AVAILABILITY_PARTLY_EXPIRED),
        ([a_range(start=5, end=19), a_range(partition=1, start=0, end=99)], AVAILABILITY_NOT_WRITTEN),
        ([a_range(start=0, end=0)], AVAILABILITY_AVAILABLE),
        ([a_range(topic="gone")], AVAILABILITY_EXPIRED),
        ([a_range(partition=7)], AVAILABILITY_EXPIRED),
        ([a_range(topic="gone"), a_range(start=5, end=21)], AVAILABILITY_PARTLY_EXPIRED),
        ([a_range(topic="secret")], AVAILABILITY_UNSPECIFIED),
        ([a_range(topic="secret"), a_range(topic="gone")], AVAILABILITY_UNSPECIFIED),
    ],
)
def test_availability_follows_from_the_ends_of_the_log(ranges: list[OffsetRange], expected: int) -> None:
    assert availability_of(Stream(ranges=ranges), TOPICS) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Stream(open_topics=["digits"]), AVAILABILITY_AVAILABLE),
        (Stream(open_topics=["gone"]), AVAILABILITY_EXPIRED),
        (Stream(open_topics=["digits", "gone"]), AVAILABILITY_PARTLY_EXPIRED),
        (Stream(open_topics=["digits"], topic_ids={"digits": "id-0"}), AVAILABILITY_EXPIRED),
        (Stream(ranges=[a_range(start=5)], topic_ids={"digits": "id-1"}), AVAILABILITY_AVAILABLE),
        (Stream(ranges=[a_range(start=5)], topic_ids={"digits": "id-0"}), AVAILABILITY_EXPIRED),
        (Stream(ranges=[a_range(start=5)], topic_ids={"other": "id-0"}), AVAILABILITY_AVAILABLE),
        (
            Stream(ranges=[a_range(start=5)], unsupervised_ranges=[a_range(partition=1)]),
            AVAILABILITY_NOT_WRITTEN,
        ),
    ],
)
def test_open_ended_remade_and_unlabelled_streams_count_too(stream: Stream, expected: int) -> None:
    assert availability_of(stream, TOPICS) == expected


async def found(kafka: KafkaSettings, *ranges: OffsetRange, **more: Any) -> int:
    stream = Stream(ranges=ranges, **more)
    await add_availability(kafka, [stream])
    return stream.availability


async def test_a_range_behind_an_open_transaction_is_blocked_until_it_ends(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic()
    with TransactionalWriter(kafka, name) as writer:
        writer.begin()
        writer.produce(name, None, b"x")
        flush(writer)
        assert await found(kafka, a_range(name, end=1)) == AVAILABILITY_BLOCKED
        assert await found(kafka, a_range(name, end=3)) == AVAILABILITY_NOT_WRITTEN
        writer.commit()
    assert await found(kafka, a_range(name, end=1)) == AVAILABILITY_AVAILABLE


async def test_a_topic_that_is_deleted_and_made_anew_has_lost_what_it_had(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic()
    write(kafka, name, [b"x"] * 10)
    ids = topic_ids(kafka, [name])
    assert await found(kafka, a_range(name), topic_ids=ids) == AVAILABILITY_AVAILABLE
    delete_before(kafka, name, 4)
    assert await found(kafka, a_range(name), topic_ids=ids) == AVAILABILITY_PARTLY_EXPIRED
    delete_topic(kafka, name)
    assert await found(kafka, a_range(name), topic_ids=ids) == AVAILABILITY_EXPIRED
    ensure_topics(kafka, {name: 1})
    write(kafka, name, [b"y"] * 10)
    assert await found(kafka, a_range(name), topic_ids=ids) == AVAILABILITY_EXPIRED
    assert await found(kafka, a_range(name)) == AVAILABILITY_AVAILABLE
