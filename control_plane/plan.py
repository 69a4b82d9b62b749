"""What the cluster should do next: a pure function of what is wished for and what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from control_plane.actions import Action, Forget, RemoveWorks, Stop
from control_plane.cluster import Seen
from control_plane.inference_plan import plan_inferences
from control_plane.names import deployment_work, replica_of, replica_work, result_of, trainer_work, work_of
from control_plane.retries import LONGEST_PAUSE_S, SECOND_US
from control_plane.store.inferences import Replica
from control_plane.store.results import ActiveResult
from control_plane.store.states import SILENT_US
from control_plane.training_plan import LEFTOVER_GRACE_S, plan_trainings
from headrace.v1.inference_pb2 import Inference


@dataclass(frozen=True)
class Wish:
    """What the store wants, in one snapshot: all that has not ended."""

    results: Sequence[ActiveResult] = ()
    inferences: Sequence[Inference] = ()
    replicas: Sequence[Replica] = ()
    # Nobody heard what replicas reported before.
    heard_since_us: int = 0


@dataclass(frozen=True)
class Plan:
    """Actions in their order; and in how many seconds time alone calls for the next plan (None: never)."""

    actions: Sequence[Action] = field(default_factory=list)
    next_s: float | None = None


def plan(wish: Wish, seen: Seen, max_trainings: int, now_us: int) -> Plan:
    """`seen` is at least as old as `wish`: a process that was seen to end has stored what it had to say."""
    actions = [
        *plan_trainings(wish.results, seen.workloads, max_trainings, now_us),
        *plan_inferences(wish.inferences, wish.replicas, seen.workloads, now_us, wish.heard_since_us),
        *_end_strangers(seen),
        *_remove_works(wish, seen),
    ]
    return Plan(actions, _next_s(wish, now_us))


def _end_strangers(seen: Seen) -> list[Action]:
    """Workloads whose names we do not make (any more)."""
    strangers = [one for name, one in seen.workloads.items() if result_of(name) is None and replica_of(name) is None]
    return [Stop(one.name, LEFTOVER_GRACE_S) if one.is_running else Forget(one.name) for one in strangers]


def _remove_works(wish: Wish, seen: Seen) -> list[Action]:
    """Folders of what has ended and has no process left."""
    needed = {trainer_work(result.id) for result in wish.results}
    needed |= {deployment_work(result.deployment_id) for result in wish.results}
    needed |= {replica_work(replica.inference_id, replica.slot) for replica in wish.replicas}
    needed |= {work for name in seen.workloads if (work := work_of(name)) is not None}
    unused = seen.works - needed
    return [RemoveWorks(frozenset(unused))] if unused else []


def _next_s(wish: Wish, now_us: int) -> float | None:
    times = [*(one.retry_time_us for one in wish.results), *(one.retry_time_us for one in wish.replicas)]
    longest_us = LONGEST_PAUSE_S * SECOND_US
    silent = [SILENT_US / SECOND_US] if wish.replicas else []
    waits = [min(time - now_us, longest_us) / SECOND_US for time in times if time is not None and time > now_us]
    return min([*waits, *silent], default=None)
