"""A real control plane as a process, which starts real trainers, and what tests ask of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

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
from headrace.v1.model_registry_pb2 import CreateConfigurationRequest, CreateModelRequest
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2 import GetResultRequest, ListEpochsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2 import RecordStreamRequest, RecordStreamResponse
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.support import eventually, free_port
from tests.trainer import digits

ROOT = Path(__file__).parents[2]
EPOCHS = 3
LONG_S = 180.0
SETTINGS = deployment_pb2.TrainingSettings(
    batch_size=16,
    confusion_matrix=True,
    tensorflow=deployment_pb2.FrameworkArguments(fit_args=f"epochs={EPOCHS}"),
    pytorch=deployment_pb2.FrameworkArguments(fit_args=f"max_epochs={EPOCHS}"),
)


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


@contextmanager
def trusting_executor() -> Iterator[str]:
    """Its address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    code_executor_pb2_grpc.add_CodeExecutorServicer_to_server(TrustingExecutor(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


class ControlPlaneProcess:
    """A control plane in a home folder; started again it goes on with it."""

    def __init__(self, home: Path, kafka: str, executor: str, fail: str, more: Mapping[str, str]) -> None:
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
            **more,
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


def planted(bug: str, folder: Path) -> dict[str, str]:
    """The environment of a control plane and of trainers that run this code before their own."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(bug)
    return {"PYTHONPATH": str(folder)}


@contextmanager
def running(home: Path, kafka: str, fail: str = "", **more: str) -> Iterator[ControlPlaneProcess]:
    """A control plane that has an executor beside it; `more` goes into its environment."""
    with trusting_executor() as executor:
        plane = ControlPlaneProcess(home, kafka, executor, fail, more)
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


def create_training(
    channel: grpc.Channel,
    *frameworks: model_pb2.Framework,
    code: Mapping[model_pb2.Framework, str] = digits.CODE,
    settings: deployment_pb2.TrainingSettings = SETTINGS,
) -> int:
    """The id of a new deployment of a model for each framework, which waits for its stream."""
    models, deployments = ModelRegistryStub(channel), DeploymentManagerStub(channel)
    ids = []
    for number, framework in enumerate(frameworks):
        model = model_pb2.Model(name=f"model-{number}", framework=framework, code=code[framework])
        ids.append(patiently(partial(models.CreateModel, CreateModelRequest(model=model))).id)
    configuration = configuration_pb2.Configuration(name="digits", model_ids=ids)
    configuration = models.CreateConfiguration(CreateConfigurationRequest(configuration=configuration))
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


def train_again(channel: grpc.Channel, result_id: int) -> int:
    wish = deployment_pb2.Deployment(from_result_id=result_id)
    (again,) = DeploymentManagerStub(channel).CreateDeployment(CreateDeploymentRequest(deployment=wish)).result_ids
    return int(again)


def ended(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    """The result once it has ended, whichever way."""

    def result() -> result_pb2.Result | None:
        found: result_pb2.Result = ResultCollectorStub(channel).GetResult(GetResultRequest(id=result_id))
        return found if found.state in (deployment_pb2.STATE_FAILED, deployment_pb2.STATE_FINISHED) else None

    found = eventually(result, timeout_s=LONG_S, every_s=0.2)
    assert found is not None
    return found


def finished(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    """The result once it has ended, as it should."""
    result = ended(channel, result_id)
    assert result.state == deployment_pb2.STATE_FINISHED, result.error
    return result


def epochs_of(channel: grpc.Channel, result_id: int) -> list[result_pb2.SplitMetrics]:
    epochs = ResultCollectorStub(channel).ListEpochs(ListEpochsRequest(result_id=result_id)).epochs
    return [epoch.metrics for epoch in epochs]
