"""Records that are sent again: each once, whatever is repeated or killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, log_ends
from streams.writer import BatchProducer
from tests.streams.replaying import replay

Topics = Callable[..., str]


def fill(kafka: KafkaSettings, topic: str, start: int, stop: int) -> None:
    """Numbers in turn over two partitions and over the kinds a, b, c."""
    with BatchProducer(kafka) as producer:
        for number in range(start, stop):
            headers: list[tuple[str, str | bytes | None]] = [("n", b"%d" % number), ("kind", b"abc"[number % 3 :][:1])]
            producer.produce(topic, b"k%d" % number, b"%d" % number, headers, number % 2)
        producer.flush()


def sent(kafka: KafkaSettings, topic: str) -> list[int]:
    """Everything committed that the topic holds."""
    stable = sum(ends.stable for ends in log_ends(kafka, topic).values())
    found: list[int] = []
    with TopicFollower(kafka, topic, {}) as follower:
        while stable:
            records = follower.read(1.0)
            if not records:
                break
            for record in records:
                assert record.key() == b"k" + (record.value() or b"")
                assert record.headers() == [("n", record.value())]
            found += [int(record.value() or b"") for record in records]
    return found


def test_what_was_replayed_is_not_replayed_again(kafka: KafkaSettings, topic: Topics) -> None:
    source, target = topic(2), topic()
    fill(kafka, source, 0, 20)
    assert replay(kafka, source, target).count == 20
    assert replay(kafka, source, target).count == 0
    fill(kafka, source, 20, 30)
    again = replay(kafka, source, target)
    assert (again.count, again.done) == (10, True)
    assert sorted(sent(kafka, target)) == list(range(30))


def test_kinds_are_replayed_one_by_one_and_the_rest_with_all(kafka: KafkaSettings, topic: Topics) -> None:
    source, target = topic(2), topic()
    fill(kafka, source, 0, 30)
    assert replay(kafka, source, target, "b").count == 10
    assert sorted(sent(kafka, target)) == list(range(1, 30, 3))
    fill(kafka, source, 30, 60)
    assert replay(kafka, source, target, "c").count == 20
    assert replay(kafka, source, target).count == 30
    assert replay(kafka, source, target, "b").count == 0
    assert sorted(sent(kafka, target)) == list(range(60))


def test_a_call_whose_time_is_up_says_so_and_the_next_goes_on(kafka: KafkaSettings, topic: Topics) -> None:
    source, target = topic(2), topic()
    fill(kafka, source, 0, 10)
    first = replay(kafka, source, target, within_s=-1)
    assert (first.count, first.done) == (0, False)
    assert replay(kafka, source, target).done
    assert sorted(sent(kafka, target)) == list(range(10))


@pytest.mark.parametrize("place", ["replay_after_produce@2", "replay_after_commit@1"])
def test_a_replay_that_is_killed_between_or_in_batches_sends_each_once(
    kafka: KafkaSettings, topic: Topics, place: str, tmp_path: Path
) -> None:
    source, target = topic(2), topic()
    fill(kafka, source, 0, 2500)
    name, _, number = place.partition("@")
    environment = {"HEADRACE_FAIL": f"{name}:exit@{number}", "HEADRACE_FAIL_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "tests.streams.replaying", kafka.bootstrap_servers, source, target]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -signal.SIGKILL
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 0
    assert sorted(sent(kafka, target)) == list(range(2500))
