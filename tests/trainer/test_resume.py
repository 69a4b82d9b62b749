"""Trainers and workers that are killed: what they deliver in the end is what an undisturbed one delivers."""

import signal
from pathlib import Path

from headrace.v1 import model_pb2, result_pb2, stream_pb2
from headrace.v1.deployment_pb2 import FrameworkArguments, TrainingSettings
from headrace.v1.result_collector_pb2 import ListEpochsRequest
from streams.kafka import KafkaSettings
from tests.support import eventually
from tests.trainer import digits
from tests.trainer.platform import Platform, Trainer

EPOCHS = 4
CODE = digits.RANDOM[model_pb2.FRAMEWORK_PYTORCH]
SLOW = CODE.replace("return self", "import time; time.sleep(0.03); return self")


def first_attempt(
    platform: Platform,
    kafka: KafkaSettings,
    stream: stream_pb2.Stream,
    home: Path,
    code: str,
    fail: str = "",
    *,
    checkpoint_interval_s: int = 0,
) -> Trainer:
    settings = TrainingSettings(
        batch_size=16,
        seed=11,
        pytorch=FrameworkArguments(fit_args=f"max_epochs={EPOCHS}"),
    )
    settings.checkpoint_interval.FromNanoseconds(checkpoint_interval_s * 10**9 + 1)  # 1: after every step
    result_id = platform.create(model_pb2.FRAMEWORK_PYTORCH, code, settings, stream)
    environ = {"HEADRACE_FAIL": fail, "HEADRACE_FAIL_FOLDER": str(home / "fired")}
    (home / "fired").mkdir(parents=True)
    return Trainer(platform, kafka.bootstrap_servers, home, result_id=result_id, environ=environ)


def epochs(platform: Platform, result_id: int) -> list[tuple[int, int, result_pb2.SplitMetrics]]:
    stored = platform.ListEpochs(ListEpochsRequest(result_id=result_id), None).epochs
    return [(epoch.number, epoch.step, epoch.metrics) for epoch in stored]


def delivered(platform: Platform, trainer: Trainer) -> tuple[list[tuple[int, int, result_pb2.SplitMetrics]], str]:
    """Epochs as they are stored, and the digest of the weights."""
    (artifact,) = platform.recorded[trainer.result_id]
    return epochs(platform, trainer.result_id), artifact.sha256


def test_killed_and_stopped_attempts_cost_no_step_and_change_nothing(
    platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path: Path
) -> None:
    undisturbed = first_attempt(platform, kafka, stream, tmp_path / "a", CODE)
    fail = "after_checkpoint:exit@5,after_epoch:exit@2"
    trainer = first_attempt(platform, kafka, stream, tmp_path / "b", CODE, fail)
    environ = {"HEADRACE_FAIL": fail, "HEADRACE_FAIL_FOLDER": str(tmp_path / "b" / "fired")}
    for _ in range(2):
        assert trainer.wait() == -signal.SIGKILL, trainer.log.read_text()
        eventually(lambda: not trainer.leftovers())  # noqa: B023
        trainer = trainer.again(environ)
    assert (undisturbed.wait(), trainer.wait()) == (0, 0), trainer.log.read_text()
    assert "from_step=" in trainer.log.read_text()
    told = [event.epoch.number for attempt in (1, 2, 3) for event in platform.events(attempt, trainer.result_id)
            if event.HasField("epoch")]  # fmt: skip
    assert told == list(range(1, EPOCHS + 1)), "each is told once, by whichever attempt"
    assert delivered(platform, trainer) == delivered(platform, undisturbed)
    assert not list((tmp_path / "b").glob("work/checkpoints")), "they take no room any more"


def test_a_trainer_that_is_asked_to_stop_writes_down_where_it_is(
    platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path: Path
) -> None:
    undisturbed = first_attempt(platform, kafka, stream, tmp_path / "a", SLOW, checkpoint_interval_s=3600)
    trainer = first_attempt(platform, kafka, stream, tmp_path / "b", SLOW, checkpoint_interval_s=3600)
    eventually(lambda: trainer.epochs, timeout_s=60)
    trainer.process.terminate()
    assert trainer.wait() == 0
    assert list((tmp_path / "b").glob("work/checkpoints/*.checkpoint"))
    again = trainer.again()
    assert (undisturbed.wait(), again.wait()) == (0, 0), again.log.read_text()
    began = [event.progress for event in again.events if event.HasField("progress")]
    assert next(place for place in began if place.steps).epoch >= 1
    assert delivered(platform, again) == delivered(platform, undisturbed)
