"""Whole trainers as processes, against a real broker and a control plane that is real from a trainer's point of view."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.v1 import model_pb2, stream_pb2
from headrace.v1.deployment_pb2 import FrameworkArguments, TrainingSettings
from streams.kafka import KafkaSettings
from tests.trainer import digits
from tests.trainer.platform import Platform, Trainer

KERAS, TORCH = model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH
EPOCHS = 3
STORY = ["STARTING", "WAITING", "READING", "TRAINING", "EVALUATING", "UPLOADING", "FINISHED"]


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


def settings(epochs: int = EPOCHS, **changes: object) -> TrainingSettings:
    chosen = TrainingSettings(
        batch_size=16,
        seed=11,
        tensorflow=FrameworkArguments(fit_args=f"epochs={epochs}, verbose=0"),
        pytorch=FrameworkArguments(fit_args=f"max_epochs={epochs}"),
    )
    chosen.MergeFrom(TrainingSettings(**changes))
    return chosen


@pytest.mark.parametrize("framework", [KERAS, TORCH], ids=["keras", "torch"])
def test_a_training_reports_everything_and_delivers_its_model(
    framework: "model_pb2.Framework",
    platform: Platform,
    kafka: KafkaSettings,
    stream: stream_pb2.Stream,
    tmp_path: Path,
) -> None:
    result = platform.create(framework, digits.CODE[framework], settings(confusion_matrix=True), stream)
    trainer = Trainer(platform, kafka.bootstrap_servers, tmp_path, result_id=result)
    assert trainer.wait() == 0, trainer.log.read_text()
    assert trainer.states == STORY
    assert trainer.epochs == list(range(1, EPOCHS + 1))
    outcome = trainer.outcome
    sizes = outcome.split_sizes
    assert (sizes.training, sizes.validation, sizes.test) == digits.split_sizes()
    assert set(outcome.metrics.splits) == {"training", "validation", "test"}
    assert sum(outcome.confusion_matrix.counts) == sizes.test
    assert outcome.stream == stream
