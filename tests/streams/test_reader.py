"""Exactly the records of the ranges, or the reason why not. On a real broker."""

import os
import threading
import time
from collections.abc import Callable

import pytest

from headrace.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import KafkaSettings, ensure_topics, log_ends, topic_ids
from streams.preflight import Wait
from streams.reader import RangeReader
from streams.writer import TransactionalWriter
from tests.streams.log import (
    delete_before,
    flush,
    little_ahead,
    offset_range,
    offsets,
    read,
    values,
    write,
    write_in_transaction,
)
from tests.support import eventually

Topic = Callable[..., str]


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def check(kafka: KafkaSettings, *ranges: OffsetRange, wait_s: float = 0.3) -> None:
    with RangeReader(kafka, ranges, wait_s=wait_s) as reader:
        reader.check()


@pytest.fixture(scope="module")
def holes(kafka: KafkaSettings) -> str:
    """0–4 committed, 5 marker, 6–9 aborted, 10 marker, 11 committed, 12 marker, 13–15 aborted, 16 marker."""
    name = "reader-holes"
    ensure_topics(kafka, {name: 1})
    with TransactionalWriter(kafka, name) as writer:
        write_in_transaction(writer, name, numbers(0, 5), commit=True)
        write_in_transaction(writer, name, numbers(6, 10), commit=False)
        write_in_transaction(writer, name, numbers(11, 12), commit=True)
        write_in_transaction(writer, name, numbers(13, 16), commit=False)
    assert log_ends(kafka, name) == {0: (0, 17, 17)}
    return name


VISIBLE = [0, 1, 2, 3, 4, 11]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 17),
        (0, 5),
        (0, 6),
        (0, 8),
        (3, 11),
        (5, 6),
        (6, 10),
        (7, 9),
        (10, 11),
        (8, 12),
        (12, 17),
        (13, 15),
        (16, 17),
    ],
)
def test_holes_of_transactions_end_no_range_early_or_never(
    kafka: KafkaSettings, holes: str, start: int, end: int
) -> None:
    wanted = offset_range(holes, start, end)
    assert offsets(read(kafka, wanted)) == [offset for offset in VISIBLE if start <= offset < end]


