"""Whole trainers as processes: a real broker, real workers, and a control plane that is one to a trainer.

Trainers that have nothing to do with each other run side by side: most of their time is the import of a framework.
"""

import hashlib
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from confluent_kafka import TopicPartition

from cli.broker import Broker
from headrace.errors import from_status
from headrace.process import EXIT_FENCED
from headrace.v1 import model_pb2, stream_pb2
from headrace.v1.deployment_pb2 import FrameworkArguments, TrainingSettings
from streams.kafka import KafkaSettings, ensure_topics
from tests.support import eventually, free_port
from tests.trainer import digits
from tests.trainer.platform import Platform, Trainer

KERAS, TORCH = model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH
EPOCHS = 3
MEMORY = 1500 * 2**20
LONG_S = 180.0  # a framework is imported in seconds, but on a busy machine in minutes
STORY = ["STARTING", "WAITING", "READING", "TRAINING", "EVALUATING", "UPLOADING", "FINISHED"]
FAILPOINTS = (
    "after_hello",
    "before_read",
    "after_spool",
    "before_fit",
    "after_epoch",
    "before_upload",
    "after_upload",
    "before_finish",
)
TRAINED_BEFORE = ["STARTING", "UPLOADING", "FINISHED"]

Start = Callable[..., Trainer]


@pytest.fixture
def start(platform: Platform, kafka: KafkaSettings, tmp_path: Path) -> Iterator[Start]:
    """Starts the first attempt at a new result: `start(framework, stream, code=…, **settings)`."""
    started: list[Trainer] = []

    def new(
        framework: "model_pb2.Framework",
        stream: stream_pb2.Stream | None,
        *,
        code: str = "",
        environ: dict[str, str] | None = None,
        kafka_servers: str = kafka.bootstrap_servers,
        **changes: Any,
    ) -> Trainer:
        code = code or digits.CODE[framework]
        result = platform.create(framework, code, settings(**changes), stream)
        home = tmp_path / f"result-{result}"
        trainer = Trainer(platform, kafka_servers, home, result_id=result, environ=environ)
        started.append(trainer)
        return trainer

    yield new
    for trainer in started:
        with suppress(psutil.NoSuchProcess):
            trainer.process.kill()


def settings(epochs: int = EPOCHS, **changes: Any) -> TrainingSettings:
    chosen = TrainingSettings(
        batch_size=16,
        seed=11,
        tensorflow=FrameworkArguments(fit_args=f"epochs={epochs}, verbose=0"),
        pytorch=FrameworkArguments(fit_args=f"max_epochs={epochs}"),
    )
    chosen.MergeFrom(TrainingSettings(**changes))
    return chosen


def reason(trainer: Trainer) -> str:
    """Why the attempt ended, as its last event says."""
    return from_status(trainer.events[-1].state_change.error).reason_name


def expect_complete(trainer: Trainer, platform: Platform) -> None:
    """Every epoch once, every number, and the very model that the artifact's digest names."""
    assert trainer.wait() == 0, trainer.log.read_text()
    assert trainer.states[-1] == "FINISHED"
    assert trainer.epochs == list(range(1, EPOCHS + 1))
    sizes = trainer.outcome.split_sizes
    assert (sizes.training, sizes.validation, sizes.test) == digits.split_sizes()
    assert set(trainer.outcome.metrics.splits) == {"training", "validation", "test"}
    (digest,) = {artifact.sha256 for artifact in platform.recorded[trainer.result_id]}
    assert hashlib.sha256(platform.artifacts[digest]).hexdigest() == digest


