"""A control plane as a trainer sees it, in memory behind a real gRPC server, and trainers as real processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil

from headrace.v1 import (
    deployment_manager_pb2,
    deployment_manager_pb2_grpc,
    deployment_pb2,
    model_pb2,
    result_collector_pb2,
    result_pb2,
    stream_catalog_pb2,
    stream_catalog_pb2_grpc,
    stream_pb2,
)
from tests.trainer.collector import MemoryCollector

ROOT = Path(__file__).parents[2]


class Platform(
    MemoryCollector,
    deployment_manager_pb2_grpc.DeploymentManagerServicer,
    stream_catalog_pb2_grpc.StreamCatalogServicer,
):
    """One deployment and one result per id; both have the same id."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[int, result_pb2.Result] = {}
        self.streams: dict[int, stream_pb2.Stream] = {}
        self._announced = threading.Condition()

    def register(self, server: grpc.Server) -> None:
        super().register(server)
        deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server(self, server)
        stream_catalog_pb2_grpc.add_StreamCatalogServicer_to_server(self, server)

    def create(
        self,
        framework: "model_pb2.Framework",
        code: str,
        settings: deployment_pb2.TrainingSettings,
        stream: stream_pb2.Stream | None = None,
    ) -> int:
        """The id of a new result and of its deployment."""
        number = len(self.results) + 1
        self.results[number] = result_pb2.Result(
            id=number, deployment_id=number, framework=framework, code=code, settings=settings
        )
        if stream is not None:
            self.announce(number, stream)
        return number

    def announce(self, deployment_id: int, stream: stream_pb2.Stream) -> None:
        with self._announced:
            self.streams[deployment_id] = stream
            self._announced.notify_all()

    def GetResult(self, request: result_collector_pb2.GetResultRequest, context: Any) -> result_pb2.Result:
        return self.results[request.id]

    def GetDeployment(
        self, request: deployment_manager_pb2.GetDeploymentRequest, context: Any
    ) -> deployment_pb2.Deployment:
        return deployment_pb2.Deployment(id=request.id, result_ids=[request.id])

    def AwaitStream(
        self, request: stream_catalog_pb2.AwaitStreamRequest, context: Any
    ) -> stream_catalog_pb2.AwaitStreamResponse:
        with self._announced:
            self._announced.wait_for(
                lambda: request.deployment_id in self.streams, timeout=min(request.wait.seconds, 5)
            )
            return stream_catalog_pb2.AwaitStreamResponse(stream=self.streams.get(request.deployment_id))


class Trainer:
    """A trainer process for one attempt."""

    def __init__(
        self,
        platform: Platform,
        kafka: str,
        home: Path,
        *,
        result_id: int,
        attempt: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.platform, self.kafka, self.home = platform, kafka, home
        self.result_id, self.attempt = result_id, attempt
        platform.newest_attempts[result_id] = max(attempt, platform.newest_attempts.get(result_id, 1))
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / f"attempt-{attempt}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainer"],
                cwd=ROOT,
                env=self._environment(environ or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = 180) -> int:
        """The exit code; the process's log stands in the failure when there is none in time."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the trainer did not end:\n{self.log.read_text()}") from None

    def again(self, environ: Mapping[str, str] | None = None) -> "Trainer":
        """The next attempt, on the same folder."""
        more = {"result_id": self.result_id, "attempt": self.attempt + 1}
        return Trainer(self.platform, self.kafka, self.home, **more, environ=environ)

    def tree(self) -> list[psutil.Process]:
        """The processes that it started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def leftovers(self) -> list[psutil.Process]:
        """Processes that live in the folder of this result."""
        return [process for process in psutil.process_iter() if _lives_in(process, self.home)]

    def worker(self) -> psutil.Process:
        """The process that runs the model's code."""
        return next(child for child in self.tree() if "frameworks.worker" in child.cmdline())

    @property
    def events(self) -> list[result_collector_pb2.ReportRequest]:
        return self.platform.events(self.attempt, self.result_id)

    @property
    def states(self) -> list[str]:
        """The names of the states it reported, in order, without STATE_."""
        changes = [event.state_change.state for event in self.events if event.HasField("state_change")]
        return [deployment_pb2.State.Name(state).removeprefix("STATE_") for state in changes]

    @property
    def epochs(self) -> list[int]:
        """Numbers of all that are stored, whichever attempt told of them."""
        request = result_collector_pb2.ListEpochsRequest(result_id=self.result_id)
        return [epoch.number for epoch in self.platform.ListEpochs(request, None).epochs]

    @property
    def outcome(self) -> result_collector_pb2.Outcome:
        """Everything that became known."""
        whole = result_collector_pb2.Outcome()
        for event in self.events:
            if event.HasField("outcome"):
                if event.outcome.HasField("stream"):
                    whole.ClearField("stream")  # A message is replaced, as the collector does.
                whole.MergeFrom(event.outcome)
        return whole

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            "HEADRACE_ADDRESS": self.platform.address,
            "HEADRACE_KAFKA": self.kafka,
            "HEADRACE_RESULT_ID": str(self.result_id),
            "HEADRACE_ATTEMPT": str(self.attempt),
            "HEADRACE_WORK_DIR": str(self.home / "work"),
            "HEADRACE_PATIENCE_S": "60",
            "HEADRACE_KAFKA_WAIT_S": "2",
            "HEADRACE_LOG_FORMAT": "text",
            **more,
        }


def _lives_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False
