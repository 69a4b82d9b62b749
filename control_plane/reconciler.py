"""Makes what runs match what is stored, from any state: kill it anywhere, start it again, it converges.

Each step looks at what runs, then at the wish, and acts on the difference. The wish is in the store before anything is
done about it, what was done is stored after it, and names of workloads are made of ids: every step may be broken off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

from control_plane.actions import (
    Action,
    DropReplicas,
    FailTraining,
    Forget,
    GiveWay,
    RemoveWorks,
    Requeue,
    RestartReplica,
    RetryReplica,
    RetryTraining,
    SetInferenceState,
    SettleCancelled,
    StartReplica,
    StartTrainer,
    Stop,
)
from control_plane.cluster import AsyncCluster, Seen, Workload
from control_plane.names import deployment_work, replica_name, replica_work, trainer_name, trainer_work
from control_plane.plan import Wish, plan
from control_plane.store import Change, Kind, Store, inferences, results
from control_plane.store.clock import now_us
from headrace.errors import HeadraceError
from headrace.failpoints import fail_at
from headrace.v1 import deployment_pb2
from headrace.v1.deployment_pb2 import Resources

log = logging.getLogger(__name__)

# How soon the end of a process is noticed.
POLL_S = 0.25
# How long a change may stay unnoticed that nobody told of.
RESYNC_S = 30.0
# After an action failed, or while a process is asked to end.
SOON_S = 1.0
# When the control plane stops: every workload together gets so long.
STOP_GRACE_S = 15.0
STOP_LIMIT_S = 20.0
# Of each replica, which reports the port that it gets.
METRICS_LISTEN = "127.0.0.1:0"


@dataclass(frozen=True)
class Place:
    """What workloads are told, and how many trainings may run."""

    address: str
    """The control plane, as workloads reach it."""
    kafka: str
    max_trainings: int
    stop_workloads: bool = True
    """Whether workloads end with the control plane. Their wishes stay stored either way."""


class Reconciler:
    """Run by one task at a time: `run` only loops, `step` does one turn."""

    def __init__(self, store: Store, cluster: AsyncCluster, place: Place) -> None:
        self._store, self._cluster, self._place = store, cluster, place
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._heard_since_us = now_us()
        self._seen = Seen()
        store.listen(self._on_commit)

    async def run(self, stop: asyncio.Event) -> None:
        """Steps until `stop`: after every change, after the end of a process, and at least every 30 s."""
        while not stop.is_set():
            try:
                next_s = await self.step()
            except HeadraceError as error:
                log.warning("cannot reconcile now", extra={"reason": error.reason_name, "cause": error.message})
                next_s = SOON_S
            except Exception:
                log.exception("a step of the reconciler failed by a bug")
                next_s = SOON_S
            await self._wait(stop, min(next_s, RESYNC_S))
        # Where the disk failed, we are started again: then what runs is found.
        if self._place.stop_workloads and not self._store.broken.is_set():
            await self._stop_all()

    async def step(self) -> float:
        """Acts on the present state; returns in how many seconds the next step is due if nothing happens."""
        self._woken.clear()
        # In this order: a process that was seen to end has stored all that it had to say.
        self._seen = await self._cluster.list()
        wish = await self._store.read(self._read_wish)
        found = plan(wish, self._seen, self._place.max_trainings, now_us())
        due = [RESYNC_S if found.next_s is None else found.next_s]
        for action in found.actions:
            done = await self._try(action)
            if not done or isinstance(action, Stop):
                due.append(SOON_S)
        return min(due)

    def _read_wish(self) -> Wish:
        return Wish(results.active(), inferences.wanted(), inferences.replicas(), self._heard_since_us)

    async def _wait(self, stop: asyncio.Event, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(POLL_S, left)):
                    await self._woken.wait()
                return
            except TimeoutError:
                if await self._cluster.list() != self._seen:
                    return

    async def _try(self, action: Action) -> bool:
        """One action that fails does not keep the others from being done; it is tried again in the next step."""
        try:
            await self._perform(action)
        except (HeadraceError, OSError) as error:
            log.warning("an action failed", extra={"action": type(action).__name__, "cause": str(error)})
            return False
        return True

    async def _perform(self, action: Action) -> None:
        match action:
            case StartTrainer():
                await self._start_trainer(action)
            case StartReplica():
                await self._start_replica(action)
            case Stop(name, grace_s):
                await self._cluster.stop(name, grace_s)
            case Forget(name):
                await self._cluster.forget(name)
            case RemoveWorks(works):
                await self._cluster.remove_works(works)
            case _:
                log.info("settling", extra={"action": type(action).__name__, "of": _subject(action)})
                await self._store.write(_query(action))

    async def _start_trainer(self, action: StartTrainer) -> None:
        result, attempt = action.result, action.result.attempt
        if not action.again:
            attempt = await self._store.write(lambda: results.start_attempt(result.id))
        fail_at("trainer_attempt_given")
        env = {**self._env(result.resources), "HEADRACE_RESULT_ID": str(result.id), "HEADRACE_ATTEMPT": str(attempt)}
        name, work = trainer_name(result.id, attempt), trainer_work(result.id)
        shared = deployment_work(result.deployment_id)
        await self._cluster.start(Workload(name, "trainer", env, work, shared, attempt))
        fail_at("trainer_started")

    async def _start_replica(self, action: StartReplica) -> None:
        inference_id, slot = action.inference.id, action.slot
        attempt = await self._store.write(
            lambda: inferences.start_replica(inference_id, slot, again=action.again),
        )
        fail_at("replica_attempt_given")
        env = {
            **self._env(action.inference.resources),
            "HEADRACE_INFERENCE_ID": str(inference_id),
            "HEADRACE_SLOT": str(slot),
            "HEADRACE_ATTEMPT": str(attempt),
            "HEADRACE_METRICS_LISTEN": METRICS_LISTEN,
        }
        name, work = replica_name(inference_id, slot), replica_work(inference_id, slot)
        workload = Workload(name, "inferencer", env, work, attempt=attempt, spec_hash=action.spec_hash)
        await self._cluster.start(workload)
        fail_at("replica_started")

    async def _stop_all(self) -> None:
        """Asks all at once, kills what is left when the time is over, and returns when nothing runs."""
        deadline = time.monotonic() + STOP_LIMIT_S
        while running := _running(await self._cluster.list()):
            grace_s = STOP_GRACE_S if time.monotonic() < deadline else 0.0
            for name in running:
                await self._cluster.stop(name, grace_s)
            await asyncio.sleep(POLL_S / 2)

    def _env(self, resources: Resources) -> dict[str, str]:
        env = {"HEADRACE_ADDRESS": self._place.address, "HEADRACE_KAFKA": self._place.kafka}
        if resources.memory_bytes:
            env["HEADRACE_WORKER_MEMORY_BYTES"] = str(resources.memory_bytes)
        return env

    def _on_commit(self, changes: Sequence[Change]) -> None:
        if any(_concerns(change) for change in changes):
            try:
                self._loop.call_soon_threadsafe(self._woken.set)
            except RuntimeError:
                # The loop has ended: nothing is reconciled any more.
                return


@asynccontextmanager
async def reconciling(reconciler: Reconciler) -> AsyncIterator[None]:
    """Runs it in the background; when the block ends, it stops (with the workloads, where that is wished)."""
    stop = asyncio.Event()
    running = asyncio.create_task(reconciler.run(stop), name="reconciler")
    try:
        yield
    finally:
        stop.set()
        await running


def _concerns(change: Change) -> bool:
    """Progress and epochs of trainings, and numbers of replicas, call for nothing."""
    if change.kind == Kind.RESULT:
        return change.event is None or change.event.HasField("result")
    return change.kind in (Kind.DEPLOYMENT, Kind.INFERENCE)


def _running(seen: Seen) -> list[str]:
    return [name for name, workload in seen.workloads.items() if workload.is_running]


Settling = (
    GiveWay
    | Requeue
    | RetryTraining
    | FailTraining
    | SettleCancelled
    | RetryReplica
    | RestartReplica
    | DropReplicas
    | SetInferenceState
)


def _subject(action: Settling) -> str:
    match action:
        case RetryReplica(inference_id, slot) | RestartReplica(inference_id, slot):
            return f"replica {slot} of inference {inference_id}"
        case DropReplicas(inference_id) | SetInferenceState(inference_id):
            return f"inference {inference_id}"
        case _:
            return f"result {action.result_id}"


def _query(action: Settling) -> Callable[[], object]:
    """The query of an action that only changes the store."""
    match action:
        case GiveWay(result_id):
            return lambda: results.give_way(result_id)
        case Requeue(result_id):
            return lambda: results.requeue(result_id)
        case RetryTraining(result_id, error, retry_time_us):
            return lambda: results.record_failure(result_id, error, retry_time_us)
        case FailTraining(result_id, error):
            return lambda: results.fail(result_id, error)
        case SettleCancelled(result_id):
            return lambda: results.set_state(result_id, deployment_pb2.STATE_CANCELLED)
        case RetryReplica(inference_id, slot, error, retry_time_us):
            return lambda: inferences.record_replica_failure(inference_id, slot, error, retry_time_us)
        case RestartReplica(inference_id, slot):
            return lambda: inferences.restart_replica(inference_id, slot, now_us())
        case DropReplicas(inference_id, from_slot):
            return lambda: inferences.drop_replicas(inference_id, from_slot)
        case SetInferenceState(inference_id, state, error):
            return lambda: inferences.set_state(inference_id, state, error)
        case _:
            assert_never(action)
