"""What a replica asks of the control plane, answered from memory: one inference of one trained result."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.api import httpbody_pb2

from headrace.chunks import file_chunks
from headrace.server import serving
from headrace.v1 import deployment_manager_pb2, deployment_pb2, inference_pb2, model_pb2, result_pb2
from headrace.v1.deployment_manager_pb2_grpc import (
    DeploymentManagerServicer,
    add_DeploymentManagerServicer_to_server,
)
from headrace.v1.result_collector_pb2_grpc import ResultCollectorServicer, add_ResultCollectorServicer_to_server


@dataclass(frozen=True)
class Trained:
    """Another result."""

    version: int
    code: str
    damaged: bool = False
    """Whether its stored weights are no longer what was trained."""


@dataclass
class SmallControlPlane(DeploymentManagerServicer, ResultCollectorServicer):
    """Serves the weights in a file, and keeps what replicas report."""

    inference: inference_pb2.Inference
    code: str
    weights: Path
    framework: model_pb2.Framework = model_pb2.FRAMEWORK_PYTORCH
    others: dict[int, Trained] = field(default_factory=dict)
    """Further results by id, with the same weights."""
    clusters: dict[str, str] = field(default_factory=dict)
    """Other Kafka clusters: name to servers."""
    reports: list[inference_pb2.ReplicaState] = field(default_factory=list)

    async def GetInference(self, request: Any, context: Any) -> Any:
        return self.inference

    async def ListKafkaClusters(self, request: Any, context: Any) -> Any:
        cluster = deployment_pb2.KafkaCluster(name=request.name, bootstrap_servers=self.clusters[request.name])
        return deployment_manager_pb2.ListKafkaClustersResponse(kafka_clusters=[cluster])

    async def ReportReplica(self, request: Any, context: Any) -> Any:
        self.reports.append(request.replica)
        return deployment_manager_pb2.ReportReplicaResponse(inference=self.inference)

    async def GetResult(self, request: Any, context: Any) -> Any:
        trained = self.others.get(request.id) or Trained(3, self.code)
        digest = "0" * 64 if trained.damaged else hashlib.sha256(self.weights.read_bytes()).hexdigest()
        artifact = result_pb2.Artifact(name=self.weights.name, size_bytes=self.weights.stat().st_size, sha256=digest)
        return result_pb2.Result(
            id=request.id,
            model_name="tiny",
            version=trained.version,
            framework=self.framework,
            code=trained.code,
            artifacts=[artifact],
        )

    async def DownloadArtifact(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for chunk in file_chunks(self.weights):
            yield httpbody_pb2.HttpBody(data=chunk)


@contextmanager
def served(control_plane: SmallControlPlane) -> Iterator[str]:
    """Serves it on a thread of its own; gives the address."""
    started, stop, port = threading.Event(), asyncio.Event(), list[int]()
    loop = asyncio.new_event_loop()
    servicers = [
        (add_DeploymentManagerServicer_to_server, control_plane, "headrace.v1.DeploymentManager"),
        (add_ResultCollectorServicer_to_server, control_plane, "headrace.v1.ResultCollector"),
    ]

    async def serve() -> None:
        async with serving("127.0.0.1:0", servicers) as running:
            port.append(running.port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="control-plane")
    thread.start()
    assert started.wait(10)
    try:
        yield f"127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
