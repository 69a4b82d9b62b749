"""What can go wrong with a sink: nothing is announced that is not there, all of it, once. On real brokers."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from cli.broker import Broker
from headrace.errors import Aborted, InvalidArgument, PermissionDenied, Unavailable
from headrace.v1.stream_pb2 import StreamAnnouncement
from sinks import RawSink
from streams.kafka import KafkaSettings, ensure_topics, log_ends
from streams.reader import WAIT_S
from streams.spool import spool_stream
from tests.sinks.announced import DEPLOYMENT, announced, read_samples
from tests.sinks.producing import PART, PARTITIONS, ROWS, produce
from tests.streams.log import seen, set_config
from tests.support import eventually

Topic = Callable[..., str]
ALL = list(range(ROWS))


@pytest.fixture
def make(kafka: KafkaSettings, control: str) -> Callable[..., RawSink]:
    def make_sink(name: str, **settings: Any) -> RawSink:
        return RawSink(kafka.bootstrap_servers, name, DEPLOYMENT, control_topic=control, **settings)

    return make_sink


def start_producing(kafka: KafkaSettings, arguments: tuple[str, ...], failpoint: str = "") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sinks.producing", kafka.bootstrap_servers, *arguments],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "HEADRACE_FAIL": failpoint},
    )  # fmt: skip


def assert_whole_or_nothing(
    kafka: KafkaSettings, control: str, folder: Path, wait_s: float = WAIT_S
) -> list[StreamAnnouncement]:
    found = announced(kafka, control)
    for number, announcement in enumerate(found):
        assert announcement.record_count == ROWS
        assert read_samples(kafka, announcement, folder / str(number), wait_s) == ALL
    return found


@pytest.mark.parametrize(
    ("mode", "failpoint", "is_announced"),
    [
        ("plain", "sink_sent:exit@3", False),
        ("plain", "sink_before_announce:exit", False),
        ("plain", "sink_after_announce:exit", True),
        ("transactional", "sink_sent:exit@3", False),
        ("transactional", "sink_before_commit:exit", False),
        ("transactional", "sink_after_announce:exit", True),
    ],
)
def test_a_killed_producer_has_announced_all_or_nothing_and_runs_again(
    kafka: KafkaSettings, topic: Topic, control: str, tmp_path: Path, mode: str, failpoint: str, is_announced: bool
) -> None:
    arguments = (topic(PARTITIONS), control, f"stream-{control}", mode)
    killed = start_producing(kafka, arguments, failpoint)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(assert_whole_or_nothing(kafka, control, tmp_path / "killed")) == is_announced

    produce(kafka.bootstrap_servers, *arguments)
    found = assert_whole_or_nothing(kafka, control, tmp_path / "again")
    assert len(found) == is_announced + 1
    # The catalog records an id once.
    assert {one.message_id for one in found} == {f"stream-{control}"}
    if mode == "transactional":
        assert_committed(kafka, arguments[0], ROWS * len(found))


def assert_committed(kafka: KafkaSettings, topic: str, count: int) -> None:
    """So many records are to be seen, and no transaction is open."""
    ends = log_ends(kafka, topic)
    assert all(one.stable == one.high for one in ends.values())
    assert len(seen(kafka, topic)) == count // PARTITIONS


def kill_at_random(kafka: KafkaSettings, arguments: tuple[str, ...], chance: random.Random) -> None:
    """After one of the parts, at some moment of the next few milliseconds."""
    producer = start_producing(kafka, arguments)
    assert producer.stdout is not None
    for _ in range(chance.randrange(ROWS // PART + 1)):
        producer.stdout.readline()
    try:
        producer.wait(timeout=chance.random() / 20)
    except subprocess.TimeoutExpired:
        producer.kill()
    producer.communicate()


# Thirty for long, in parts that can be run one by one.
@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 2), *(pytest.param(seed, 6, marks=pytest.mark.chaos) for seed in range(1, 6))]
)
def test_kills_at_any_moment_leave_nothing_half(
    kafka: KafkaSettings, topic: Topic, control: str, tmp_path: Path, seed: int, kills: int
) -> None:
    name, chance = topic(PARTITIONS), random.Random(seed)
    for number in range(kills):
        arguments = (name, control, f"stream-{number}", ("plain", "transactional")[number % 2])
        kill_at_random(kafka, arguments, chance)
        assert_whole_or_nothing(kafka, control, tmp_path / f"killed-{number}")
        # The same id ends a transaction that the killed one has left open.
        produce(kafka.bootstrap_servers, *arguments)
        found = assert_whole_or_nothing(kafka, control, tmp_path / f"again-{number}")
        assert found[-1].message_id == f"stream-{number}"


def test_a_broker_that_restarts_loses_and_doubles_nothing_and_one_that_stays_away_is_told_exactly(
    own_broker: Callable[[], Broker], tmp_path: Path
) -> None:
    broker = own_broker()
    kafka = KafkaSettings(broker.bootstrap_servers)
    ensure_topics(kafka, {"control": 1})

    def make(**settings: Any) -> RawSink:
        return RawSink(broker.bootstrap_servers, "data", DEPLOYMENT, control_topic="control", partitions=2, **settings)

    with make() as sink:
        sink.send_batch(np.arange(1000))
        broker.kill()
        sink.send_batch(np.arange(1000, 2000))
        broker.start()
        broker.wait_ready()
        sink.send_batch(np.arange(2000, 3000))
    (announcement,) = announced(kafka, "control")
    assert read_samples(kafka, announcement, tmp_path) == list(range(3000))

    with pytest.raises(Unavailable) as caught, make(delivery_timeout_s=1.5) as sink:  # noqa: PT012
        sink.send_batch(np.arange(700))
        sink.flush()
        broker.kill()
        sink.send_batch(np.arange(300))
    assert caught.value.reason_name == "NOT_DELIVERED"
    assert (caught.value.metadata["undelivered"], caught.value.metadata["sent"]) == ("300", "1000")
    assert sink.delivered == 700
    broker.start()
    broker.wait_ready()
    assert announced(kafka, "control") == [announcement]


def test_too_few_replicas_are_waited_for(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str, tmp_path: Path
) -> None:
    name = topic(min_insync_replicas="2")
    confirmed: list[int] = []

    def bring_them_back(sent: int, delivered: int) -> None:
        if not confirmed:
            set_config(kafka, name, "min.insync.replicas", "1")
        confirmed.append(delivered)

    with make(name, on_progress=bring_them_back) as sink:
        sink.send_batch(np.arange(100))
    assert (confirmed[0], confirmed[-1]) == (0, 100)
    (announcement,) = announced(kafka, control)
    assert [(one.start, one.end) for one in announcement.ranges] == [(0, 100)]
    assert read_samples(kafka, announcement, tmp_path) == list(range(100))


def test_a_sink_waits_while_kafka_is_behind(make: Callable[..., RawSink], control: str) -> None:
    """More than librdkafka's queue holds: its bound (64 MiB) makes `send` wait, and nothing is lost."""
    with make(f"{control}-data") as sink:
        sink.send_batch(np.zeros((90, 900_000), np.uint8))
        assert sink.delivered == 0 or sink.sent == 90
    assert sink.announcement.record_count == 90


