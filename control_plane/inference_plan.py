"""What to do about inferences: replicas in slots from 0, each restarted when it dies, replaced one by one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from control_plane.actions import (
    Action,
    DropReplicas,
    Forget,
    RestartReplica,
    RetryReplica,
    SetInferenceState,
    StartReplica,
    Stop,
)
from control_plane.cluster import Exit, Observed
from control_plane.names import replica_name, replica_of
from control_plane.retries import SECOND_US, end_error, is_due, is_permanent, pause_us
from control_plane.store.inferences import Replica
from control_plane.store.states import SILENT_US
from headrace.v1 import inference_pb2
from headrace.v1.inference_pb2 import Inference

# A replica ends between two transactions.
STOP_GRACE_S = 10.0
# One that stays silent is started again.
HUNG_US = 60 * SECOND_US
# A silence that is longer was never seen while it grew: the clock was set, or the machine slept.
UNREAL_US = 300 * SECOND_US

# What a running replica need not know of, and the model, which it follows by itself.
_NOT_SPEC = (
    "id", "name", "replicas", "create_time", "update_time", "state", "error", "replica_states", "etag", "model_name",
    "model_version", "result_id", "model_id", "alias", "answering_result_id", "warnings", "input_partition_count",
)  # fmt: skip

Slots = Mapping[int, Observed]


def plan_inferences(
    inferences: Sequence[Inference],
    replicas: Sequence[Replica],
    workloads: Mapping[str, Observed],
    now_us: int,
    heard_since_us: int = 0,
) -> list[Action]:
    """Every action that the present state calls for. `inferences` have not ended; `workloads` are all there are.

    Before `heard_since_us` nobody heard the reports of replicas.
    """
    running = _by_inference(workloads)
    known: dict[int, dict[int, Replica]] = defaultdict(dict)
    for replica in replicas:
        known[replica.inference_id][replica.slot] = replica
    actions: list[Action] = []
    for inference in inferences:
        slots = running.pop(inference.id, {})
        actions += _Inference(inference, known[inference.id], slots, now_us, heard_since_us).plan()
    for leftover in running.values():
        actions += _end(leftover)
    return actions


def spec_hash(inference: Inference) -> str:
    """Changes with everything that a replica learns only when it starts."""
    spec = Inference()
    spec.CopyFrom(inference)
    for name in _NOT_SPEC:
        spec.ClearField(name)
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()[:16]


class _Inference:
    """One inference that has not ended."""

    def __init__(
        self,
        inference: Inference,
        replicas: Mapping[int, Replica],
        workloads: Slots,
        now_us: int,
        heard_since_us: int,
    ) -> None:
        self._inference, self._replicas, self._workloads = inference, replicas, workloads
        self._now_us, self._heard_since_us = now_us, heard_since_us
        self._spec_hash = spec_hash(inference)

    def plan(self) -> list[Action]:
        if self._inference.state == inference_pb2.INFERENCE_STATE_STOPPING:
            return self._stop()
        if (failed := self._failure()) is not None:
            return [failed]
        actions = [action for slot in range(self._inference.replicas) for action in self._keep(slot)]
        return [*actions, *self._replace(), *self._scale_down(), *self._tell_state()]

    def _stop(self) -> list[Action]:
        actions = _end(self._workloads)
        if not any(workload.is_running for workload in self._workloads.values()):
            actions.append(SetInferenceState(self._inference.id, inference_pb2.INFERENCE_STATE_STOPPED))
        return actions

    def _failure(self) -> SetInferenceState | None:
        """Permanent for one replica is permanent for all: they do the same."""
        for slot, workload in self._workloads.items():
            replica = self._replicas.get(slot)
            is_current = replica is not None and workload.attempt == replica.attempt and slot < self._inference.replicas
            if is_current and workload.exit is not None and not workload.exit.stopped and is_permanent(workload.exit):
                error = (replica and replica.error) or end_error(workload.name, workload.exit)
                return SetInferenceState(self._inference.id, inference_pb2.INFERENCE_STATE_FAILED, error)
        return None

    def _keep(self, slot: int) -> list[Action]:
        """Have one process of the slot's present attempt, or the next when that has ended."""
        replica, workload = self._replicas.get(slot), self._workloads.get(slot)
        name = replica_name(self._inference.id, slot)
        forget: list[Action] = [Forget(name)] if workload is not None else []
        if replica is None or replica.attempt == 0 or replica.retry_time_us is not None:
            if workload is not None and workload.is_running:
                return [Stop(name, 0.0)]
            is_wanted = replica is None or is_due(replica.retry_time_us, self._now_us)
            return [*forget, *([self._start(slot)] if is_wanted else [])]
        if workload is None or (workload.attempt != replica.attempt and not workload.is_running):
            # Broken off between the number of the attempt and its start.
            return [*forget, self._start(slot, again=True)]
        if workload.attempt != replica.attempt:
            return [Stop(name, 0.0)]
        if workload.exit is None:
            is_hung = HUNG_US < self._silence_us(replica) < UNREAL_US
            return [Stop(name, 0.0)] if is_hung else []
        return [self._after(replica, workload.exit)]

    def _start(self, slot: int, again: bool = False) -> StartReplica:
        return StartReplica(self._inference, slot, self._spec_hash, again)

    def _after(self, replica: Replica, ended: Exit) -> Action:
        """One that ran is started again at once; one that keeps dying before it runs, after longer and longer."""
        if ended.stopped:
            return RestartReplica(replica.inference_id, replica.slot)
        name = replica_name(replica.inference_id, replica.slot)
        pause = pause_us(replica.failure_count) if replica.failure_count else 0
        error = None if replica.error else end_error(name, ended)
        return RetryReplica(replica.inference_id, replica.slot, error, self._now_us + pause)

    def _replace(self) -> list[Action]:
        """Stop what runs with an old spec: at once what does not answer anyway, else one while all others answer."""
        outdated = [
            slot
            for slot, workload in self._workloads.items()
            if slot < self._inference.replicas and workload.is_running and workload.spec_hash != self._spec_hash
        ]
        answering = [slot for slot in range(self._inference.replicas) if self._answers(slot)]
        idle = [slot for slot in outdated if slot not in answering]
        others_answer = len(answering) == self._inference.replicas
        chosen = idle or (outdated[:1] if others_answer else [])
        return [Stop(replica_name(self._inference.id, slot), STOP_GRACE_S) for slot in chosen]

    def _scale_down(self) -> list[Action]:
        surplus = {slot: one for slot, one in self._workloads.items() if slot >= self._inference.replicas}
        if surplus:
            return _end(surplus)
        is_dropping = any(slot >= self._inference.replicas for slot in self._replicas)
        return [DropReplicas(self._inference.id, self._inference.replicas)] if is_dropping else []

    def _tell_state(self) -> list[Action]:
        state = self._state()
        return [] if state == self._inference.state else [SetInferenceState(self._inference.id, state)]

    def _state(self) -> inference_pb2.InferenceState:
        wanted = range(self._inference.replicas)
        if all(self._answers(slot) for slot in wanted):
            return inference_pb2.INFERENCE_STATE_RUNNING
        was_running = self._inference.state != inference_pb2.INFERENCE_STATE_STARTING
        failing = any(slot in self._replicas and self._replicas[slot].failure_count > 0 for slot in wanted)
        if was_running or (failing and any(self._answers(slot) for slot in wanted)):
            return inference_pb2.INFERENCE_STATE_DEGRADED
        return inference_pb2.INFERENCE_STATE_STARTING

    def _answers(self, slot: int) -> bool:
        replica, workload = self._replicas.get(slot), self._workloads.get(slot)
        if replica is None or workload is None:
            return False
        is_current = workload.is_running and workload.attempt == replica.attempt
        is_running = is_current and replica.state == inference_pb2.INFERENCE_STATE_RUNNING
        return is_running and self._silence_us(replica) <= SILENT_US

    def _silence_us(self, replica: Replica) -> int:
        """For how long a process that was heard once has not been. 0 for one that has not reported yet."""
        if replica.state == inference_pb2.INFERENCE_STATE_STARTING or replica.report_time_us is None:
            return 0
        return self._now_us - max(replica.report_time_us, self._heard_since_us)


def _end(slots: Slots) -> list[Action]:
    """The highest first: the lowest have most to do with what is assigned."""
    return [
        Stop(workload.name, STOP_GRACE_S) if workload.is_running else Forget(workload.name)
        for _, workload in sorted(slots.items(), reverse=True)
    ]


def _by_inference(workloads: Mapping[str, Observed]) -> dict[int, dict[int, Observed]]:
    found: dict[int, dict[int, Observed]] = defaultdict(dict)
    for name in sorted(workloads):
        if (place := replica_of(name)) is not None:
            found[place[0]][place[1]] = workloads[name]
    return found
