"""`kill -9` of any one process of the platform: no record and no epoch is lost or doubled, and no hand is needed."""

from __future__ import annotations

import json
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import numpy as np
import psutil
import pytest

from headrace.client import connect
from headrace.errors import DeadlineExceeded, Unavailable
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_pb2,
    inference_pb2,
    model_pb2,
    model_registry_pb2,
    result_collector_pb2,
    result_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from sinks import RawSink
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, ensure_topics, headers_of
from streams.writer import BatchProducer
from tests.e2e.conftest import Platform
from tests.support import eventually

T = TypeVar("T")

EPOCHS = 12
ROWS = 320
# A step takes a while, so that a kill meets the training at work.
CODE = """
import time

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
    def forward(self, x):
        time.sleep(0.01)
        return self.linear(x)
    def loss_fn(self):
        return nn.CrossEntropyLoss()
    def optimizer(self):
        return torch.optim.SGD(model.parameters(), lr=0.1)
    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}

model = Network()
"""


@pytest.fixture(scope="module")
def channel(platform: Platform) -> Iterator[grpc.Channel]:
    with connect(platform.state.address, timeout_s=30) as channel:
        yield channel


@pytest.fixture(scope="module")
def configuration(channel: grpc.Channel) -> int:
    """A configuration of one small, slow PyTorch model."""
    registry = ModelRegistryStub(channel)
    model = model_pb2.Model(name="slow", framework=model_pb2.FRAMEWORK_PYTORCH, code=CODE)
    created = registry.CreateModel(model_registry_pb2.CreateModelRequest(model=model), timeout=120)
    wish = configuration_pb2.Configuration(name="slow", model_ids=[created.id])
    return int(registry.CreateConfiguration(model_registry_pb2.CreateConfigurationRequest(configuration=wish)).id)


def deploy(channel: grpc.Channel, configuration: int, epochs: int = EPOCHS) -> deployment_pb2.Deployment:
    """A training that waits for its stream."""
    settings = deployment_pb2.TrainingSettings(batch_size=32, seed=3)
    settings.pytorch.fit_args = f"max_epochs={epochs}"
    wish = deployment_pb2.Deployment(configuration_id=configuration, settings=settings)
    request = deployment_manager_pb2.CreateDeploymentRequest(deployment=wish, request_id=str(uuid.uuid4()))
    created: deployment_pb2.Deployment = DeploymentManagerStub(channel).CreateDeployment(request, timeout=60)
    return created


