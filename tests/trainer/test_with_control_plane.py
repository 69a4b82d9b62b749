"""Trainers that a real control plane starts, and starts again."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.client import connect
from headrace.errors import Unavailable
from headrace.v1 import (
    code_executor_pb2,
    code_executor_pb2_grpc,
    configuration_pb2,
    deployment_pb2,
    model_pb2,
    result_pb2,
    stream_pb2,
)
from headrace.v1.deployment_manager_pb2 import CreateDeploymentRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2 import CreateConfigurationRequest, CreateModelRequest, UpdateModelRequest
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2 import DownloadArtifactRequest, GetResultRequest, ListEpochsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2 import DeleteStreamRequest, RecordStreamRequest, RecordStreamResponse
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from streams.kafka import KafkaSettings
from tests.support import eventually, free_port
from tests.trainer import digits

ROOT = Path(__file__).parents[2]
EPOCHS = 3
LONG_S = 180.0


class TrustingExecutor(code_executor_pb2_grpc.CodeExecutorServicer):
    """Finds all code right without running it: that is not what these tests are about."""

    def ValidateCode(
        self, request: code_executor_pb2.ValidateCodeRequest, context: Any
    ) -> code_executor_pb2.ValidateCodeResponse:
        return code_executor_pb2.ValidateCodeResponse(signature=model_pb2.Signature(parameter_count=1))

    def ValidateSettings(
        self, request: code_executor_pb2.ValidateSettingsRequest, context: Any
    ) -> code_executor_pb2.ValidateSettingsResponse:
        return code_executor_pb2.ValidateSettingsResponse()


@pytest.fixture
def executor() -> Iterator[str]:
    """Its address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    code_executor_pb2_grpc.add_CodeExecutorServicer_to_server(TrustingExecutor(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


class ControlPlaneProcess:
    """A control plane in a home folder; started again it goes on with it."""

    def __init__(self, home: Path, kafka: str, executor: str, fail: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._log = home / "control_plane.log"
        self._environ = {
            **os.environ,
            "HEADRACE_HOME": str(home),
            "HEADRACE_LISTEN": self.address,
            "HEADRACE_KAFKA": kafka,
            "HEADRACE_TENSORFLOW_EXECUTOR": executor,
            "HEADRACE_PYTORCH_EXECUTOR": executor,
            "HEADRACE_FAIL": fail,
            "HEADRACE_FAIL_FOLDER": str(home),
        }
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "control_plane"],
                cwd=ROOT,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0, self._log.read_text()


@contextmanager
def running(home: Path, kafka: str, executor: str, fail: str) -> Iterator[ControlPlaneProcess]:
    plane = ControlPlaneProcess(home, kafka, executor, fail)
    try:
        yield plane
    finally:
        plane.stop()


def patiently(call: Callable[[], Any]) -> Any:
    """The answer of a control plane that may still be starting."""

    def answer() -> Any:
        try:
            return call()
        except Unavailable:
            return None

    return eventually(answer, timeout_s=60)


def create_training(channel: grpc.Channel, *frameworks: model_pb2.Framework) -> int:
    """The id of a new deployment of a model for each framework, which waits for its stream."""
    models, deployments = ModelRegistryStub(channel), DeploymentManagerStub(channel)
    ids = []
    for framework in frameworks:
        name = model_pb2.Framework.Name(framework)
        model = model_pb2.Model(name=name, framework=framework, code=digits.CODE[framework])
        ids.append(patiently(partial(models.CreateModel, CreateModelRequest(model=model))).id)
    configuration = configuration_pb2.Configuration(name="digits", model_ids=ids)
    configuration = models.CreateConfiguration(CreateConfigurationRequest(configuration=configuration))
    settings = deployment_pb2.TrainingSettings(batch_size=16, confusion_matrix=True)
    settings.tensorflow.fit_args, settings.pytorch.fit_args = f"epochs={EPOCHS}", f"max_epochs={EPOCHS}"
    wish = deployment_pb2.Deployment(configuration_id=configuration.id, settings=settings)
    deployment: deployment_pb2.Deployment = deployments.CreateDeployment(CreateDeploymentRequest(deployment=wish))
    return deployment.id


def announce(channel: grpc.Channel, deployment_id: int, stream: stream_pb2.Stream) -> RecordStreamResponse:
    announcement = stream_pb2.StreamAnnouncement(
        message_id="a",
        deployment_id=deployment_id,
        ranges=stream.ranges,
        input_format=stream.input_format,
        input_config=stream.input_config,
        validation_rate=stream.validation_rate,
        test_rate=stream.test_rate,
        record_count=stream.record_count,
    )
    request = RecordStreamRequest(
        source=stream_pb2.StreamSource(topic="control"),
        dialect=stream_pb2.DIALECT_HEADRACE,
        announcement=announcement,
    )
    recorded: RecordStreamResponse = StreamCatalogStub(channel).RecordStream(request)
    return recorded


def test_kills_of_control_plane_and_trainer_cost_no_epoch(
    kafka: KafkaSettings, topic: Callable[..., str], executor: str, tmp_path: Path
) -> None:
    fail = "after_epoch:exit@2,before_upload:exit@1"
    with ExitStack() as stack:
        plane = stack.enter_context(running(tmp_path, kafka.bootstrap_servers, executor, fail))
        channel = stack.enter_context(connect(plane.address))
        results = ResultCollectorStub(channel)
        deployment_id = create_training(channel, model_pb2.FRAMEWORK_PYTORCH)

        def reached(state: "deployment_pb2.State") -> result_pb2.Result | None:
            result: result_pb2.Result = patiently(lambda: results.GetResult(GetResultRequest(id=1)))
            assert result.state != deployment_pb2.STATE_FAILED, result.error
            return result if result.state == state else None

        eventually(lambda: reached(deployment_pb2.STATE_WAITING), timeout_s=LONG_S)
        plane.process.kill()
        plane.process.wait()
        plane.start()
        name = topic(partitions=2)
        stream = digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
        patiently(lambda: announce(channel, deployment_id, stream))
        result = eventually(lambda: reached(deployment_pb2.STATE_FINISHED), timeout_s=LONG_S)

        assert result is not None
        assert result.attempt == 3, "one attempt died in an epoch, one before its upload"
        epochs = results.ListEpochs(ListEpochsRequest(result_id=result.id)).epochs
        assert [epoch.number for epoch in epochs] == list(range(1, EPOCHS + 1))
        assert set(result.metrics.splits) == {"training", "validation", "test"}
        (artifact,) = result.artifacts
        chunks = results.DownloadArtifact(DownloadArtifactRequest(result_id=result.id, name=artifact.name))
        assert hashlib.sha256(b"".join(chunk.data for chunk in chunks)).hexdigest() == artifact.sha256


# That Keras repeats itself is seen by the end-to-end test of the commands, too.
@pytest.mark.parametrize(
    "frameworks",
    [
        (model_pb2.FRAMEWORK_PYTORCH,),
        pytest.param((model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH), marks=pytest.mark.chaos),
    ],
    ids=["torch", "both"],
)
def test_a_result_trained_again_has_the_same_numbers(
    kafka: KafkaSettings,
    topic: Callable[..., str],
    executor: str,
    tmp_path: Path,
    frameworks: tuple[model_pb2.Framework, ...],
) -> None:
    ids = range(1, len(frameworks) + 1)
    with ExitStack() as stack:
        plane = stack.enter_context(running(tmp_path, kafka.bootstrap_servers, executor, fail=""))
        channel = stack.enter_context(connect(plane.address))
        deployment_id = create_training(channel, *frameworks)
        name = topic(partitions=2)
        stream = digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
        recorded = announce(channel, deployment_id, stream)
        firsts = [finished(channel, result_id) for result_id in ids]
        # The model is another by now, and nobody remembers the announcement.
        for model_id in ids:
            change = UpdateModelRequest(model=model_pb2.Model(id=model_id, code="model = None"))
            ModelRegistryStub(channel).UpdateModel(change)
        StreamCatalogStub(channel).DeleteStream(DeleteStreamRequest(id=recorded.stream.id))
        again_ids = [train_again(channel, first.id) for first in firsts]
        agains = [finished(channel, result_id) for result_id in again_ids]

        for framework, first, again in zip(frameworks, firsts, agains, strict=True):
            assert (again.framework, again.version) == (framework, 2)
            assert again.stream == first.stream
            assert again.confusion_matrix == first.confusion_matrix
            assert set(again.metrics.splits) == {"training", "validation", "test"}
            assert again.metrics == first.metrics, "bit for bit"
            assert epochs_of(channel, again.id) == epochs_of(channel, first.id)


def train_again(channel: grpc.Channel, result_id: int) -> int:
    wish = deployment_pb2.Deployment(from_result_id=result_id)
    (again,) = DeploymentManagerStub(channel).CreateDeployment(CreateDeploymentRequest(deployment=wish)).result_ids
    return int(again)


def finished(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    """The result once it has ended, as it should."""

    def result() -> result_pb2.Result | None:
        found: result_pb2.Result = ResultCollectorStub(channel).GetResult(GetResultRequest(id=result_id))
        if found.state == deployment_pb2.STATE_FAILED:
            pytest.fail(str(found.error))
        return found if found.state == deployment_pb2.STATE_FINISHED else None

    ended = eventually(result, timeout_s=LONG_S)
    assert ended is not None
    return ended


def epochs_of(channel: grpc.Channel, result_id: int) -> list[result_pb2.SplitMetrics]:
    epochs = ResultCollectorStub(channel).ListEpochs(ListEpochsRequest(result_id=result_id)).epochs
    return [epoch.metrics for epoch in epochs]
