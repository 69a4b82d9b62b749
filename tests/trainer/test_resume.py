"""Trainers and workers that are killed: what they deliver in the end is what an undisturbed one delivers."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.v1 import model_pb2, result_pb2, stream_pb2
from headrace.v1.deployment_pb2 import FrameworkArguments, TrainingSettings
from headrace.v1.result_collector_pb2 import ListEpochsRequest
from streams.kafka import KafkaSettings
from tests.support import eventually
from tests.trainer import digits
from tests.trainer.platform import Platform, Trainer

EPOCHS = 4
# The short run; the long one is in parts by seed: HEADRACE_CHAOS_SEED=3 HEADRACE_CHAOS_RUNS=10 make chaos.
LONG_RUNS = int(os.environ.get("HEADRACE_CHAOS_RUNS", "5"))
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))
CODE = {
    model_pb2.FRAMEWORK_PYTORCH: digits.TORCH.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.2)"),
    model_pb2.FRAMEWORK_TENSORFLOW: digits.KERAS.replace("layers.Dense(10)", "layers.Dropout(0.2), layers.Dense(10)"),
}
TORCH, KERAS = CODE


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    platform.start()
    yield platform
    platform.stop()


@pytest.fixture
def stream(kafka: KafkaSettings, topic: Callable[..., str]) -> stream_pb2.Stream:
    name = topic(partitions=2)
    return digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))


def first_attempt(
    platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream, home: Path, framework: int, fail: str = ""
) -> Trainer:
    settings = TrainingSettings(
        batch_size=16,
        seed=11,
        tensorflow=FrameworkArguments(fit_args=f"epochs={EPOCHS}, verbose=0"),
        pytorch=FrameworkArguments(fit_args=f"max_epochs={EPOCHS}"),
    )
    settings.checkpoint_interval.nanos = 1  # after every step
    result_id = platform.create(framework, CODE[framework], settings, stream)  # type: ignore[arg-type,index]
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
    undisturbed = first_attempt(platform, kafka, stream, tmp_path / "a", TORCH)
    fail = "after_checkpoint:exit@5,after_epoch:exit@2"
    trainer = first_attempt(platform, kafka, stream, tmp_path / "b", TORCH, fail)
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


@pytest.mark.chaos
@pytest.mark.parametrize("run", range(SEED * 1000, SEED * 1000 + LONG_RUNS))
@pytest.mark.parametrize("framework", [TORCH, KERAS], ids=["pytorch", "tensorflow"])
def test_kills_at_random_moments_change_nothing(
    platform: Platform, kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path: Path, run: int, framework: int
) -> None:
    """Five kills a run, of the trainer or of the worker, after a number of checkpoints that the seed draws."""
    chance = random.Random(run)
    undisturbed = first_attempt(platform, kafka, stream, tmp_path / "a", framework)
    assert undisturbed.wait() == 0, undisturbed.log.read_text()
    trainer = first_attempt(platform, kafka, stream, tmp_path / "b", framework)
    for _ in range(5):
        kill(trainer, chance)
        trainer.wait()
        eventually(lambda: not trainer.leftovers())  # noqa: B023
        if trainer.process.returncode == 0:
            break
        trainer = trainer.again()
    assert trainer.wait() == 0, trainer.log.read_text()
    assert epochs(platform, trainer.result_id) == epochs(platform, undisturbed.result_id)
    if framework == TORCH:  # The container of Keras' files holds the time.
        assert delivered(platform, trainer) == delivered(platform, undisturbed)


def kill(trainer: Trainer, chance: random.Random) -> None:
    """One of the two, somewhere between the start of the training and its end."""
    checkpoints = trainer.home / "work" / "checkpoints"
    seen = set(checkpoints.glob("*.checkpoint"))
    eventually(
        lambda: trainer.process.poll() is not None or set(checkpoints.glob("*.checkpoint")) - seen,
        timeout_s=180,
        every_s=chance.uniform(0.001, 0.3),
    )
    try:
        (trainer.worker() if chance.random() < 0.5 else psutil.Process(trainer.process.pid)).kill()
    except (psutil.NoSuchProcess, StopIteration):
        return  # It has ended before.
