"""Inference by one replica of a running platform, against a bare consume-predict-produce loop with the same model.

The question topic is filled first. The rate of ours is taken from Kafka's own timestamps of the answers, first to
last, so that neither the start of processes nor the reading of the answers counts. The platform's other services run
beside both. A replica that begins with such a backlog imports the framework of its spare worker when it has caught up,
or after a minute, so that import is not in the rate.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks.baselines import KERAS_MODEL, SMALL_KERAS, SMALL_TORCH, TORCH_MODEL
from benchmarks.report import Ratio
from cli.home import PlatformState, read_state
from headrace.client import connect
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_pb2,
    inference_pb2,
    model_pb2,
    model_registry_pb2,
    result_collector_pb2,
    result_pb2,
    stream_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from sinks import RawSink
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, ensure_topics, log_ends
from streams.writer import StreamProducer

PARTITIONS = 4
ROUNDS = 3
LIMIT_S = 300.0
PORTS = ("--port", "--gateway-port", "--tensorflow-port", "--pytorch-port", "--logger-port", "--broker-port")


@dataclass(frozen=True)
class Served:
    """A model of this benchmark, and the bare loop with it."""

    framework: model_pb2.Framework
    code: str
    baseline: str
    """Its name in benchmarks.baselines."""
    dtype: str = "uint8"
    shape: tuple[int, ...] = (28, 28)

    @property
    def input_config(self) -> dict[str, str]:
        """Of its questions."""
        return {"data_type": self.dtype, "data_reshape": " ".join(map(str, self.shape))}

    def samples(self, rows: int) -> np.ndarray:
        """Random questions."""
        numbers = np.random.default_rng(0).integers(0, 256, (rows, *self.shape))
        return numbers.astype(self.dtype)


MODELS = {
    "keras": Served(model_pb2.FRAMEWORK_TENSORFLOW, KERAS_MODEL, "predict_keras"),
    "torch": Served(model_pb2.FRAMEWORK_PYTORCH, TORCH_MODEL, "predict_torch"),
    "keras small": Served(model_pb2.FRAMEWORK_TENSORFLOW, SMALL_KERAS, "predict_small_keras", "float32", (4,)),
    "torch small": Served(model_pb2.FRAMEWORK_PYTORCH, SMALL_TORCH, "predict_small_torch", "float32", (4,)),
}
GUARANTEES = {
    "AT_LEAST_ONCE": inference_pb2.GUARANTEE_AT_LEAST_ONCE,
    "EXACTLY_ONCE": inference_pb2.GUARANTEE_EXACTLY_ONCE,
}


def measure() -> list[Ratio]:
    """Rows per second of both, for both frameworks and both guarantees, with rows of 28×28."""
    what = "rows of 28×28 through Dense128-Dense10"
    return _rates(("keras", "torch"), 200_000, what, {"AT_LEAST_ONCE": "≥ 1.0 ×", "EXACTLY_ONCE": "≥ 0.9 ×"})


def measure_small() -> list[Ratio]:
    """The same with a model of four features, whose cost is that of handling records alone."""
    what = "rows of 4 numbers through Dense16-Dense3"
    return _rates(
        ("keras small", "torch small"), 400_000, what, {"AT_LEAST_ONCE": "≥ 0.8 ×", "EXACTLY_ONCE": "≥ 0.7 ×"}
    )


def _rates(names: Sequence[str], rows: int, what: str, targets: Mapping[str, str]) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as state:
        kafka = KafkaSettings(state.kafka)
        with connect(state.address, timeout_s=60) as channel:
            source = f"bench-{uuid.uuid4().hex[:8]}"
            fill(kafka, source, MODELS[names[0]].samples(min(rows, 1000)), rows)
            return [
                ratio
                for name in names
                for ratio in _ratios(kafka, channel, Questions(source, rows), name, Path(folder), what, targets)
            ]


@dataclass(frozen=True)
class Questions:
    """A topic that is filled."""

    topic: str
    rows: int


def fill(kafka: KafkaSettings, topic: str, samples: np.ndarray, rows: int) -> None:
    """Writes so many questions, the samples again and again, to all partitions in turn."""
    ensure_topics(kafka, {topic: PARTITIONS})
    values = [sample.tobytes() for sample in samples]
    with StreamProducer(kafka, topic) as producer:
        for row in range(rows):
            producer.send(row % PARTITIONS, bytes([row % 10]), values[row % len(values)])
        producer.flush()


@contextmanager
def platform(home: Path) -> Iterator[PlatformState]:
    """A whole platform on free ports."""
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    command = [sys.executable, "-P", "-m", "cli"]
    ports = [word for option in PORTS for word in (option, "0")]
    subprocess.run([*command, "up", "--detach", *ports], env=environment, check=True, capture_output=True)
    try:
        state = read_state(home)
        assert state is not None
        yield state
    finally:
        subprocess.run([*command, "down"], env=environment, check=True, capture_output=True)


def _ratios(
    kafka: KafkaSettings,
    channel: grpc.Channel,
    questions: Questions,
    name: str,
    folder: Path,
    what: str,
    targets: Mapping[str, str],
) -> list[Ratio]:
    """Of each guarantee; in every round all of them and the bare loop run in turn."""
    result = trained(kafka, channel, name)
    weights = download(channel, result, folder)
    bare: list[float] = []
    ours: dict[str, list[float]] = {guarantee: [] for guarantee in targets}
    for _ in range(ROUNDS):
        bare.append(_bare(kafka, questions, MODELS[name].baseline, weights))
        for guarantee, rates in ours.items():
            rates.append(_ours(kafka, channel, questions, name, result.id, guarantee))
    return [
        Ratio(
            f"answering {questions.rows:,} {what}, {name}, one replica, {guarantee},"
            " against a bare consume-predict-produce loop with the same model",
            f"{statistics.median(rates):,.0f} rows/s",
            f"{statistics.median(bare):,.0f} rows/s",
            tuple(mine / theirs for mine, theirs in zip(rates, bare, strict=True)),
            targets[guarantee],
        )
        for guarantee, rates in ours.items()
    ]


def trained(kafka: KafkaSettings, channel: grpc.Channel, name: str) -> result_pb2.Result:
    """A result of one epoch on a few rows: what it learned does not matter here."""
    registry, manager = ModelRegistryStub(channel), DeploymentManagerStub(channel)
    served = MODELS[name]
    unique = f"{name.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
    model = registry.CreateModel(
        model_registry_pb2.CreateModelRequest(
            model=model_pb2.Model(name=unique, framework=served.framework, code=served.code)
        ),
        timeout=120,
    )
    wish = configuration_pb2.Configuration(name=unique, model_ids=[model.id])
    configuration = registry.CreateConfiguration(model_registry_pb2.CreateConfigurationRequest(configuration=wish))
    deployment = manager.CreateDeployment(
        deployment_manager_pb2.CreateDeploymentRequest(
            deployment=deployment_pb2.Deployment(configuration_id=configuration.id)
        ),
        timeout=60,
    )
    with RawSink(kafka.bootstrap_servers, f"train-{unique}", deployment.id) as sink:
        sink.send_batch(served.samples(200), np.arange(200, dtype=np.uint8) % 3)
    return await_result(channel, deployment.result_ids[0])


def await_result(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    """The result once it is FINISHED."""
    deadline = time.monotonic() + LIMIT_S
    request = result_collector_pb2.GetResultRequest(id=result_id)
    while time.monotonic() < deadline:
        result: result_pb2.Result = ResultCollectorStub(channel).GetResult(request)
        if result.state == deployment_pb2.STATE_FINISHED:
            return result
        assert result.state != deployment_pb2.STATE_FAILED, result.error
        time.sleep(0.5)
    raise AssertionError("the training did not end")


def download(channel: grpc.Channel, result: result_pb2.Result, folder: Path) -> Path:
    request = result_collector_pb2.DownloadArtifactRequest(result_id=result.id, name=result.artifacts[0].name)
    path = folder / f"{result.id}-{result.artifacts[0].name}"
    path.write_bytes(b"".join(chunk.data for chunk in ResultCollectorStub(channel).DownloadArtifact(request)))
    return path


@contextmanager
def answering(
    kafka: KafkaSettings, channel: grpc.Channel, source: str, name: str, result_id: int, guarantee: str
) -> Iterator[inference_pb2.Inference]:
    """One replica that answers the topic from its first record on, to a topic of its own."""
    manager = DeploymentManagerStub(channel)
    target = f"answers-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS})
    wish = inference_pb2.Inference(
        name=target,
        result_id=result_id,
        input_topic=source,
        output_topic=target,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config=MODELS[name].input_config,
        guarantee=GUARANTEES[guarantee],
        start=inference_pb2.START_POSITION_EARLIEST,
    )
    created = manager.CreateInference(deployment_manager_pb2.CreateInferenceRequest(inference=wish), timeout=60)
    try:
        yield created
    finally:
        manager.DeleteInference(deployment_manager_pb2.DeleteInferenceRequest(id=created.id, force=True), timeout=60)


def _ours(
    kafka: KafkaSettings, channel: grpc.Channel, questions: Questions, name: str, result_id: int, guarantee: str
) -> float:
    with answering(kafka, channel, questions.topic, name, result_id, guarantee) as inference:
        return _answer_rate(kafka, inference.output_topic, questions.rows)


def _answer_rate(kafka: KafkaSettings, target: str, rows: int) -> float:
    """Answers per second by their timestamps; every question has exactly one.

    They are read when they are there: a reader beside it would take a part of the machine. The ends of the log, which
    tell when, also count the markers of transactions, so the last answers may still come while it is read.
    """
    deadline = time.monotonic() + LIMIT_S
    while sum(ends.stable - ends.low for ends in log_ends(kafka, target).values()) < rows:
        assert time.monotonic() < deadline, f"not {rows} answers in time"
        time.sleep(0.5)
    times: list[int] = []
    with TopicFollower(kafka, target, {}) as follower:
        while len(times) < rows:
            assert time.monotonic() < deadline, f"{len(times)} answers for {rows} questions"
            times += [message.timestamp()[1] for message in follower.read(1.0, 5000)]
        times += [message.timestamp()[1] for message in follower.read(1.0, 5000)]
    assert len(times) == rows, f"{len(times)} answers for {rows} questions"
    return (rows - 1) * 1000 / (max(times) - min(times))


def _bare(kafka: KafkaSettings, questions: Questions, baseline: str, weights: Path) -> float:
    target = f"bare-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS})
    done = subprocess.run(
        bare_command(kafka, baseline, questions.topic, target, questions.rows, weights),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def bare_command(kafka: KafkaSettings, baseline: str, source: str, target: str, rows: int, weights: Path) -> list[str]:
    """A process with the bare loop, which ends after so many rows."""
    command = [sys.executable, "-m", "benchmarks.baselines", baseline, kafka.bootstrap_servers, source, target]
    return [*command, str(rows), str(weights)]
