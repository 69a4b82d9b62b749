"""What is to be trained, and how: read once from the control plane, with every default filled in."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import grpc

from headrace.errors import not_yet
from headrace.patience import Patience
from headrace.v1 import deployment_pb2, model_pb2
from headrace.v1.deployment_manager_pb2 import GetDeploymentRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.deployment_pb2 import Deployment, FrameworkArguments, TrainingSettings
from headrace.v1.result_collector_pb2 import GetResultRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Result
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub

DEFAULT_BATCH_SIZE = 32
DEFAULT_CHECKPOINT_S = 60


class ControlPlane:
    """The services that a trainer calls, on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.results = ResultCollectorStub(channel)
        self.deployments = DeploymentManagerStub(channel)
        self.streams = StreamCatalogStub(channel)


@dataclass(frozen=True)
class Wish:
    """One result to compute. Its code is that of the day the training was created; the model may be another now."""

    result: Result
    deployment: Deployment
    settings: TrainingSettings
    """With every default filled in."""

    @property
    def framework(self) -> Literal["tensorflow", "pytorch"]:
        """The framework by the worker's name."""
        return "tensorflow" if self.result.framework == model_pb2.FRAMEWORK_TENSORFLOW else "pytorch"

    @property
    def arguments(self) -> FrameworkArguments:
        """The arguments of `fit` and `evaluate` for this model's framework."""
        return self.settings.tensorflow if self.framework == "tensorflow" else self.settings.pytorch

    @property
    def digest(self) -> str:
        """Equal for two attempts that compute the same; the stream of a deployment never changes."""
        digest = hashlib.sha256()
        for part in (
            self.result.id.to_bytes(8, "big"),
            self.result.imports.encode(),
            self.result.code.encode(),
            self.settings.SerializeToString(deterministic=True),
        ):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


def load_wish(control_plane: ControlPlane, result_id: int, patience: Patience) -> Wish:
    """Reads the wish. Raises NOT_YET for a mode that this version does not train."""
    result = patience.call(lambda: control_plane.results.GetResult(GetResultRequest(id=result_id)))
    deployment = patience.call(
        lambda: control_plane.deployments.GetDeployment(GetDeploymentRequest(id=result.deployment_id))
    )
    settings = result.settings if result.HasField("settings") else deployment.settings
    return Wish(result, deployment, complete(settings))


def complete(settings: TrainingSettings) -> TrainingSettings:
    """`settings` with every default filled in."""
    mode = settings.WhichOneof("mode") or "single"
    if mode != "single":
        raise not_yet(f"the mode {mode}", "leave the mode out to train each model by itself")
    full = TrainingSettings()
    full.CopyFrom(settings)
    full.batch_size = full.batch_size or DEFAULT_BATCH_SIZE
    full.split = full.split or deployment_pb2.SPLIT_SHUFFLED
    full.count_mismatch = full.count_mismatch or deployment_pb2.COUNT_MISMATCH_FAIL
    if not full.HasField("checkpoint_interval"):
        full.checkpoint_interval.seconds = DEFAULT_CHECKPOINT_S
    full.single.SetInParent()
    return full