def send_stream(platform: Platform, topic: str, deployment_id: int) -> None:
    """Two clouds of points, as a producer sends them."""
    labels = np.arange(ROWS) % 2
    points = np.random.default_rng(1).normal(size=(ROWS, 2)).astype(np.float32) + labels[:, None] * 4
    with RawSink(platform.state.kafka, topic, deployment_id, validation_rate=0.1, test_rate=0.1) as sink:
        sink.send_batch(points.astype(np.float32), labels.astype(np.int32))


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` says, for `eventually`: a control plane that was killed is asked again."""
    try:
        return ask()
    except (Unavailable, DeadlineExceeded) as error:
        raise AssertionError(str(error)) from error


def result_of(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    request = result_collector_pb2.GetResultRequest(id=result_id)
    found: result_pb2.Result = patiently(lambda: ResultCollectorStub(channel).GetResult(request))
    return found


def epochs_of(channel: grpc.Channel, result_id: int) -> list[int]:
    request = result_collector_pb2.ListEpochsRequest(result_id=result_id, page_size=1000)
    return [epoch.number for epoch in patiently(lambda: ResultCollectorStub(channel).ListEpochs(request)).epochs]


def service_pid(platform: Platform, name: str) -> int:
    (found,) = [service.pid for service in platform.state.services if service.name == name]
    return found


def process_of(platform: Platform, module: str, name: str, value: int, slot: int | None = None) -> psutil.Process:
    """The trainer or inferencer with this id in its environment."""
    for process in platform.processes():
        environment = process.environ()
        is_slot = slot is None or environment.get("HEADRACE_SLOT") == str(slot)
        if is_slot and module in process.cmdline() and environment.get(name) == str(value):
            return process
    raise AssertionError(f"no {module} with {name}={value}")


def worker_of(feeder: psutil.Process) -> psutil.Process:
    """A process that runs a model's code, or is to run it: its home is in the feeder's work folder."""
    work = feeder.environ()["HEADRACE_WORK_DIR"]
    for process in psutil.process_iter(["cmdline", "cwd"]):
        is_worker = "frameworks.worker" in (process.info["cmdline"] or [])
        if is_worker and Path(process.info["cwd"] or "/").is_relative_to(work):
            return process
    raise AssertionError("no worker")


def kill_service(name: str) -> Callable[[Platform, int], None]:
    def kill(platform: Platform, _: int) -> None:
        psutil.Process(service_pid(platform, name)).send_signal(signal.SIGKILL)

    return kill


def kill_trainer(platform: Platform, result_id: int) -> None:
    process_of(platform, "trainer", "HEADRACE_RESULT_ID", result_id).kill()


def kill_training_worker(platform: Platform, result_id: int) -> None:
    worker_of(process_of(platform, "trainer", "HEADRACE_RESULT_ID", result_id)).kill()


TRAINING_VICTIMS = {
    "control plane": kill_service("control plane"),
    "broker": kill_service("broker"),
    "trainer": kill_trainer,
    "worker": kill_training_worker,
}


@pytest.mark.parametrize("victim", TRAINING_VICTIMS)
def test_a_training_finishes_with_every_epoch_once(
    platform: Platform, channel: grpc.Channel, configuration: int, victim: str
) -> None:
    deployment = deploy(channel, configuration)
    (result_id,) = deployment.result_ids
    send_stream(platform, f"slow-{victim.replace(' ', '-')}", deployment.id)
    eventually(lambda: len(epochs_of(channel, result_id)) >= 2, timeout_s=90)
    TRAINING_VICTIMS[victim](platform, result_id)
    final = {deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED}
    eventually(lambda: result_of(channel, result_id).state in final, timeout_s=120)
    result = result_of(channel, result_id)
    assert result.state == deployment_pb2.STATE_FINISHED, result.error
    assert epochs_of(channel, result_id) == list(range(1, EPOCHS + 1))
    assert result.progress.epoch == EPOCHS
    assert result.split_sizes.training + result.split_sizes.validation + result.split_sizes.test == ROWS


def test_an_announcement_that_meets_a_dead_logger_is_recorded(
    platform: Platform, channel: grpc.Channel, configuration: int
) -> None:
    deployment = deploy(channel, configuration, epochs=1)
    kill_service("logger")(platform, 0)
    send_stream(platform, "slow-logger", deployment.id)
    (result_id,) = deployment.result_ids
    eventually(lambda: result_of(channel, result_id).state == deployment_pb2.STATE_FINISHED, timeout_s=120)


@pytest.mark.parametrize("name", ["tensorflow executor", "pytorch executor"])
def test_an_executor_that_was_killed_validates_again(platform: Platform, channel: grpc.Channel, name: str) -> None:
    kill_service(name)(platform, 0)
    tensorflow = model_pb2.Model(
        framework=model_pb2.FRAMEWORK_TENSORFLOW,
        code="model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])\nmodel.compile('sgd', 'mse')",
    )
    pytorch = model_pb2.Model(framework=model_pb2.FRAMEWORK_PYTORCH, code=CODE)
    model = tensorflow if name.startswith("tensorflow") else pytorch
    model.name = "after the kill"
    request = model_registry_pb2.CreateModelRequest(model=model, validate_only=True)

    def parameters() -> int:
        created = patiently(lambda: ModelRegistryStub(channel).CreateModel(request, timeout=60))
        return int(created.signature.parameter_count)

    eventually(parameters, timeout_s=90)


def test_a_browser_that_watches_through_a_gateway_that_is_killed_misses_nothing(
    platform: Platform, channel: grpc.Channel, configuration: int
) -> None:
    deployment = deploy(channel, configuration)
    seen: list[int] = []
    first = threading.Event()
    watcher = threading.Thread(target=watch_epochs, args=[platform, deployment.id, seen, first], name="browser")
    watcher.start()
    send_stream(platform, "slow-gateway", deployment.id)
    assert first.wait(90)
    kill_service("gateway")(platform, 0)
    watcher.join(120)
    assert seen == list(range(1, EPOCHS + 1))


def watch_epochs(platform: Platform, deployment_id: int, seen: list[int], first: threading.Event) -> None:
    """What EventSource does in a browser: connect again with the last id."""
    last_id = ""
    while len(seen) < EPOCHS:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        url = f"{platform.url}/v1/deployments/{deployment_id}:watch"
        try:
            with httpx.stream("GET", url, headers=headers, timeout=60) as response:
                for line in response.iter_lines():
                    if line.startswith("id:"):
                        last_id = line.partition(":")[2].strip()
                    elif line.startswith("data:"):
                        event = json.loads(line.partition(":")[2])
                        if epoch := (event.get("result") or event).get("epoch"):
                            seen.append(int(epoch["number"]))
                            first.set()
        except httpx.HTTPError:
            pass


@pytest.fixture(scope="module")
def trained(platform: Platform, channel: grpc.Channel, configuration: int) -> int:
    """A finished result."""
    deployment = deploy(channel, configuration, epochs=1)
    send_stream(platform, "slow-trained", deployment.id)
    (result_id,) = deployment.result_ids
    eventually(lambda: result_of(channel, result_id).state == deployment_pb2.STATE_FINISHED, timeout_s=120)
    return int(result_id)


def kill_replica(platform: Platform, inference_id: int) -> None:
    process_of(platform, "inferencer", "HEADRACE_INFERENCE_ID", inference_id, slot=0).kill()


def kill_predicting_worker(platform: Platform, inference_id: int) -> None:
    worker_of(process_of(platform, "inferencer", "HEADRACE_INFERENCE_ID", inference_id, slot=0)).kill()


INFERENCE_VICTIMS = {
    "inferencer": kill_replica,
    "worker": kill_predicting_worker,
    "control plane": kill_service("control plane"),
    "broker": kill_service("broker"),
}
QUESTIONS = 3000


def test_every_record_is_answered_once_whatever_is_killed(
    platform: Platform, channel: grpc.Channel, trained: int
) -> None:
    kafka = KafkaSettings(platform.state.kafka)
    source, target = "kills-in", "kills-out"
    ensure_topics(kafka, {source: 4})
    wish = inference_pb2.Inference(result_id=trained, replicas=2, input_topic=source, output_topic=target)
    manager = DeploymentManagerStub(channel)
    inference = manager.CreateInference(deployment_manager_pb2.CreateInferenceRequest(inference=wish), timeout=60)

    def running() -> bool:
        request = deployment_manager_pb2.GetInferenceRequest(id=inference.id)
        now = patiently(lambda: manager.GetInference(request))
        return bool(now.state == inference_pb2.INFERENCE_STATE_RUNNING)

    eventually(running, timeout_s=90)
    expected = 0
    for kill in INFERENCE_VICTIMS.values():
        send_questions(kafka, source, QUESTIONS // 2)
        kill(platform, inference.id)
        send_questions(kafka, source, QUESTIONS // 2)
        expected += QUESTIONS
        answers = read_answers(kafka, target, expected)
        assert len(answers) == expected
        assert set(answers.values()) == {1}
        eventually(running, timeout_s=90)
    manager.StopInference(deployment_manager_pb2.StopInferenceRequest(id=inference.id))


def send_questions(kafka: KafkaSettings, topic: str, count: int) -> None:
    value = np.array([1, 2], np.float32).tobytes()
    with BatchProducer(kafka) as producer:
        for number in range(count):
            producer.produce(topic, None, value, None, number % 4)
        producer.flush()


def read_answers(kafka: KafkaSettings, topic: str, expected: int) -> Counter[str | bytes | None]:
    """How often each question was answered, by its source, once there are enough and no more come."""
    found: Counter[str | bytes | None] = Counter()

    def enough() -> bool:
        batch = follower.read(0.5)
        found.update(dict(headers_of(message))["headrace-source"] for message in batch)
        return found.total() >= expected and not batch

    with TopicFollower(kafka, topic, {}) as follower:
        eventually(enough, timeout_s=120)
    return found
