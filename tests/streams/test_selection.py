"""Records chosen by time, on the real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import NotFound
from headrace.v1.stream_catalog_pb2 import TopicSelection
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import KafkaSettings, ensure_topics
from streams.selection import bad_selection, resolve
from streams.writer import TransactionalWriter
from tests.streams.log import delete_before, flush, offset_range, write_in_transaction

Topic = Callable[..., str]
# Kafka refuses records from the future; everything here happened in 2020, which retention would delete.
KEPT = {"retention.ms": "-1"}
T0_MS = 1_577_836_800_000
NOW_NS = (T0_MS + 3_600_000) * 10**6


def write_at(kafka: KafkaSettings, topic: str, *times_ms: int, partition: int = 0) -> None:
    """A record at each of these times (milliseconds behind T0), in this order."""
    producer = kafka.producer({"linger.ms": 0})
    for time_ms in times_ms:
        producer.produce(topic, b"x", partition=partition, timestamp=T0_MS + time_ms)
    assert producer.flush(10) == 0


def at(time_ms: float) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds(T0_MS * 10**6 + round(time_ms * 10**6))
    return time


def test_without_a_time_all_that_is_there_is_chosen(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(3, retention_ms="-1")
    write_at(kafka, name, *range(10))
    write_at(kafka, name, *range(4), partition=2)
    delete_before(kafka, name, 3)
    assert resolve(kafka, TopicSelection(topic=name), NOW_NS) == [
        offset_range(name, 3, 10),
        offset_range(name, 0, 4, 2),
    ]
    assert resolve(kafka, TopicSelection(topic=name, partitions=[2, 1]), NOW_NS) == [offset_range(name, 0, 4, 2)]


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "start", "end"),
    [
        (1000, 3000, 1, 3),  # the start belongs to it, the end does not
        (1001, 3001, 2, 4),
        (999.5, 2000.000001, 1, 3),  # Kafka counts milliseconds
        (-5000, 500, 0, 1),
        (4000, 60_000, 4, 5),
        (5000, 6000, 0, 0),
        (-9000, -8000, 0, 0),
    ],
)
def test_a_time_chooses_from_the_first_record_that_is_not_older_to_the_next(
    kafka: KafkaSettings, seconds: str, start_ms: float, end_ms: float, start: int, end: int
) -> None:
    selection = TopicSelection(topic=seconds, start_time=at(start_ms), end_time=at(end_ms))
    expected = [OffsetRange(topic=seconds, partition=0, start=start, end=end)] if end else []
    assert resolve(kafka, selection, NOW_NS) == expected


def test_since_counts_back_from_now(kafka: KafkaSettings, seconds: str) -> None:
    an_hour_and_a_bit = Duration(seconds=3600 - 2)
    assert resolve(kafka, TopicSelection(topic=seconds, since=an_hour_and_a_bit), NOW_NS) == [
        offset_range(seconds, 2, 5)
    ]


def test_times_that_are_not_in_order_leave_nothing_out_between_the_bounds(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(retention_ms="-1")
    write_at(kafka, name, 0, 2000, 1000, 500, 3000, 2500)
    selection = TopicSelection(topic=name, start_time=at(1000), end_time=at(3000))
    assert resolve(kafka, selection, NOW_NS) == [offset_range(name, 1, 4)]


def test_an_open_transaction_is_not_in_it(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    with TransactionalWriter(kafka, name) as writer:
        write_in_transaction(writer, name, [b"a"], commit=True)
        writer.begin()
        writer.produce(name, None, b"b")
        flush(writer)
        for selection in (TopicSelection(topic=name), TopicSelection(topic=name, since=Duration(seconds=3600))):
            assert resolve(kafka, selection, NOW_NS) == [offset_range(name, 0, 2)]
        writer.abort()


def test_a_topic_or_partition_that_is_not_there_is_named(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    for selection in (TopicSelection(topic="no-such-topic"), TopicSelection(topic=name, partitions=[0, 7])):
        with pytest.raises(NotFound) as caught:
            resolve(kafka, selection, NOW_NS)
        assert caught.value.reason_name == "UNKNOWN_TOPIC"
        assert caught.value.metadata["topic"] == selection.topic


@pytest.mark.parametrize(
    ("selection", "fields"),
    [
        (TopicSelection(topic="t"), []),
        (TopicSelection(topic="t", start_time=at(0), end_time=at(1)), []),
        (TopicSelection(topic="t", end_time=at(3_600_000 + 59_000)), []),  # a clock that is a little ahead
        (TopicSelection(topic=""), ["topic"]),
        (TopicSelection(topic="a b", partitions=[0, -1, 0]), ["topic", "partitions[1]", "partitions[2]"]),
        (TopicSelection(topic="t", start_time=at(5), end_time=at(5)), ["end_time"]),
        (TopicSelection(topic="t", since=Duration(seconds=1), end_time=at(0)), ["end_time"]),
        (TopicSelection(topic="t", start_time=at(9_000_000)), ["start_time"]),
        (TopicSelection(topic="t", start_time=at(0), since=Duration(seconds=1)), ["since"]),
        (TopicSelection(topic="t", since=Duration()), ["since"]),
        (TopicSelection(topic="t", since=Duration(seconds=-1)), ["since"]),
        (TopicSelection(topic="t", start_time=Timestamp(seconds=10**15)), ["start_time"]),
        (TopicSelection(topic="t", end_time=Timestamp(nanos=-1)), ["end_time"]),
    ],
)
def test_what_is_wrong_with_a_selection_is_named(selection: TopicSelection, fields: list[str]) -> None:
    found = [bad.field for bad in bad_selection(selection, NOW_NS, "selections[0]")]
    assert found == [f"selections[0].{name}" for name in fields]


@pytest.fixture(scope="module")
def seconds(kafka: KafkaSettings) -> str:
    """A topic with five records, a second apart from T0 on."""
    name = "selected-by-time"
    ensure_topics(kafka, {name: 1}, config=KEPT)
    write_at(kafka, name, 0, 1000, 2000, 3000, 4000)
    return name
