"""Which states are final, and what a whole is when its parts are in different ones."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.v1 import deployment_pb2, inference_pb2

State = deployment_pb2.State

FINAL_STATES = (
    deployment_pb2.STATE_FINISHED,
    deployment_pb2.STATE_FAILED,
    deployment_pb2.STATE_CANCELLED,
)
FINAL_INFERENCE_STATES = (inference_pb2.INFERENCE_STATE_STOPPED, inference_pb2.INFERENCE_STATE_FAILED)

# A replica reports once a second. One that is silent for so long does not answer.
SILENT_US = 10_000_000


def is_final(state: int) -> bool:
    return state in FINAL_STATES


def state_name(state: int) -> str:
    """`FINISHED`."""
    return State.Name(State.ValueType(state)).removeprefix("STATE_")


def inference_state_name(state: int) -> str:
    """`RUNNING`."""
    names = inference_pb2.InferenceState
    return names.Name(names.ValueType(state)).removeprefix("INFERENCE_STATE_")


def whole_state(states: Sequence[int]) -> int:
    """A deployment's state: the one furthest behind while any of its results runs; else the worst end."""
    running = [state for state in states if not is_final(state)]
    if deployment_pb2.STATE_CANCELLING in running:
        return deployment_pb2.STATE_CANCELLING
    if running:
        return min(running)
    for worst in (deployment_pb2.STATE_FAILED, deployment_pb2.STATE_CANCELLED):
        if worst in states:
            return worst
    return deployment_pb2.STATE_FINISHED