def test_both_frameworks_train_and_report_everything_though_the_collector_is_away_meanwhile(
    start: Start, platform: Platform, stream: stream_pb2.Stream
) -> None:
    slow = {"HEADRACE_FAIL": "after_epoch:delay@1=1"}
    trainers = [start(framework, stream, confusion_matrix=True, environ=slow) for framework in (KERAS, TORCH)]
    eventually(lambda: any(trainer.epochs for trainer in trainers), timeout_s=LONG_S)
    platform.stop()
    platform.start()
    for trainer in trainers:
        expect_complete(trainer, platform)
        assert trainer.states == STORY
        told = [event.progress for event in trainer.events if event.HasField("progress")][-1]
        assert (told.epoch, told.records_read, told.records_total) == (EPOCHS, digits.ROWS, digits.ROWS)
        outcome = trainer.outcome
        assert outcome.stream.ranges == stream.ranges
        assert outcome.stream.input_config == {**stream.input_config, "label_reshape": "1"}
        assert outcome.settings.seed == 11
        assert outcome.sandbox_level == "process"
        assert outcome.framework_version
        assert outcome.training_time.ToNanoseconds() > 0
        assert outcome.reading_time.ToNanoseconds() > 0
        assert sum(outcome.confusion_matrix.counts) == outcome.split_sizes.test
        assert [list(spec.shape) for spec in outcome.signature.inputs] == [[-1, 64]]
        assert [list(spec.shape) for spec in outcome.signature.outputs] == [[-1, 10]]
        assert (outcome.roc.split, outcome.roc.row_count) == ("test", outcome.split_sizes.test)
        assert len(outcome.roc.curves) == 10
    assert not list(trainers[0].home.glob("work/records")), "the spool takes no room any more"


@pytest.mark.parametrize("framework", [pytest.param(KERAS, marks=pytest.mark.chaos), TORCH], ids=["keras", "torch"])
def test_a_trainer_that_is_killed_anywhere_is_finished_by_the_next_attempts(
    framework: "model_pb2.Framework", start: Start, platform: Platform, stream: stream_pb2.Stream, tmp_path: Path
) -> None:
    fails = ",".join(f"{name}:exit" for name in FAILPOINTS)
    environ = {"HEADRACE_FAIL": fails, "HEADRACE_FAIL_FOLDER": str(tmp_path)}
    trainer = start(framework, stream, environ=environ)
    for _ in FAILPOINTS:
        assert trainer.wait() == -signal.SIGKILL, trainer.log.read_text()
        eventually(lambda: not trainer.leftovers())  # noqa: B023
        trainer = trainer.again(environ)
    expect_complete(trainer, platform)
    assert trainer.states == TRAINED_BEFORE, "what was trained is only delivered"


@pytest.mark.parametrize("framework", [pytest.param(KERAS, marks=pytest.mark.chaos), TORCH], ids=["keras", "torch"])
def test_a_worker_that_is_killed_is_worth_another_attempt_and_no_more_reading(
    framework: "model_pb2.Framework", start: Start, platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream
) -> None:
    trainer = start(framework, stream, environ={"HEADRACE_FAIL": "after_epoch:delay@1=1"})
    eventually(lambda: trainer.epochs, timeout_s=LONG_S)
    trainer.worker().kill()
    assert trainer.wait() == 75
    assert trainer.states[-1] == "STARTING"
    assert reason(trainer) == "WORKER_CRASHED"
    delete_records(kafka, stream, 50)
    expect_complete(trainer.again(), platform)


@pytest.mark.chaos
@pytest.mark.parametrize("framework", [KERAS, TORCH], ids=["keras", "torch"])
def test_a_broker_that_dies_once_the_records_are_read_costs_a_training_nothing(
    framework: "model_pb2.Framework", start: Start, platform: Platform, own_broker: Callable[[], Broker]
) -> None:
    broker = own_broker()
    kafka = KafkaSettings(broker.bootstrap_servers)
    ensure_topics(kafka, {"records": 2})
    stream = digits.stream_of("records", digits.send(kafka, "records", 2, digits.records()))
    trainer = start(
        framework,
        stream,
        kafka_servers=broker.bootstrap_servers,
        confusion_matrix=True,
        environ={"HEADRACE_FAIL": "before_fit:delay@1=1"},
    )
    eventually(lambda: "TRAINING" in trainer.states, timeout_s=LONG_S)
    broker.kill()
    expect_complete(trainer, platform)


@pytest.mark.chaos
def test_an_attempt_that_was_frozen_while_a_newer_one_trained_changes_nothing(
    start: Start, platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path: Path
) -> None:
    frozen = start(TORCH, stream, environ={"HEADRACE_FAIL": "after_epoch:delay@1=1"})
    eventually(lambda: frozen.epochs, timeout_s=LONG_S)
    frozen.process.send_signal(signal.SIGSTOP)
    elsewhere = tmp_path / "another-machine"
    newer = Trainer(platform, kafka.bootstrap_servers, elsewhere, result_id=frozen.result_id, attempt=2)
    expect_complete(newer, platform)
    told = newer.events
    frozen.process.send_signal(signal.SIGCONT)
    assert frozen.wait() == EXIT_FENCED
    assert (newer.events, newer.epochs) == (told, list(range(1, EPOCHS + 1)))


