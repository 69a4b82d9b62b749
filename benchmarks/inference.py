"""Inference by one replica of a running platform, against a bare consume-predict-produce loop with the same model.

The question topic is filled first. The rate of ours is taken from Kafka's own timestamps of the answers, first to
last, so that neither the start of processes nor the reading of the answers counts. The platform's other services run
beside both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from benchmarks.baselines import KERAS_MODEL, TORCH_MODEL
from benchmarks.reading import fill, stream_of
from benchmarks.report import Ratio, paired
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
from streams.kafka import KafkaSettings, ensure_topics

ROWS = 100_000
PARTITIONS = 4
PAIRS = 3
LIMIT_S = 300.0
PORTS = ("--port", "--gateway-port", "--tensorflow-port", "--pytorch-port", "--logger-port", "--broker-port")
MODELS = {
    "keras": (model_pb2.FRAMEWORK_TENSORFLOW, KERAS_MODEL, "predict_keras"),
    "torch": (model_pb2.FRAMEWORK_PYTORCH, TORCH_MODEL, "predict_torch"),
}
GUARANTEES = {
    "AT_LEAST_ONCE": (inference_pb2.GUARANTEE_AT_LEAST_ONCE, "≥ 1.0 ×"),
    "EXACTLY_ONCE": (inference_pb2.GUARANTEE_EXACTLY_ONCE, "≥ 0.9 ×"),
}


def measure() -> list[Ratio]:
    """Rows per second of both, for both frameworks and both guarantees."""
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as state:
        kafka = KafkaSettings(state.kafka)
        source = f"bench-{uuid.uuid4().hex[:8]}"
        fill(kafka, source, ROWS)
        with connect(state.address, timeout_s=60) as channel:
            return [
                _ratio(kafka, channel, source, name, guarantee, Path(folder))
                for name in MODELS
                for guarantee in GUARANTEES
            ]


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


def _ratio(kafka: KafkaSettings, channel: grpc.Channel, source: str, name: str, guarantee: str, folder: Path) -> Ratio:
    _, _, baseline = MODELS[name]
    result = trained(kafka, channel, name)
    weights = download(channel, result, folder)
    pairs = paired(
        lambda: _ours(kafka, channel, source, result.id, guarantee),
        lambda: _bare(kafka, source, baseline, weights),
        PAIRS,
    )
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(
        f"answering {ROWS:,} rows of 28×28 through Dense128-Dense10, {name}, one replica, {guarantee},"
        " against a bare consume-predict-produce loop with the same model",
        f"{ours:,.0f} rows/s",
        f"{bare:,.0f} rows/s",
        tuple(mine / theirs for mine, theirs in pairs),
        GUARANTEES[guarantee][1],
    )


def trained(kafka: KafkaSettings, channel: grpc.Channel, name: str) -> result_pb2.Result:
    """A result of one epoch on a few rows: what it learned does not matter here."""
    registry, manager = ModelRegistryStub(channel), DeploymentManagerStub(channel)
    framework, code, _ = MODELS[name]
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    model = registry.CreateModel(
        model_registry_pb2.CreateModelRequest(model=model_pb2.Model(name=unique, framework=framework, code=code)),
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
    samples = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
    with RawSink(kafka.bootstrap_servers, f"train-{unique}", deployment.id) as sink:
        sink.send_batch(samples, np.arange(200, dtype=np.uint8) % 10)
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


def _ours(kafka: KafkaSettings, channel: grpc.Channel, source: str, result_id: int, guarantee: str) -> float:
    manager = DeploymentManagerStub(channel)
    target = f"answers-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS})
    stream = stream_of([], 0)
    wish = inference_pb2.Inference(
        name=target,
        result_id=result_id,
        input_topic=source,
        output_topic=target,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config=dict(stream.input_config),
        guarantee=GUARANTEES[guarantee][0],
        start=inference_pb2.START_POSITION_EARLIEST,
    )
    created = manager.CreateInference(deployment_manager_pb2.CreateInferenceRequest(inference=wish), timeout=60)
    rate = _answer_rate(kafka, target)
    manager.DeleteInference(deployment_manager_pb2.DeleteInferenceRequest(id=created.id, force=True), timeout=60)
    return rate


def _answer_rate(kafka: KafkaSettings, target: str) -> float:
    """Answers per second by their timestamps; every question has exactly one."""
    deadline = time.monotonic() + LIMIT_S
    times: list[int] = []
    with TopicFollower(kafka, target, {}) as follower:
        while len(times) < ROWS and time.monotonic() < deadline:
            times += [message.timestamp()[1] for message in follower.read(1.0, 5000)]
    assert len(times) == ROWS, f"{len(times)} answers for {ROWS} questions"
    return (ROWS - 1) * 1000 / (max(times) - min(times))


def _bare(kafka: KafkaSettings, source: str, baseline: str, weights: Path) -> float:
    target = f"bare-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS})
    command = [sys.executable, "-m", "benchmarks.baselines", baseline, kafka.bootstrap_servers, source, target]
    done = subprocess.run([*command, str(ROWS), str(weights)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))
