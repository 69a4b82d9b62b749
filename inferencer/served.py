"""What a replica serves: the wish; the trained result with its code, and its weights."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from headrace.artifacts import write_download
from headrace.chunks import sha256_of
from headrace.errors import Cancelled, FailedPrecondition, NotFound
from headrace.patience import Patience
from headrace.v1 import error_pb2
from headrace.v1.deployment_manager_pb2 import GetInferenceRequest, ListKafkaClustersRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.deployment_pb2 import KafkaCluster
from headrace.v1.inference_pb2 import Inference
from headrace.v1.result_collector_pb2 import DownloadArtifactRequest, GetResultRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Artifact, Result
from streams.clusters import settings_of
from streams.kafka import KafkaSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

DOWNLOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Served:
    """Everything a model needs to answer."""

    result: Result
    weights: Path

    @property
    def label(self) -> str:
        """The value of the header `headrace-model`: name and version."""
        return f"{self.result.model_name}/{self.result.version}"


def patiently(call: Callable[[], T], stop: threading.Event) -> T:
    """The answer of `call`, repeated while the control plane is away.

    Raises what `call` raises otherwise, and Cancelled when `stop` is set first.
    """

    def check() -> None:
        if stop.is_set():
            raise Cancelled(error_pb2.REASON_CANCELLED, "the replica was asked to stop")

    return Patience(stop, check).call(call)


def fetch_inference(channel: grpc.Channel, inference_id: int, stop: threading.Event) -> Inference:
    """What is wished for."""
    manager = DeploymentManagerStub(channel)
    inference: Inference = patiently(lambda: manager.GetInference(GetInferenceRequest(id=inference_id)), stop)
    return inference


@dataclass(frozen=True)
class Clusters:
    """Where the topics of an inference are. Dead letters stand where their questions do."""

    input: KafkaSettings
    output: KafkaSettings


def fetch_clusters(
    channel: grpc.Channel,
    inference: Inference,
    platform: KafkaSettings,
    secrets: Mapping[str, str],
    stop: threading.Event,
) -> Clusters:
    """Raises NotFound for a name that there is not, and what `settings_of` raises."""

    def named(name: str) -> KafkaSettings:
        if not name:
            return platform
        return settings_of(patiently(lambda: _cluster(channel, name), stop), secrets)

    return Clusters(named(inference.input_kafka_cluster), named(inference.output_kafka_cluster))


def _cluster(channel: grpc.Channel, name: str) -> KafkaCluster:
    for found in DeploymentManagerStub(channel).ListKafkaClusters(ListKafkaClustersRequest(name=name)).kafka_clusters:
        return found  # type: ignore[no-any-return]
    raise NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, f"no kafka_cluster is called {name!r}", name=name)


def fetch_served(channel: grpc.Channel, result_id: int, folder: Path, stop: threading.Event) -> Served:
    """Asks the control plane and downloads the weights, unless they are in `folder` already.

    Raises NotFound, NO_ARTIFACT, DIGEST_MISMATCH; Cancelled when `stop` is set.
    """
    collector = ResultCollectorStub(channel)
    result = patiently(lambda: collector.GetResult(GetResultRequest(id=result_id)), stop)
    weights = patiently(lambda: _weights(collector, result, folder), stop)
    return Served(result, weights)


def _weights(collector: ResultCollectorStub, result: Result, folder: Path) -> Path:
    artifact = _main_artifact(result)
    path = folder / f"{artifact.sha256[:16]}-{artifact.name}"
    if path.exists() and sha256_of(path) == artifact.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    started = time.monotonic()
    chunks = collector.DownloadArtifact(
        DownloadArtifactRequest(result_id=result.id, name=artifact.name), timeout=DOWNLOAD_TIMEOUT_S
    )
    write_download(chunks, artifact, partial)
    partial.replace(path)
    log.info("weights downloaded", extra={"size_bytes": artifact.size_bytes, "seconds": time.monotonic() - started})
    return path


def _main_artifact(result: Result) -> Artifact:
    if not result.artifacts:
        raise FailedPrecondition(
            error_pb2.REASON_NO_ARTIFACT, f"the result {result.id} has no artifact to serve", result=result.id
        )
    artifact: Artifact = result.artifacts[0]
    return artifact
