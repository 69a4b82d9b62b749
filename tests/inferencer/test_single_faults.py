"""One fault at a time, to a replica as a process: what it then does, and that it says so."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from cli.broker import Broker
from headrace.process import EXIT_BUG, EXIT_FAILED, EXIT_FENCED, EXIT_RETRY
from headrace.v1 import inference_pb2
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, ensure_topics, headers_of, topic_id
from streams.writer import BatchProducer, TransactionalWriter
from tests.inferencer.faults.load import Kind, Load
from tests.inferencer.faults.trial import FIRST_RESULT, Setting, Trial, trial
from tests.streams.log import delete_before, delete_topic
from tests.support import eventually, free_port

PARTITIONS = 2


def ended_for_good(running: Trial, reason: str) -> bool:
    """Whether the control plane was told of that, and the process said that starting it again is no use."""
    told = [report for report in running.plane.reports if report.state == inference_pb2.INFERENCE_STATE_FAILED]
    return running.fleet.endings.codes[EXIT_FAILED] > 0 and any(reason in str(report.error) for report in told)


def test_a_zombie_whose_slot_is_taken_is_fenced_and_nothing_of_it_is_seen(kafka: KafkaSettings, tmp_path: Path) -> None:
    setting = Setting(Load(1, PARTITIONS, 500), replicas=0, max_rows=64, seconds=0.02)
    with trial(kafka, tmp_path, setting) as running, running.sending() as sending:
        eventually(lambda: sending.is_done, timeout_s=20)
        running.fleet.once[0] = "before_commit:stop@3"
        running.fleet.scale(1)

        def is_stopped() -> bool:
            process = running.fleet.process(0)
            return process is not None and process.status() == "stopped"

        eventually(is_stopped, timeout_s=30)
        zombie = running.fleet.freeze(0)
        eventually(lambda: running.is_committed, timeout_s=30)
        assert running.fleet.thaw(zombie).code == EXIT_FENCED
        verdict = running.finish()
    assert verdict.is_clean, verdict


def test_a_slot_that_dies_and_is_scaled_away_leaves_its_records_to_the_others(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    """Readers wait for its transaction until Kafka has ended it."""
    environment = {"HEADRACE_SESSION_TIMEOUT_MS": "2000", "HEADRACE_TRANSACTION_TIMEOUT_MS": "4000"}
    setting = Setting(Load(1, PARTITIONS, 300), replicas=2, max_rows=16, seconds=0.02, environment=environment)
    with trial(kafka, tmp_path, setting) as running, running.sending():
        running.await_count(100)
        eventually(lambda: len([one for one in running.plane.reports if one.slot == 1 and one.partitions]) > 0)
        process = running.fleet.process(1)
        assert process is not None
        process.suspend()
        running.fleet.scale(1)
        process.kill()
        verdict = running.finish()
    assert verdict.is_clean, verdict
    assert running.fleet.endings.killed == 1


@pytest.mark.parametrize(("interval_s", "batch_s"), [(3, 7), pytest.param(3, 30, marks=pytest.mark.chaos)])
def test_a_model_that_is_slower_than_the_poll_interval_keeps_its_partitions(
    kafka: KafkaSettings, tmp_path: Path, interval_s: float, batch_s: float
) -> None:
    interval = f"{interval_s * 1000:.0f}"
    environment = {"HEADRACE_SESSION_TIMEOUT_MS": interval, "HEADRACE_MAX_POLL_INTERVAL_MS": interval}
    setting = Setting(Load(1, PARTITIONS, 200), replicas=0, max_rows=1024, seconds=batch_s, environment=environment)
    with trial(kafka, tmp_path, setting) as running, running.sending() as sending:
        eventually(lambda: sending.is_done, timeout_s=20)
        running.fleet.scale(1)
        running.await_count(setting.load.total, timeout_s=60 + 3 * batch_s)
        logs = running.fleet.logs
        verdict = running.finish()
    assert verdict.is_clean, verdict
    assert running.fleet.endings.codes == {0: 1}
    assert "partitions assigned" in logs
    for trouble in ("partitions lost", "partitions revoked", "polled too late"):
        assert trouble not in logs


def test_an_offset_that_has_expired_stops_the_replica_and_nothing_is_skipped(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    setting = Setting(Load(1, PARTITIONS, 100), replicas=1)
    with trial(kafka, tmp_path, setting) as running:
        with BatchProducer(kafka) as producer:
            running.load.send(producer, running.source, 0, 50)
            running.await_count(PARTITIONS * 50)
            running.fleet.scale(0)
            eventually(lambda: running.fleet.endings.codes[0] == 1, timeout_s=20)
            running.load.send(producer, running.source, 50, 100)
        delete_before(kafka, running.source, 70, 1)
        running.fleet.scale(1)
        eventually(lambda: ended_for_good(running, "OFFSET_EXPIRED"), timeout_s=30)
        facts = running.plane.reports[-1].error
        assert f"stands at offset 50 of {running.source}/1, but the log there begins at 70" in facts.message
        verdict = running.finish(timeout_s=0)
    assert verdict.uncommitted
    assert not [
        one for one in running.reader.outcomes[running.targets[0]] if one.source[0] == 1 and one.source[1] >= 50
    ]


def test_a_topic_that_was_made_anew_while_no_replica_ran_is_not_taken_for_the_other(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    setting = Setting(Load(1, PARTITIONS, 20), replicas=0)
    with trial(kafka, tmp_path, setting) as running:
        inference = running.plane.inference
        inference.input_topic_id = topic_id(kafka, running.source)
        inference.start_offsets.update({0: 5, 1: 5})
        delete_topic(kafka, running.source)
        ensure_topics(kafka, {running.source: PARTITIONS})
        with BatchProducer(kafka) as producer:
            running.load.send(producer, running.source, 0, 20)
        running.fleet.scale(1)
        eventually(lambda: ended_for_good(running, "TOPIC_RECREATED"), timeout_s=30)
        running.finish(timeout_s=0)
    assert not running.reader.outcomes[running.targets[0]]


@pytest.mark.chaos
@pytest.mark.parametrize("is_idle", [False, True])
def test_a_broker_that_is_away_leaves_the_replica_alive_and_not_ready_until_it_is_back(
    own_broker: Callable[[], Broker], tmp_path: Path, is_idle: bool
) -> None:
    broker, port = own_broker(), free_port()
    environment = {"HEADRACE_METRICS_LISTEN": f"127.0.0.1:{port}", "HEADRACE_COMMIT_TIMEOUT_S": "5"}
    setting = Setting(Load(1, PARTITIONS, 4000), replicas=1, max_rows=64, seconds=0.1, environment=environment)

    def health(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    with trial(KafkaSettings(broker.bootstrap_servers), tmp_path, setting) as running, running.sending():
        eventually(lambda: health("readyz") == 200, timeout_s=30)
        running.await_count(running.load.total if is_idle else 1000)
        eventually(lambda: running.is_committed or not is_idle)
        broker.kill()
        eventually(lambda: health("readyz") == 503, timeout_s=60)
        assert health("healthz") == 200
        eventually(lambda: running.plane.reports[-1].state == inference_pb2.INFERENCE_STATE_DEGRADED)
        broker.start()
        broker.wait_ready()
        eventually(lambda: health("readyz") == 200, timeout_s=60)
        verdict = running.finish()
    assert verdict.is_clean, verdict
    assert running.fleet.endings.codes == {0: 1}


def test_answers_that_are_hidden_behind_a_transaction_are_told_until_it_ends(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    setting = Setting(Load(1, PARTITIONS, 200), replicas=1, environment={"HEADRACE_HIDDEN_AFTER_S": "1"})

    def last() -> inference_pb2.ReplicaState:
        report: inference_pb2.ReplicaState = eventually(lambda: running.plane.reports)[-1]
        return report

    with trial(kafka, tmp_path, setting) as running, TransactionalWriter(kafka, f"hanging-{tmp_path}") as hanging:
        output = running.plane.inference.output_topic
        hanging.begin()
        hanging.produce(output, None, b"never committed", partition=0)
        hanging.client.flush(10)
        with running.sending():
            eventually(lambda: running.is_committed, timeout_s=30)
        eventually(lambda: last().state == inference_pb2.INFERENCE_STATE_DEGRADED, timeout_s=30)
        assert "TRANSACTION_UNDECIDED" in str(last().error)
        assert output in last().error.message
        hanging.abort()
        eventually(lambda: last().ready, timeout_s=30)
        verdict = running.finish()
    assert verdict.is_clean, verdict


def test_offsets_in_a_transaction_that_does_not_end_are_waited_for_and_told(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    setting = Setting(Load(1, PARTITIONS, 200), replicas=0)
    with trial(kafka, tmp_path, setting) as running, TransactionalWriter(kafka, f"hanging-{tmp_path}") as hanging:
        with kafka.consumer({"group.id": running.group}) as consumer:
            hanging.begin()
            hanging.send_own_offsets([TopicPartition(running.source, 0, 7)], consumer)
        running.fleet.scale(1)
        with running.sending():
            eventually(lambda: "TRANSACTION_UNDECIDED" in str(running.plane.reports[-1:]), timeout_s=30)
            assert running.plane.reports[-1].error.message.startswith(f"the group {running.group!r} has offsets")
            hanging.abort()
            verdict = running.finish()
    assert running.fleet.endings.codes[EXIT_RETRY] == 1
    assert verdict.is_clean, verdict


def test_a_loop_that_stands_still_ends_tells_where_and_is_started_again(kafka: KafkaSettings, tmp_path: Path) -> None:
    setting = Setting(Load(1, PARTITIONS, 200), replicas=0, environment={"HEADRACE_STALL_S": "5"})
    with trial(kafka, tmp_path, setting) as running, running.sending():
        running.fleet.once[0] = "before_commit:hang"
        running.fleet.scale(1)
        eventually(lambda: running.fleet.endings.codes[EXIT_BUG], timeout_s=30)
        verdict = running.finish()
    assert re.search(r"Timeout \(0:00:05\)!(.*\n)+.* in _commit\n", running.fleet.last_words)
    assert verdict.bugs == 1
    verdict.forgive("bugs")
    assert verdict.is_clean, verdict


def test_weights_that_are_damaged_are_never_loaded(kafka: KafkaSettings, tmp_path: Path) -> None:
    with trial(kafka, tmp_path, Setting(Load(1, PARTITIONS, 10), replicas=0)) as running:
        first = running.plane.others[FIRST_RESULT]
        running.plane.others[FIRST_RESULT] = replace(first, damaged=True)
        running.fleet.scale(1)
        eventually(lambda: ended_for_good(running, "DIGEST_MISMATCH"), timeout_s=30)
        assert not running.reader.count


@pytest.mark.parametrize("wrong", ["np.squeeze(x)", "x[: max(1, len(x) - 1)]"])
def test_a_model_that_gives_another_number_of_rows_than_it_gets_is_refused_when_it_is_loaded(
    kafka: KafkaSettings, tmp_path: Path, wrong: str
) -> None:
    setting = Setting(Load(1, PARTITIONS, 10), replicas=1, template=f"model = lambda x: {wrong}")
    with trial(kafka, tmp_path, setting) as running, running.sending():
        eventually(lambda: ended_for_good(running, "SCHEMA_MISMATCH"), timeout_s=30)
        assert not running.reader.count
    assert "the first axis has to stay that of the rows" in running.plane.reports[-1].error.message


def test_an_input_that_is_bad_as_a_whole_stops_the_inference_without_a_dead_letter(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    load = Load(1, PARTITIONS, 100, {Kind.MALFORMED: 90})
    with trial(kafka, tmp_path, Setting(load, replicas=1)) as running, running.sending():
        eventually(lambda: ended_for_good(running, "SCHEMA_MISMATCH"), timeout_s=30)
        assert not running.reader.count


MB = 1_000_000
# A question that fits by a hair, without the headers that are added, and one of a topic that takes more than usual.
LARGE = {"the key": (b"k" * (MB - 100), b"x"), "the value": (b"k", b"x" * (2 * MB))}


@pytest.mark.parametrize("large", LARGE)
def test_a_record_that_is_too_large_for_a_dead_letter_leaves_one_that_tells_where_it_is(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path, large: str
) -> None:
    source = topic(max_message_bytes=str(4 * MB))
    ensure_topics(kafka, {source + ".dead-letters": 1})
    key, value = LARGE[large]
    with (
        trial(kafka, tmp_path, Setting(Load(1, 1, 5), replicas=1), source) as running,
        BatchProducer(kafka, settings={"message.max.bytes": 4 * MB}) as producer,
        TopicFollower(kafka, source + ".dead-letters", {}) as letters,
    ):
        producer.produce(source, key, value, [("n", b"0:0")], 0)
        running.load.send(producer, source, 0, 5)
        running.await_count(6, timeout_s=30)
        (letter,) = eventually(lambda: letters.read(0.5), timeout_s=10)
        headers = dict(headers_of(letter))
    assert headers["headrace-source"] == f"{source}/0/0".encode()
    assert headers["headrace-error"] == b"DECODE_ERROR"
    assert headers["headrace-cut"] == b"true"
    assert b"cut, its source has all of it" in (headers["headrace-error-message"] or b"")
    assert (letter.key(), letter.value()) == (None if large == "the key" else key, None)