@pytest.mark.parametrize("transactional", [False, True])
def test_a_huge_record_is_refused_here_with_its_size_and_the_limit(
    kafka: KafkaSettings, make: Callable[..., RawSink], control: str, transactional: bool
) -> None:
    with pytest.raises(InvalidArgument) as caught, make(f"{control}-data", transactional=transactional) as sink:
        sink.send(np.zeros(2_000_000, np.uint8), 1)
    assert (caught.value.metadata["size_bytes"], caught.value.metadata["limit_bytes"]) == ("2000008", "1000000")
    assert announced(kafka, control) == []


def test_a_record_that_the_topic_does_not_take_is_told(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str
) -> None:
    with pytest.raises(Unavailable) as caught, make(topic(max_message_bytes="1000")) as sink:
        sink.send(np.random.default_rng(0).integers(0, 255, 5000).astype(np.uint8), 1)
    assert caught.value.metadata["undelivered"] == "1"
    assert "large" in caught.value.message.lower()
    assert announced(kafka, control) == []


def test_a_transaction_shows_data_and_announcement_together(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str, tmp_path: Path
) -> None:
    name = topic()
    with make(name, transactional=True) as sink:
        sink.send_batch(np.arange(100))
        sink.send_unsupervised(5)
        sink.flush()
        assert log_ends(kafka, name)[0].high == 100
        assert seen(kafka, name) == []
        assert announced(kafka, control) == []
    (announcement,) = announced(kafka, control)
    assert read_samples(kafka, announcement, tmp_path) == list(range(100))
    assert len(announcement.unsupervised_ranges) == 1


