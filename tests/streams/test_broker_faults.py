"""A broker that is killed or hangs while it is read from and written to."""

import os
import signal
from collections.abc import Iterator

import pytest

from cli.broker import Broker
from headrace.errors import HeadraceError, Unavailable
from sinks import RawSink
from streams.group import GroupReader
from streams.kafka import KafkaSettings, ensure_topics
from streams.reader import RangeReader
from streams.topic_watch import TopicWatch
from streams.writer import TransactionalWriter, TransactionUnknown
from tests.conftest import FAST_BROKER
from tests.streams.log import offset_range, seen, values, write
from tests.support import eventually

ROWS = 40_000


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for this module alone."""
    home = tmp_path_factory.mktemp("fragile")
    with Broker(home, port=0, settings=FAST_BROKER, stop_with_parent=True) as broker:
        yield broker


def test_a_commit_without_an_answer_is_resolved_by_the_committed_offset(fragile: Broker) -> None:
    kafka = KafkaSettings(fragile.bootstrap_servers)
    ensure_topics(kafka, {"questions": 1, "answers": 1})
    write(kafka, "questions", [b"%d" % number for number in range(5)])
    with (
        TransactionalWriter(kafka, "unknown", commit_timeout_s=5) as writer,
        GroupReader(kafka, group_id="unknown", topic="questions", slot="0") as reader,
    ):
        messages = eventually(lambda: reader.consume(5, 0.5))
        writer.begin()
        for message in messages:
            writer.produce("answers", None, message.value())
        writer.send_offsets("questions", {0: (messages[-1].offset() or 0) + 1}, reader.metadata)
        os.kill(fragile.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TransactionUnknown):
                writer.commit()
        finally:
            os.kill(fragile.pid, signal.SIGCONT)
        eventually(lambda: recovered(writer), timeout_s=20)
        reader.rewind()
        done = reader.committed()[0] or 0
        assert len(seen(kafka, "answers")) == done
        rest = [] if done == 5 else eventually(lambda: reader.consume(5, 0.5))
        assert done + len(rest) == 5


def test_who_watches_a_topic_hears_that_kafka_is_away_and_back(fragile: Broker) -> None:
    kafka = KafkaSettings(fragile.bootstrap_servers, longest_wait_s=1.0)
    ensure_topics(kafka, {"watched": 1})
    heard: list[HeadraceError | None] = []
    changes: list[HeadraceError] = []
    with TopicWatch(kafka, "watched", changes.append, on_contact=heard.append, every_s=0.1):
        eventually(lambda: heard[-1:] == [None])
        fragile.kill()
        eventually(lambda: isinstance(heard[-1], Unavailable))
        fragile.start()
        fragile.wait_ready()
        eventually(lambda: heard[-1] is None)
    assert not changes


def recovered(writer: TransactionalWriter) -> bool:
    try:
        writer.recover()
    except Unavailable:
        return False
    return True


def test_a_reader_and_the_data_outlive_the_broker(fragile: Broker) -> None:
    kafka = KafkaSettings(fragile.bootstrap_servers)
    ensure_topics(kafka, {"killed": 1})
    write(kafka, "killed", [b"%d" % number for number in range(ROWS)])
    with RangeReader(kafka, [offset_range("killed", 0, ROWS)]) as reader:
        batches = reader.batches()
        read = values(next(batches))
        os.kill(fragile.pid, signal.SIGKILL)
        fragile.kill()  # takes note of its death
        fragile.start()
        fragile.wait_ready()
        for batch in batches:
            read += values(batch)
    assert read == [b"%d" % number for number in range(ROWS)]


def test_a_sink_whose_broker_is_gone_announces_nothing_and_counts(fragile: Broker) -> None:
    sink = RawSink(
        fragile.bootstrap_servers, "cut", 1, control_topic="cut-control", options={"message.timeout.ms": "500"}
    )
    sink.send(1.0, 1)
    fragile.kill()  # for good: what is announced from now on, nobody can read
    for _ in range(4):
        sink.send(2.0, 2)
    with pytest.raises(Unavailable) as caught:
        sink.close()
    assert caught.value.reason_name == "NOT_DELIVERED"
    assert caught.value.metadata["sent"] == "5"
    assert int(caught.value.metadata["undelivered"]) >= 4
    assert not sink.announcement.ranges
