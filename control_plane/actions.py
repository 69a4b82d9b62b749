"""What the reconciler can do. Each may be repeated: queries look again at the state that they change."""

from __future__ import annotations

from dataclasses import dataclass

from google.rpc import status_pb2

from control_plane.store.results import ActiveResult
from headrace.v1 import inference_pb2


@dataclass(frozen=True)
class StartTrainer:
    """Start the next attempt; `again`: the present one, whose number was given and whose process was never started."""

    result: ActiveResult
    again: bool = False


@dataclass(frozen=True)
class GiveWay:
    """Back into the queue with a result that only waits for its stream."""

    result_id: int


@dataclass(frozen=True)
class Requeue:
    """Back into the queue with a result whose process ended because it was told to."""

    result_id: int


@dataclass(frozen=True)
class RetryTraining:
    """An attempt failed; the next may start at `retry_time_us`. No error: the one that it reported itself."""

    result_id: int
    error: status_pb2.Status | None
    retry_time_us: int


@dataclass(frozen=True)
class FailTraining:
    """No other attempt would help."""

    result_id: int
    error: status_pb2.Status


@dataclass(frozen=True)
class SettleCancelled:
    """The process of a cancelled training is gone."""

    result_id: int


@dataclass(frozen=True)
class StartReplica:
    """Start a slot's next process; `again` as in StartTrainer."""

    inference: inference_pb2.Inference
    slot: int
    spec_hash: str
    again: bool = False


@dataclass(frozen=True)
class RetryReplica:
    """A slot's process failed; the next may start at `retry_time_us`. No error: the one that it reported itself."""

    inference_id: int
    slot: int
    error: status_pb2.Status | None
    retry_time_us: int


@dataclass(frozen=True)
class RestartReplica:
    """A slot's process ended because it was told to."""

    inference_id: int
    slot: int


@dataclass(frozen=True)
class DropReplicas:
    """Forget the slots from this one on."""

    inference_id: int
    from_slot: int


@dataclass(frozen=True)
class SetInferenceState:
    """Put the whole into a state."""

    inference_id: int
    state: inference_pb2.InferenceState
    error: status_pb2.Status | None = None


@dataclass(frozen=True)
class Stop:
    """Ask a workload to end."""

    name: str
    grace_s: float


@dataclass(frozen=True)
class Forget:
    """Let a workload's name be used again."""

    name: str


@dataclass(frozen=True)
class RemoveWorks:
    """Delete work folders."""

    works: frozenset[str]


Action = (
    StartTrainer
    | GiveWay
    | Requeue
    | RetryTraining
    | FailTraining
    | SettleCancelled
    | StartReplica
    | RetryReplica
    | RestartReplica
    | DropReplicas
    | SetInferenceState
    | Stop
    | Forget
    | RemoveWorks
)
