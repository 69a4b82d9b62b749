"""From "deployment created" to "result finished" on a running platform, against reading and `fit` in one process.

Neither side counts the import of the framework: it is measured alone and taken from ours. The platform's other
services run beside both.
"""

import tempfile
import time
import uuid
from pathlib import Path

import grpc
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.inference import await_result, platform
from benchmarks.report import Ratio
from benchmarks.training import CODE, EPOCHS, ROWS, Case, baseline_seconds, enlarged_digits
from headrace.client import connect
from headrace.v1 import configuration_pb2, deployment_pb2, model_pb2, result_pb2
from headrace.v1.deployment_manager_pb2 import CreateDeploymentRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2 import CreateConfigurationRequest, CreateModelRequest
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from sandbox.session import WorkerSession
from sinks import RawSink
from streams.kafka import KafkaSettings

BATCH_SIZE = 32
PAIRS = 2
FRAMEWORKS = {"tensorflow": model_pb2.FRAMEWORK_TENSORFLOW, "pytorch": model_pb2.FRAMEWORK_PYTORCH}


def measure() -> list[Ratio]:
    """Seconds of both, for both frameworks."""
    with tempfile.TemporaryDirectory() as name, platform(Path(name) / "home") as state:
        enlarged_digits(Path(name))
        with connect(state.address, timeout_s=60) as channel:
            cases = [Case(framework, code, BATCH_SIZE, EPOCHS) for framework, code in CODE.items()]
            return [_ratio(channel, KafkaSettings(state.kafka), case, Path(name)) for case in cases]


def _ratio(channel: grpc.Channel, kafka: KafkaSettings, case: Case, folder: Path) -> Ratio:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    first = _trained(channel, kafka, case, folder, topic)
    import_s = _import_seconds(case)
    pairs = [
        (_again(channel, first) - import_s, _read_seconds(kafka, topic) + baseline_seconds(case, folder))
        for _ in range(PAIRS)
    ]
    ours, theirs = (sum(side) / PAIRS for side in zip(*pairs, strict=True))
    return Ratio(
        f"from deployment created to result finished, {ROWS:,} rows of 28×28, {EPOCHS} epochs, batch {BATCH_SIZE},"
        f" {case.framework}, without the framework's import, against reading and the same in memory in one process",
        f"{ours:.2f} s",
        f"{theirs:.2f} s",
        tuple(mine / other for mine, other in pairs),
        "≤ 1.10 ×",
    )


def _trained(channel: grpc.Channel, kafka: KafkaSettings, case: Case, folder: Path, topic: str) -> int:
    """The id of a first result, whose stream is there for those after it."""
    registry, manager = ModelRegistryStub(channel), DeploymentManagerStub(channel)
    model = model_pb2.Model(name=topic, framework=FRAMEWORKS[case.framework], code=case.code)
    model = registry.CreateModel(CreateModelRequest(model=model), timeout=120)
    configuration = configuration_pb2.Configuration(name=topic, model_ids=[model.id])
    configuration = registry.CreateConfiguration(CreateConfigurationRequest(configuration=configuration))
    arguments = deployment_pb2.FrameworkArguments(fit_args=case.fit_args)
    settings = deployment_pb2.TrainingSettings(batch_size=case.batch_size, tensorflow=arguments, pytorch=arguments)
    if case.framework == "tensorflow":
        settings.ClearField("pytorch")
    else:
        settings.ClearField("tensorflow")
    wish = deployment_pb2.Deployment(configuration_id=configuration.id, settings=settings)
    deployment = manager.CreateDeployment(CreateDeploymentRequest(deployment=wish), timeout=60)
    with RawSink(kafka.bootstrap_servers, topic, deployment.id) as sink:
        sink.send_batch(np.load(folder / "samples.npy"), np.load(folder / "labels.npy"))
    return await_result(channel, deployment.result_ids[0]).id


def _again(channel: grpc.Channel, first: int) -> float:
    """Seconds of the same training as a new deployment."""
    wish = deployment_pb2.Deployment(from_result_id=first)
    request = CreateDeploymentRequest(deployment=wish)
    (result_id,) = DeploymentManagerStub(channel).CreateDeployment(request, timeout=60).result_ids
    result: result_pb2.Result = await_result(channel, result_id)
    return (result.end_time.ToNanoseconds() - result.create_time.ToNanoseconds()) / 1e9


def _import_seconds(case: Case) -> float:
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        with WorkerSession.start(case.framework, folder=Path(home)) as session:
            session.wait_ready(120)
            return time.perf_counter() - started


def _read_seconds(kafka: KafkaSettings, topic: str) -> float:
    """A bare loop that makes one array of the records."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bench"})
    started = time.perf_counter()
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    values: list[bytes] = []
    while len(values) < ROWS:
        values += [message.value() or b"" for message in consumer.consume(1000, 1.0) if message.error() is None]
    np.frombuffer(b"".join(values), np.uint8).reshape(ROWS, 28, 28)
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds
