"""What to do about trainings: at most so many at once, those with a stream first, each attempt once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.actions import (
    Action,
    FailTraining,
    Forget,
    GiveWay,
    Requeue,
    RetryTraining,
    SettleCancelled,
    StartTrainer,
    Stop,
)
from control_plane.cluster import Exit, Observed
from control_plane.names import result_of, trainer_name
from control_plane.retries import MAX_ATTEMPTS, end_error, given_up, is_due, is_permanent, pause_us
from control_plane.store.results import ActiveResult
from headrace.v1 import deployment_pb2

# CANCELLED follows within five seconds.
CANCEL_GRACE_S = 4.0
GIVE_WAY_GRACE_S = 5.0
# The trainer of a training that has ended goes by itself.
LEFTOVER_GRACE_S = 10.0

WAITS_FOR_STREAM = (deployment_pb2.STATE_STARTING, deployment_pb2.STATE_WAITING)


def plan_trainings(
    results: Sequence[ActiveResult], workloads: Mapping[str, Observed], max_trainings: int, now_us: int
) -> list[Action]:
    """Every action that the present state calls for. `results` have not ended; `workloads` are all there are."""
    trainers = _by_result(workloads)
    settled = [_settle(result, trainers.pop(result.id, []), now_us) for result in results]
    actions = [action for part in settled for action in part.actions]
    for leftover in trainers.values():
        actions += _end(leftover, LEFTOVER_GRACE_S)
    running = sum(1 for name, workload in workloads.items() if result_of(name) is not None and workload.is_running)
    actions += _fill(settled, running, leftover_count=_running_count(trainers), max_trainings=max_trainings)
    return actions


def queue_places(results: Sequence[ActiveResult], max_trainings: int) -> dict[int, int]:
    """Result id to its place in the queue, from 1, for those that wait for a free processor."""
    waiting = sorted((result for result in results if _is_queued(result)), key=_urgency)
    free = max(0, max_trainings - (len(results) - len(waiting)))
    return {result.id: place for place, result in enumerate(waiting[free:], start=1)}


@dataclass
class _Settled:
    """A result, what to do about the processes that it has, and whether it may have another."""

    result: ActiveResult
    actions: list[Action] = field(default_factory=list)
    # A start that waits for a free processor.
    start: StartTrainer | None = None
    # It has a process that was told to end.
    is_leaving: bool = False
    # It has one that only waits for its stream.
    is_idle: bool = False


def _settle(result: ActiveResult, own: Sequence[Observed], now_us: int) -> _Settled:
    current = next((workload for workload in own if workload.attempt == result.attempt), None)
    older = [workload for workload in own if workload is not current]
    is_running = any(workload.is_running for workload in own)
    if result.state == deployment_pb2.STATE_CANCELLING:
        end: list[Action] = [] if is_running else [SettleCancelled(result.id)]
        return _Settled(result, [*end, *_end(own, CANCEL_GRACE_S)], is_leaving=is_running)
    if result.state == deployment_pb2.STATE_CREATED:
        start = None if is_running else StartTrainer(result)
        return _Settled(result, _end(own, GIVE_WAY_GRACE_S), start, is_leaving=is_running)
    settled = _Settled(result, _end(older, 0.0), is_leaving=any(workload.is_running for workload in older))
    if result.retry_time_us is not None:
        settled.actions += [Forget(current.name)] if current is not None and not current.is_running else []
        settled.start = StartTrainer(result) if is_due(result.retry_time_us, now_us) and not is_running else None
    elif current is None:
        _settle_missing(settled, now_us, is_running)
    elif current.exit is not None:
        settled.actions.append(_after(result, current.exit, now_us))
    else:
        settled.is_idle = not result.has_stream and result.state in WAITS_FOR_STREAM
    return settled


def _settle_missing(settled: _Settled, now_us: int, is_running: bool) -> None:
    """No trace of the present attempt. Unless it has reported, we were broken off between its number and its start."""
    result = settled.result
    if result.acked_seq > 0 or result.state != deployment_pb2.STATE_STARTING:
        settled.actions.append(_after(result, Exit(), now_us))
    elif not is_running:
        settled.start = StartTrainer(result, again=True)


def _after(result: ActiveResult, ended: Exit, now_us: int) -> Action:
    """What the end of an attempt calls for whose training has not ended."""
    if ended.stopped:
        return Requeue(result.id)
    error = end_error(trainer_name(result.id, result.attempt), ended)
    if is_permanent(ended):
        return FailTraining(result.id, result.failure or error)
    failures = result.failure_count + 1
    if failures >= MAX_ATTEMPTS:
        return FailTraining(result.id, given_up(result.failure or error, failures))
    return RetryTraining(result.id, None if result.failure else error, now_us + pause_us(failures))


def _fill(settled: Sequence[_Settled], running: int, leftover_count: int, max_trainings: int) -> Iterator[Action]:
    """Start what fits, the most urgent first; when that is not enough, have those give way that only wait."""
    starts = sorted((one.start for one in settled if one.start is not None), key=lambda start: _urgency(start.result))
    free = max(0, max_trainings - running)
    yield from starts[:free]
    urgent = sum(1 for start in starts[free:] if start.result.has_stream)
    leaving = leftover_count + sum(1 for one in settled if one.is_leaving)
    idle = sorted((one.result.id for one in settled if one.is_idle), reverse=True)
    for result_id in idle[: max(0, urgent - leaving)]:
        yield GiveWay(result_id)


def _urgency(result: ActiveResult) -> tuple[bool, bool, int]:
    """With a stream before without, what had begun before what had not, then the oldest."""
    return not result.has_stream, _is_queued(result), result.id


def _is_queued(result: ActiveResult) -> bool:
    return result.state == deployment_pb2.STATE_CREATED


def _end(workloads: Sequence[Observed], grace_s: float) -> list[Action]:
    return [Stop(workload.name, grace_s) if workload.is_running else Forget(workload.name) for workload in workloads]


def _by_result(workloads: Mapping[str, Observed]) -> dict[int, list[Observed]]:
    found: dict[int, list[Observed]] = defaultdict(list)
    for name, workload in workloads.items():
        if (result_id := result_of(name)) is not None:
            found[result_id].append(workload)
    return found


def _running_count(trainers: Mapping[int, Sequence[Observed]]) -> int:
    return sum(1 for own in trainers.values() for workload in own if workload.is_running)
