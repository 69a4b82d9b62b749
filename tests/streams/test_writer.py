"""What a producer says about its records is true. On a real broker."""

import uuid
from collections.abc import Callable

import pytest

from headrace.errors import InvalidArgument, Unavailable
from streams.kafka import KafkaSettings, headers_of, log_ends
from streams.writer import BatchProducer, SentRecord, StreamProducer, TransactionalWriter, TransactionFenced
from tests.streams.log import flush, offset_range, read, seen, values
from tests.support import eventually

Topic = Callable[..., str]
AWAY = KafkaSettings("127.0.0.1:1")


@pytest.fixture
def writer_id() -> str:
    return f"writer-{uuid.uuid4().hex[:8]}"


def test_a_transaction_is_seen_whole_or_not_at_all(kafka: KafkaSettings, topic: Topic, writer_id: str) -> None:
    first, second = topic(), topic()
    with TransactionalWriter(kafka, writer_id) as writer:
        for commit in (False, True):
            writer.begin()
            assert writer.in_transaction
            for name in (first, second):
                writer.produce(name, b"key", b"%d" % commit, [("traceparent", b"00-1"), ("n", None)])
            flush(writer)
            assert seen(kafka, first) == seen(kafka, second) == []
            writer.commit() if commit else writer.abort()
            assert not writer.in_transaction
    assert seen(kafka, first) == seen(kafka, second) == [b"1"]
    (message,) = read(kafka, offset_range(first, 0, log_ends(kafka, first)[0].stable))
    assert (message.key(), headers_of(message)) == (b"key", [("traceparent", b"00-1"), ("n", None)])


def test_what_a_dead_writer_left_open_is_aborted_by_the_next(
    kafka: KafkaSettings, topic: Topic, writer_id: str
) -> None:
    name = topic()
    dead = TransactionalWriter(kafka, writer_id)
    dead.recover()
    dead.begin()
    dead.produce(name, None, b"left open")
    flush(dead)
    assert log_ends(kafka, name)[0].stable == 0
    with TransactionalWriter(kafka, writer_id) as writer:
        eventually(lambda: log_ends(kafka, name)[0].stable == log_ends(kafka, name)[0].high)
        with pytest.raises(TransactionFenced):
            dead.commit()
        writer.begin()
        writer.produce(name, None, b"of the living")
        writer.commit()
    assert seen(kafka, name) == [b"of the living"]


def test_a_recovered_writer_goes_on(kafka: KafkaSettings, topic: Topic, writer_id: str) -> None:
    name = topic()
    with TransactionalWriter(kafka, writer_id) as writer:
        writer.begin()
        writer.produce(name, None, b"dropped")
        writer.recover()
        assert not writer.in_transaction
        writer.begin()
        writer.produce(name, None, b"kept")
        writer.commit()
    assert seen(kafka, name) == [b"kept"]


def test_closing_leaves_no_transaction_open(kafka: KafkaSettings, topic: Topic, writer_id: str) -> None:
    name = topic()
    with TransactionalWriter(kafka, writer_id) as writer:
        writer.begin()
        writer.produce(name, None, b"x")
        flush(writer)
    ends = log_ends(kafka, name)[0]
    assert ends.stable == ends.high
    assert seen(kafka, name) == []


def test_a_record_that_is_too_large_is_refused_alone(kafka: KafkaSettings, topic: Topic, writer_id: str) -> None:
    name = topic()
    with TransactionalWriter(kafka, writer_id) as writer:
        writer.begin()
        writer.produce(name, None, b"before")
        with pytest.raises(InvalidArgument) as caught:
            writer.produce(name, b"k", bytes(2_000_000))
        writer.produce(name, None, b"after")
        writer.commit()
    assert (caught.value.metadata["size_bytes"], caught.value.metadata["limit_bytes"]) == ("2000001", "1000000")
    assert seen(kafka, name) == [b"before", b"after"]


def test_of_many_records_those_that_are_too_large_are_left_out(
    kafka: KafkaSettings, topic: Topic, writer_id: str
) -> None:
    values = [b"before", bytes(2_000_000), b"after", bytes(3_000_000)]
    records: list[SentRecord] = [(value, b"k", 0, [("n", b"1")]) for value in values]
    transactional, confirmed = topic(), topic()
    with TransactionalWriter(kafka, writer_id) as writer:
        writer.begin()
        refused = writer.produce_all(transactional, records)
        writer.commit()
    with BatchProducer(kafka) as producer:
        assert producer.produce_all(confirmed, records).keys() == refused.keys() == {1, 3}
        producer.flush()
        assert producer.outstanding == 0
    assert refused[1].metadata["size_bytes"] == "2000001"
    assert seen(kafka, transactional) == seen(kafka, confirmed) == [b"before", b"after"]


def test_a_writer_without_a_cluster_says_so() -> None:
    with pytest.raises(Unavailable) as caught:
        TransactionalWriter(AWAY, "nobody", commit_timeout_s=0.2).recover()
    assert caught.value.reason_name == "KAFKA_UNAVAILABLE"


def test_a_flush_confirms_every_record(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    with BatchProducer(kafka) as producer:
        for number in range(1000):
            producer.produce(name, None, b"%d" % number, [("n", b"1")], partition=0)
        producer.flush()
        assert producer.outstanding == 0
        assert values(read(kafka, offset_range(name, 0, 1000))) == [b"%d" % number for number in range(1000)]
        producer.flush()


@pytest.mark.parametrize("kind", [BatchProducer, StreamProducer])
def test_records_that_are_not_delivered_are_counted(kind: type) -> None:
    settings = {"message.timeout.ms": 200}
    with (BatchProducer(AWAY, settings=settings) if kind is BatchProducer else StreamProducer(
        AWAY, "t", settings=settings
    )) as producer:  # fmt: skip
        for _ in range(7):
            if isinstance(producer, BatchProducer):
                producer.produce("t", None, b"x")
            else:
                producer.send(0, None, b"x")
        with pytest.raises(Unavailable) as caught:
            producer.flush()
    assert caught.value.reason_name == "NOT_DELIVERED"
    assert (caught.value.metadata["undelivered"], caught.value.metadata["sent"]) == ("7", "7")


def test_ranges_are_those_of_the_delivery_reports(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(3)
    with StreamProducer(kafka, name, headers=[("headrace-stream", "first")]) as first:
        for number in range(10):
            first.send(number % 2, None, b"%d" % number)
        first.flush()
        assert [(one.partition, one.start, one.end) for one in first.ranges()] == [(0, 0, 5), (1, 0, 5)]
    with StreamProducer(kafka, name) as second:
        second.send(1, b"k", b"x")
        second.send(2, b"k", b"y")
        second.flush()
        assert [(one.partition, one.start, one.end) for one in second.ranges()] == [(1, 5, 6), (2, 0, 1)]
        assert (second.sent, second.delivered) == (2, 2)