def test_only_the_range_is_read(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(2)
    write(kafka, name, numbers(0, 100))
    write(kafka, name, numbers(100, 200), partition=1)
    messages = read(kafka, offset_range(name, 10, 20), offset_range(name, 95, 100, partition=1))
    assert sorted(values(messages), key=lambda value: int(value or 0)) == [*numbers(10, 20), *numbers(195, 200)]


def test_ranges_of_several_topics_and_several_of_one_partition(kafka: KafkaSettings, topic: Topic) -> None:
    first, second = topic(), topic(2)
    write(kafka, first, numbers(0, 50))
    write(kafka, second, numbers(100, 150), partition=1)
    ranges = [
        offset_range(first, 30, 40),
        offset_range(first, 0, 10),
        offset_range(first, 5, 5),
        offset_range(second, 1, 3, partition=1),
        offset_range(first, 45, 50),
    ]
    with RangeReader(kafka, ranges) as reader:
        reader.check()
        messages = [message for batch in reader.batches() for message in batch]
        assert (reader.records_read, reader.records_total, reader.offsets_done) == (27, 27, 27)
    of_first = [message for message in messages if message.topic() == first]
    assert values(of_first) == [*numbers(0, 10), *numbers(30, 40), *numbers(45, 50)]
    assert len(messages) - len(of_first) == 2


def test_records_of_another_stream_are_left_out(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write(kafka, name, numbers(0, 5), stream_key="ours")
    write(kafka, name, numbers(5, 10), stream_key="theirs")
    write(kafka, name, numbers(10, 12))  # of a producer that knows no streams
    write(kafka, name, numbers(12, 15), stream_key="ours")
    with RangeReader(kafka, [offset_range(name, 0, 15)], stream_key="ours") as reader:
        messages = [message for batch in reader.batches() for message in batch]
        assert reader.records_of_others == 5
    assert values(messages) == [*numbers(0, 5), *numbers(10, 15)]


def test_a_compacted_log_is_read_to_its_end(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(cleanup_policy="compact", min_cleanable_dirty_ratio="0.01", segment_bytes="1048576")
    with TransactionalWriter(kafka, f"compact-{name}") as writer:
        writer.begin()
        for number in range(20_000):
            writer.produce(name, b"%d" % (number % 10), os.urandom(100), partition=0)
        writer.commit()
    end = log_ends(kafka, name)[0].high

    def compacted() -> list[int | None]:
        read_offsets = offsets(read(kafka, offset_range(name, 0, end)))
        return read_offsets if len(read_offsets) < 20_000 else []

    left = eventually(compacted, timeout_s=20)
    assert left == sorted(offset for offset in left if offset is not None)
    assert left[-1] == 19_999


def test_ranges_without_an_offset_are_empty(kafka: KafkaSettings, topic: Topic) -> None:
    for ranges in ([], [offset_range(topic(), 0, 0)]):
        with pytest.raises(InvalidArgument) as caught:
            check(kafka, *ranges)
        assert caught.value.reason_name == "EMPTY_STREAM"


def test_a_range_without_an_offset_waits_for_nothing(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write(kafka, name, [b"x"])
    check(kafka, offset_range(name, 0, 1), offset_range(name, 7, 7))


def test_a_topic_that_is_not_there_is_named_and_not_made(kafka: KafkaSettings) -> None:
    for _ in range(2):
        with pytest.raises(NotFound) as caught:
            check(kafka, offset_range("nowhere", 0, 1))
        assert caught.value.reason_name == "UNKNOWN_TOPIC"
        assert caught.value.metadata == {"topic": "nowhere"}


def test_a_partition_that_is_not_there_is_named(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    with pytest.raises(NotFound) as caught:
        check(kafka, offset_range(name, 0, 1, partition=5))
    assert caught.value.metadata == {"topic": name, "partition": "5"}


def read_without_check(kafka: KafkaSettings, wanted: OffsetRange) -> None:
    read(kafka, wanted, wait_s=0.3)


@pytest.mark.parametrize("action", [check, read_without_check])
def test_a_deleted_part_is_told_and_never_skipped(
    kafka: KafkaSettings, topic: Topic, action: Callable[[KafkaSettings, OffsetRange], None]
) -> None:
    name = topic()
    write(kafka, name, numbers(0, 10))
    delete_before(kafka, name, 4)
    with pytest.raises(FailedPrecondition) as caught:
        action(kafka, offset_range(name, 2, 10))
    assert caught.value.reason_name == "DATA_EXPIRED"
    facts = caught.value.metadata
    assert (facts["topic"], facts["partition"], facts["start"], facts["low"]) == (name, "0", "2", "4")
    check(kafka, offset_range(name, 4, 10))


@pytest.mark.parametrize("action", [check, read_without_check])
@pytest.mark.parametrize("start", [0, 20])
def test_what_is_not_written_in_time_is_told(
    kafka: KafkaSettings, topic: Topic, action: Callable[[KafkaSettings, OffsetRange], None], start: int
) -> None:
    name = topic()
    write(kafka, name, numbers(0, 10))
    with pytest.raises(DeadlineExceeded) as caught:
        action(kafka, offset_range(name, start, 30))
    assert caught.value.reason_name == "DATA_INCOMPLETE"
    assert (caught.value.metadata["end"], caught.value.metadata["high"]) == ("30", "10")


def test_what_is_not_yet_written_is_waited_for(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    waits: list[Wait] = []

    def on_wait(wait: Wait) -> None:
        waits.append(wait)
        write(kafka, name, numbers(0, 10))

    with RangeReader(kafka, [offset_range(name, 0, 20)]) as reader:
        reader.check(on_wait)
    assert waits == [Wait(0, 20), Wait(10, 20)]
    assert waits[1].why == f"{name}/0 is to be written up to offset 20; it ends at 10"


def test_an_open_transaction_is_named_and_waited_for(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write(kafka, name, numbers(0, 3))
    with TransactionalWriter(kafka, f"open-{name}") as writer:
        writer.begin()
        writer.produce(name, None, b"hidden")
        flush(writer)
        with pytest.raises(DeadlineExceeded) as caught:
            check(kafka, offset_range(name, 0, 4))
        assert caught.value.metadata | {"high": "4", "stable": "3"} == caught.value.metadata
        with RangeReader(kafka, [offset_range(name, 0, 4)]) as reader:
            reader.check(on_wait=lambda wait: writer.commit() if writer.in_transaction else None)
            assert [len(batch) for batch in reader.batches()] == [4]


def test_reading_stops_when_it_is_told_to(kafka: KafkaSettings, topic: Topic) -> None:
    stop = threading.Event()
    name = topic()
    with RangeReader(kafka, [offset_range(name, 0, 10)], stop=stop) as reader:
        with pytest.raises(Cancelled):
            reader.check(on_wait=lambda wait: stop.set())
        with pytest.raises(Cancelled):
            list(reader.batches())


def recreate(kafka: KafkaSettings, name: str, records: int) -> None:
    admin = kafka.admin()
    admin.delete_topics([name])[name].result(10)
    eventually(lambda: topic_ids(kafka, [name]) == {})
    ensure_topics(kafka, {name: 1})
    write(kafka, name, numbers(0, records))


def test_a_topic_that_was_made_anew_is_refused(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    announced = topic_ids(kafka, [name])
    recreate(kafka, name, 10)
    with RangeReader(kafka, [offset_range(name, 0, 10)], topic_ids=announced, wait_s=0.3) as reader:
        for read_or_check in (reader.check, lambda: list(reader.batches())):
            with pytest.raises(FailedPrecondition) as caught:
                read_or_check()
            assert caught.value.reason_name == "TOPIC_RECREATED"
            found = topic_ids(kafka, [name])[name]
            assert caught.value.metadata == {"topic": name, "announced": announced[name], "found": found}


@pytest.mark.parametrize("records", [0, 5, 2_000])
def test_a_topic_that_is_made_anew_while_it_is_read_is_told(kafka: KafkaSettings, topic: Topic, records: int) -> None:
    """Kafka goes on with the records of the new topic, or says that there are none."""
    name = topic()
    write(kafka, name, numbers(0, 600))
    with RangeReader(kafka, [offset_range(name, 0, 1_000)], wait_s=20) as reader:
        batches = reader.batches()
        next(batches)
        recreate(kafka, name, records)
        with pytest.raises(FailedPrecondition) as caught:
            list(batches)
    assert caught.value.reason_name == "TOPIC_RECREATED"


def test_a_topic_that_is_deleted_while_it_is_read_is_told(kafka: KafkaSettings, topic: Topic) -> None:
    """Kafka says nothing at all then; the patience for a cluster that is away is not used up."""
    name = topic()
    write(kafka, name, numbers(0, 600))
    with RangeReader(kafka, [offset_range(name, 0, 1_000)], wait_s=60) as reader:
        batches = reader.batches()
        next(batches)
        admin = kafka.admin()
        admin.delete_topics([name])[name].result(10)
        with pytest.raises(NotFound) as caught:
            list(batches)
    assert caught.value.reason_name == "UNKNOWN_TOPIC"


def test_very_many_ranges_of_one_partition_are_read_in_one_go(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(2)
    write(kafka, name, [b"%06d" % number for number in range(20_000)])
    write(kafka, name, numbers(0, 10), partition=1)
    ranges = [offset_range(name, start, start + 2) for start in range(0, 20_000, 4)]
    with RangeReader(kafka, [*reversed(ranges), offset_range(name, 5, 10, partition=1)]) as reader:
        started = time.monotonic()
        messages = [message for batch in reader.batches() for message in batch]
        assert time.monotonic() - started < 10, "5,000 ranges take no 5,000 round trips"
        assert (reader.records_read, reader.offsets_done) == (10_005, 10_005)
    first = [message.offset() for message in messages if message.partition() == 0]
    assert first == [offset for offset in range(20_000) if offset % 4 < 2]


def test_what_lies_between_ranges_that_are_far_apart_is_not_read(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write(kafka, name, [b"x" * 500_000] * 60)
    ranges = [offset_range(name, start, start + 2) for start in (0, 4, 28, 57)]
    read_offsets = offsets(read(kafka, *ranges))
    assert read_offsets == [0, 1, 4, 5, 28, 29, 57, 58]


@pytest.fixture
def long_log(kafka: KafkaSettings, topic: Topic) -> str:
    """3,000 records of 1 kB, each a batch of its own."""
    name = topic()
    write(kafka, name, [b"x" * 1_000] * 3_000, in_batches_of=1)
    return name


def test_what_is_deleted_between_two_ranges_does_not_matter(kafka: KafkaSettings, long_log: str) -> None:
    """The reader is on its way through what lies between them."""
    ranges = [offset_range(long_log, 0, 3), offset_range(long_log, 2_900, 3_000)]
    with RangeReader(little_ahead(kafka), ranges, wait_s=20) as reader:
        batches = reader.batches()
        read_offsets = offsets(next(batches))
        delete_before(kafka, long_log, 2_900)
        read_offsets += [offset for batch in batches for offset in offsets(batch)]
    assert read_offsets == [0, 1, 2, *range(2_900, 3_000)]


def test_what_is_deleted_while_it_is_read_is_told(kafka: KafkaSettings, long_log: str) -> None:
    read_offsets: list[int | None] = []
    with RangeReader(little_ahead(kafka), [offset_range(long_log, 0, 3_000)], wait_s=20) as reader:
        batches = reader.batches()
        read_offsets += offsets(next(batches))
        delete_before(kafka, long_log, 2_900)
        with pytest.raises(FailedPrecondition) as caught:
            read_offsets += [offset for batch in batches for offset in offsets(batch)]
    assert caught.value.reason_name == "DATA_EXPIRED"
    assert caught.value.metadata["low"] == "2900"
    assert read_offsets == [*range(len(read_offsets))]
    assert len(read_offsets) <= int(caught.value.metadata["start"]) < 2_900


def test_partitions_without_records_end_by_themselves(kafka: KafkaSettings, topic: Topic) -> None:
    """Of twenty partitions two hold records, and one nothing but what an aborted transaction left."""
    name = topic(20)
    write(kafka, name, numbers(0, 7), partition=3)
    write(kafka, name, numbers(0, 5), partition=19)
    with TransactionalWriter(kafka, f"aborted-{name}") as writer:
        write_in_transaction(writer, name, numbers(0, 4), commit=False, partition=8)
    ends = {number: log.stable for number, log in log_ends(kafka, name).items()}
    with RangeReader(kafka, [offset_range(name, 0, end, number) for number, end in ends.items()]) as reader:
        reader.check()
        assert sum(len(batch) for batch in reader.batches()) == 12
        assert reader.offsets_done == reader.records_total == 17


def test_many_topics_are_read_together(kafka: KafkaSettings, topic: Topic) -> None:
    names = [topic() for _ in range(12)]
    for number, name in enumerate(names):
        write(kafka, name, numbers(number * 10, number * 10 + 10))
    with RangeReader(kafka, [offset_range(name, 2, 5) for name in names]) as reader:
        reader.check()
        found = values(message for batch in reader.batches() for message in batch)
    assert sorted(int(value or 0) % 10 for value in found) == sorted([2, 3, 4] * 12)


def test_an_option_cannot_make_reading_inexact(kafka: KafkaSettings, holes: str) -> None:
    careless = KafkaSettings(
        kafka.bootstrap_servers, {"isolation.level": "read_uncommitted", "auto.offset.reset": "latest"}
    )
    assert offsets(read(careless, offset_range(holes, 0, 17))) == VISIBLE