def delete_records(kafka: KafkaSettings, stream: stream_pb2.Stream, before: int) -> None:
    topic = stream.ranges[0].topic
    admin = kafka.admin()
    for deleted in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        deleted.result(30)


def test_what_is_wrong_with_a_stream_fails_its_training(
    start: Start, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    def written(bad: list[tuple[bytes, bytes]] | None = None, **changes: Any) -> stream_pb2.Stream:
        name = topic()
        messages = [*digits.records(20), *(bad or [])]
        return digits.stream_of(name, digits.send(kafka, name, 1, messages), **changes)

    expired = written()
    delete_records(kafka, expired, 5)
    unfinished = written()
    unfinished.ranges[0].end += 1
    unknown = written()
    unknown.ranges[0].topic += "-unknown"
    endless = written(open_topics=["sensors"])
    del endless.ranges[:]
    recreated = written()
    recreated.topic_ids[recreated.ranges[0].topic] = "another"
    cases = {
        "DATA_EXPIRED": expired,
        "DATA_INCOMPLETE": unfinished,
        "UNKNOWN_TOPIC": unknown,
        "TOPIC_RECREATED": recreated,
        "DECODE_ERROR": written([(b"\0", b"short")]),
        "COUNT_MISMATCH": written(record_count=99),
        "EMPTY_STREAM": written(validation_rate=0.7, test_rate=0.3),
        "NOT_YET": endless,
    }
    away = start(TORCH, expired, kafka_servers=f"127.0.0.1:{free_port()}")
    empty = written()
    empty.ranges[0].start = empty.ranges[0].end
    empty.ClearField("record_count")
    of_nothing = start(TORCH, empty)
    tolerant = start(TORCH, written([(b"\0", b"short")]), decode_error_limit=0.1)
    trainers = {wanted: start(TORCH, stream) for wanted, stream in cases.items()}
    trainers["SPOOL_LIMIT"] = start(TORCH, written(), environ={"HEADRACE_SPOOL_LIMIT_BYTES": "1000"})
    for wanted, trainer in trainers.items():
        assert (trainer.wait(), trainer.states[-1], reason(trainer)) == (10, "FAILED", wanted)
        assert not list(trainer.home.glob("work/records"))
    assert (tolerant.wait(), tolerant.outcome.decode_error_count) == (0, 1)
    assert trainers["DECODE_ERROR"].outcome.decode_error_count == 1
    assert (of_nothing.wait(), of_nothing.states[-1], reason(of_nothing)) == (10, "FAILED", "EMPTY_STREAM")
    assert (away.wait(), away.states[-1], reason(away)) == (75, "STARTING", "KAFKA_UNAVAILABLE")


BROKEN_STEP = digits.TORCH.replace("return self.layers(x)", "return self.layers(x) / (1 // 0)")
NAN = digits.TORCH.replace("lr=0.01", "lr=1e30").replace("nn.ReLU()", "nn.Identity()")
NARROW = digits.KERAS.replace("64", "63")
ENDLESS = "import time; time.sleep(600)"
NAMED_AT_LENGTH = digits.TORCH.replace('"accuracy"', '"x" * 1000')
LEAVING = digits.TORCH.replace("return self.layers(x)", "import os; os._exit(0)")
GREEDY = digits.TORCH.replace("return self.layers(x)", "kept = [bytearray(2**24) for _ in range(1000)]; return x")


def test_what_is_wrong_with_a_model_fails_its_training(
    start: Start, stream: stream_pb2.Stream, platform: Platform
) -> None:
    trainers = {
        "CODE_ERROR": start(TORCH, stream, code=BROKEN_STEP),
        "SCHEMA_MISMATCH": start(KERAS, stream, code=NARROW),
        "NAN_LOSS": start(TORCH, stream, code=NAN, checkpoint_interval={"nanos": 1}),
        "DEADLINE": start(TORCH, stream, code=ENDLESS, deadline={"seconds": 1}),
        "UNKNOWN_ARGUMENT": start(TORCH, stream, pytorch=FrameworkArguments(fit_args="max_epoch=3")),
        "INVALID_FIELD": start(TORCH, stream, pytorch=FrameworkArguments(fit_args="max_epochs=0")),
        "OUT_OF_MEMORY": start(TORCH, stream, code=GREEDY, environ={"HEADRACE_WORKER_MEMORY_BYTES": str(MEMORY)}),
    }
    for wanted, trainer in trainers.items():
        assert (trainer.wait(), trainer.states[-1], reason(trainer)) == (10, "FAILED", wanted)
    mismatch = trainers["SCHEMA_MISMATCH"].events[-1].state_change.error
    assert {"63", "64"} <= set(mismatch.message.replace(")", " ").replace(",", " ").split())
    assert trainers["SCHEMA_MISMATCH"].epochs == []
    invalid = trainers["INVALID_FIELD"].events[-1].state_change.error
    assert "`max_epochs` must be a whole number from 1, not 0" in invalid.message
    greedy = from_status(trainers["OUT_OF_MEMORY"].events[-1].state_change.error)
    assert int(greedy.metadata["limit_bytes"]) == MEMORY
    assert int(greedy.metadata["peak_bytes"]) > MEMORY
    check_last_finite_is_kept(trainers["NAN_LOSS"], platform)


def check_last_finite_is_kept(trainer: Trainer, platform: Platform) -> None:
    assert from_status(trainer.events[-1].state_change.error).metadata["step"] == "2"
    (kept,) = platform.recorded[trainer.result_id]
    header, arrays = read_checkpoint(platform.artifacts[kept.sha256])
    assert (kept.name, header["epoch"], header["step"]) == ("last_finite.checkpoint", 0, 1)
    weights = [one.view(np.float32) for one in arrays if one.nbytes == 64 * 16 * 4]
    assert weights
    assert all(np.isfinite(one).all() for one in weights)


def read_checkpoint(data: bytes) -> tuple[Any, list[Any]]:
    """As docs/training.md says."""
    chapter = Path("docs/training.md").read_text().partition("last_finite.checkpoint")[2]
    example = chapter.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {"data": data}
    exec(example, found)
    return found["header"], found["arrays"]


@pytest.mark.chaos
def test_code_that_leaves_or_reports_without_end_fails_its_training(start: Start, stream: stream_pb2.Stream) -> None:
    leaving, wordy = (start(TORCH, stream, code=code) for code in (LEAVING, NAMED_AT_LENGTH))
    assert (leaving.wait(), leaving.states[-1], reason(leaving)) == (75, "STARTING", "WORKER_CRASHED")
    assert (wordy.wait(), wordy.states[-1], reason(wordy)) == (10, "FAILED", "OUTPUT_LIMIT")


def test_a_failure_that_nobody_heard_is_told_by_the_next_attempt(
    start: Start, platform: Platform, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic()
    stream = digits.stream_of(name, digits.send(kafka, name, 1, [(b"\0", b"short")]))
    environ = {"HEADRACE_FAIL": "before_read:delay@1=2", "HEADRACE_PATIENCE_S": "1"}
    trainer = start(TORCH, stream, environ=environ)
    eventually(lambda: "READING" in trainer.states)
    platform.stop()
    assert trainer.wait() == 75
    platform.start()
    again = trainer.again()
    assert (again.wait(), again.states, reason(again)) == (10, ["FAILED"], "DECODE_ERROR")


def test_an_attempt_that_a_newer_one_has_overtaken_ends_at_once(start: Start, platform: Platform) -> None:
    trainer = start(TORCH, None)
    platform.newest_attempts[trainer.result_id] = 2
    assert trainer.wait() == 11


def test_a_control_plane_that_never_answers_is_worth_another_attempt(start: Start, platform: Platform) -> None:
    platform.stop()
    assert start(TORCH, None, environ={"HEADRACE_PATIENCE_S": "0.5"}).wait() == 75


SPAWNING = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"


def test_a_stopped_trainer_leaves_no_process_and_reports_no_end(start: Start, stream: stream_pb2.Stream) -> None:
    trainer = start(TORCH, stream, code=SPAWNING)

    def spawned() -> bool:
        assert any(child.name() == "sleep" for child in trainer.tree()), trainer.log.read_text()
        return True

    eventually(spawned, timeout_s=LONG_S)
    assert trainer.leftovers()
    trainer.process.terminate()
    assert trainer.wait(timeout_s=4) == 0
    eventually(lambda: not trainer.leftovers())
    assert "FAILED" not in trainer.states
