"""A request to end a transaction that arrives late must not end the next one.

The client sends it, loses its connection, sends it again on another one, and goes on; the first copy is still on its
way. Kafka cannot tell it from the end of the next transaction, unless the producer has a new epoch by then.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from confluent_kafka import KafkaException, Producer

from cli.broker import HOST, Broker
from streams.kafka import KafkaSettings, ensure_topics
from streams.writer import TransactionalWriter
from tests.conftest import FAST_BROKER
from tests.inferencer.faults.load import Load
from tests.inferencer.faults.proxy import END_TXN, FaultProxy
from tests.inferencer.faults.trial import Setting, trial
from tests.streams.log import flush, seen
from tests.support import free_port

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "0"))
LATE = 15


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaSettings, FaultProxy]]:
    """A broker that all its clients reach through a proxy."""
    broker_port = free_port()
    with FaultProxy(broker_port) as proxy:
        advertised = {"advertised.listeners": f"BROKER://{HOST}:{proxy.port}"}
        home = tmp_path_factory.mktemp("behind")
        with Broker(home, port=broker_port, settings={**FAST_BROKER, **advertised}, stop_with_parent=True):
            yield KafkaSettings(f"{HOST}:{proxy.port}"), proxy


class Transactions(Protocol):
    """What the two producers have in common."""

    def begin(self) -> None: ...
    def produce(self, topic: str, key: bytes | None, value: bytes | None) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class Plain:
    """A producer as everybody writes it."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer: Producer = kafka.producer({"transactional.id": uuid.uuid4().hex})
        self._producer.init_transactions()
        self.begin, self.commit = self._producer.begin_transaction, self._producer.commit_transaction

    def abort(self) -> None:
        with suppress(KafkaException):  # too late: the transaction is committed
            self._producer.abort_transaction()

    def produce(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._producer.produce(topic, value, key)

    def flush(self) -> None:
        self._producer.flush(10)


@contextmanager
def plain(kafka: KafkaSettings) -> Iterator[tuple[Transactions, Callable[[], object]]]:
    producer = Plain(kafka)
    yield producer, producer.flush


@contextmanager
def ours(kafka: KafkaSettings) -> Iterator[tuple[Transactions, Callable[[], object]]]:
    with TransactionalWriter(kafka, uuid.uuid4().hex) as writer:
        yield writer, lambda: flush(writer)


def torn(kafka: KafkaSettings, proxy: FaultProxy, producer: Transactions, finish: Callable[[], object]) -> bool:
    """Whether a transaction that was aborted is to be seen, because the end of the one before it came late."""
    topic = f"late-{uuid.uuid4().hex}"
    ensure_topics(kafka, {topic: 1})
    producer.begin()
    producer.produce(topic, None, b"first")
    proxy.hold(END_TXN)
    producer.commit()
    assert proxy.await_held(0), "the end of the transaction was not held"
    producer.begin()
    producer.produce(topic, None, b"second")
    finish()
    proxy.release()
    producer.abort()
    found = seen(kafka, topic)
    assert found[:1] == [b"first"]
    return found[1:] == [b"second"]


ROUNDS = 3


def test_a_late_end_tears_a_plain_producers_next_transaction_and_none_of_ours(
    behind: tuple[KafkaSettings, FaultProxy],
) -> None:
    kafka, proxy = behind
    with plain(kafka) as (producer, finish):
        assert torn(kafka, proxy, producer, finish)
    with ours(kafka) as (producer, finish):
        assert [torn(kafka, proxy, producer, finish) for _ in range(ROUNDS)] == [False] * ROUNDS


@pytest.mark.chaos
@pytest.mark.parametrize("planted", ["untainted", ""])
def test_late_ends_double_answers_of_replicas_without_the_rule_and_none_with_it(
    behind: tuple[KafkaSettings, FaultProxy], tmp_path: Path, planted: str
) -> None:
    kafka, proxy = behind
    load, environment = Load(SEED, 4, 15_000), {"HEADRACE_PLANTED": planted}
    setting = Setting(load, seed=SEED, replicas=1, max_rows=64, seconds=0.01, environment=environment)
    with trial(kafka, tmp_path, setting) as running, running.sending():
        running.await_count(1)
        late = 0
        while late < LATE and running.reader.count < load.total - 1000:
            late += delay_an_end(proxy, Random(f"{SEED}/{late}").uniform(0.02, 0.12))
        verdict = running.finish()
    print(late, verdict)
    assert late == LATE
    assert bool(verdict.doubled) == bool(planted)
    assert verdict.is_clean != bool(planted), verdict


def delay_an_end(proxy: FaultProxy, delay_s: float) -> bool:
    """One request to end a transaction arrives so late, and again meanwhile. False where none was sent."""
    proxy.hold(END_TXN)
    if not proxy.await_held(5):
        return False
    assert proxy.await_again(10)
    time.sleep(delay_s)
    proxy.release()
    return True