def test_a_transaction_that_ends_by_an_exception_shows_nothing(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str
) -> None:
    name = topic()
    with pytest.raises(ZeroDivisionError), make(name, transactional=True) as sink:  # noqa: PT012
        sink.send_batch(np.arange(100))
        sink.flush()
        raise ZeroDivisionError
    ends = eventually(lambda: log_ends(kafka, name)[0])
    assert ends.stable == ends.high
    assert seen(kafka, name) == []
    assert announced(kafka, control) == []


def is_seen(kafka: KafkaSettings, topic: str, count: int) -> bool:
    return len(seen(kafka, topic)) == count


def test_a_stream_longer_than_a_transaction_may_be_is_several_and_announced_with_the_last(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str, tmp_path: Path
) -> None:
    name = topic()
    with make(name, transactional=True, transaction_s=3) as sink:
        for part in range(2):
            sink.send_batch(np.arange(100 * part, 100 * part + 100))
            sink.flush()
            # Nobody calls the sink meanwhile: it is committed in time all the same.
            eventually(partial(is_seen, kafka, name, 100 * part + 100))
            assert announced(kafka, control) == []
        sink.send_batch(np.arange(200, 300))
    (announcement,) = announced(kafka, control)
    # Two markers of our own are among the records; nobody else has written.
    assert [(one.start, one.end) for one in announcement.ranges] == [(0, 302)]
    assert read_samples(kafka, announcement, tmp_path) == list(range(300))


def test_a_second_run_ends_a_first_one_that_is_still_sending(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str, tmp_path: Path
) -> None:
    name = topic()
    zombie = make(name, transactional=True, stream_id=f"same-{name}")
    zombie.send_batch(np.arange(50))
    zombie.flush()
    with make(name, transactional=True, stream_id=f"same-{name}") as sink:
        sink.send_batch(np.arange(100, 150))
    with pytest.raises(Aborted) as caught:
        zombie.close()
    assert caught.value.reason_name == "FENCED"
    (announcement,) = announced(kafka, control)
    assert read_samples(kafka, announcement, tmp_path) == list(range(100, 150))


def test_who_may_not_write_is_told_at_once_who_may_not_do_what(tmp_path: Path) -> None:
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Broker(tmp_path / "guarded", port=0, settings=settings, stop_with_parent=True) as broker:
        kafka = KafkaSettings(broker.bootstrap_servers)
        ensure_topics(kafka, {"guarded": 1, "control": 1})
        admin = kafka.admin()
        # A topic with any rule is closed to what no rule allows: here, to writing.
        rules = [
            AclBinding(
                ResourceType.TOPIC, "guarded", ResourcePatternType.LITERAL, "User:ANONYMOUS", "*",
                operation, AclPermissionType.ALLOW,
            )
            for operation in (AclOperation.DESCRIBE, AclOperation.READ)
        ]  # fmt: skip
        for done in admin.create_acls(rules).values():
            done.result()
        for transactional in (False, True):
            started = time.monotonic()
            sink = RawSink(
                broker.bootstrap_servers, "guarded", DEPLOYMENT, control_topic="control", transactional=transactional
            )
            with pytest.raises(PermissionDenied) as caught, sink:
                sink.send_batch(np.arange(10))
            assert time.monotonic() - started < 10
            facts = caught.value.metadata
            assert (facts["principal"], facts["resource"], facts["operation"]) == ("User:ANONYMOUS", "guarded", "WRITE")
            assert facts["undelivered"] == "10"
        assert announced(kafka, "control") == []


def test_two_fast_sinks_in_one_partition_train_each_on_its_own(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink], control: str, tmp_path: Path
) -> None:
    name = topic()

    def send(first: int) -> None:
        with make(name, stream_id=f"from-{first}") as sink:
            for start in range(first, first + 20_000, 1000):
                sink.send_batch(np.arange(start, start + 1000))
                sink.flush()

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 1_000_000)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    found = announced(kafka, control)
    assert len(found) == 2
    for announcement in found:
        first = int(announcement.message_id.removeprefix("from-"))
        assert read_samples(kafka, announcement, tmp_path / str(first)) == list(range(first, first + 20_000))
        assert spool_stream(announcement, kafka, tmp_path / str(first)).others_count == 0
