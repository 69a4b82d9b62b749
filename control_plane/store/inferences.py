"""Queries of inferences and their replicas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from google.rpc import status_pb2

from control_plane.store import changes
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.lookups import check_etag, check_name_free, row_of
from control_plane.store.rows import error_bytes, inference_message, parse
from control_plane.store.states import FINAL_INFERENCE_STATES, inference_state_name
from control_plane.store.tables import InferenceRow, ReplicaRow, ResultRow
from control_plane.store.warnings import warnings_of
from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2, inference_pb2

# What the server knows better than the stored message: kept in columns, or computed.
_NOT_STORED = (
    "id",
    "create_time",
    "update_time",
    "state",
    "error",
    "replica_states",
    "etag",
    "model_name",
    "model_version",
    "warnings",
)


# The wish stays as it is.
_NO_MORE = (*FINAL_INFERENCE_STATES, inference_pb2.INFERENCE_STATE_STOPPING)
# Replicas that are at work; an error of theirs is not their end.
_AT_WORK = (inference_pb2.INFERENCE_STATE_RUNNING, inference_pb2.INFERENCE_STATE_DEGRADED)

# A process that dies sooner, and has answered nothing, counts as one more failure in a row.
SURVIVED_US = 20_000_000


@dataclass(frozen=True)
class Replica:
    """The reconciler's view of one slot."""

    inference_id: int
    slot: int
    attempt: int
    state: int
    restart_count: int
    failure_count: int
    retry_time_us: int | None
    report_time_us: int | None
    # What it last said is wrong.
    error: status_pb2.Status | None


def create(inference: inference_pb2.Inference) -> inference_pb2.Inference:
    """Store an inference whose defaults are filled in, STARTING, with a row per replica."""
    check_name_free(InferenceRow, inference.name)
    row_of(ResultRow, inference.result_id)
    now = now_us()
    row = InferenceRow.create(
        create_time=now,
        update_time=now,
        state=inference_pb2.INFERENCE_STATE_STARTING,
        **_columns(inference),
    )
    _fit_replicas(row)
    changes.note(Kind.INFERENCE, row.id)
    return get(row.id)


def get(id: int) -> inference_pb2.Inference:
    return _messages([row_of(InferenceRow, id)])[0]


def page(
    *, before_id: int | None, limit: int, state: int = 0, result_id: int = 0, name: str = ""
) -> list[inference_pb2.Inference]:
    """Newest first, those with an id below `before_id`."""
    query = InferenceRow.select().order_by(InferenceRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(InferenceRow.id < before_id)
    if state:
        query = query.where(InferenceRow.state == state)
    if result_id:
        query = query.where(InferenceRow.result_id == result_id)
    if name:
        query = query.where(InferenceRow.name == name)
    return _messages(list(query))


def wanted() -> list[inference_pb2.Inference]:
    """Every inference that has not ended, STOPPING ones too, oldest first."""
    query = InferenceRow.select().where(InferenceRow.state.not_in(FINAL_INFERENCE_STATES))
    return _messages(list(query.order_by(InferenceRow.id)))


def update(inference: inference_pb2.Inference, if_etag: str) -> inference_pb2.Inference:
    """Replace the wish; Aborted when the etag is no longer `if_etag`. Slots above `replicas` stay until dropped."""
    row = row_of(InferenceRow, inference.id)
    check_etag(row, if_etag)
    check_name_free(InferenceRow, inference.name, row.id)
    _check_not_ended(row)
    row_of(ResultRow, inference.result_id)
    for column, value in _columns(inference).items():
        setattr(row, column, value)
    row.revision += 1
    row.update_time = now_us()
    row.save()
    _fit_replicas(row)
    changes.note(Kind.INFERENCE, row.id)
    return get(row.id)


def follow_alias(model_id: int, alias: str, result_id: int) -> None:
    """The alias points to another result now: what is served by it and has not ended follows."""
    served = (InferenceRow.model_id == model_id) & (InferenceRow.alias_name == alias)
    query = InferenceRow.select().where(served, InferenceRow.result_id != result_id)
    for row in query.where(InferenceRow.state.not_in(_NO_MORE)):
        row.result_id = result_id
        row.revision += 1
        row.update_time = now_us()
        row.save()
        changes.note(Kind.INFERENCE, row.id)


def users(result_ids: Collection[int]) -> list[int]:
    """Inferences that serve one of these results, or answer with it while the one that is wanted cannot be loaded."""
    rows = list(InferenceRow.select().order_by(InferenceRow.id))
    return [row.id for row in rows if row.result_id in result_ids or _answering(row) in result_ids]


def users_of_cluster(name: str) -> list[int]:
    """Inferences with topics on this Kafka cluster."""
    wishes = {row.id: parse(inference_pb2.Inference, row.inference_pb) for row in InferenceRow.select()}
    return sorted(key for key, one in wishes.items() if name in (one.input_kafka_cluster, one.output_kafka_cluster))


def check_new(inference: inference_pb2.Inference) -> None:
    """Raises AlreadyExists when its name is taken."""
    check_name_free(InferenceRow, inference.name)


def names() -> list[str]:
    """Every name that is taken."""
    return [row.name for row in InferenceRow.select(InferenceRow.name)]


def stop(id: int) -> inference_pb2.Inference:
    """Ask it to stop; FailedPrecondition when it has failed. One that stops or has stopped stays as it is."""
    row = row_of(InferenceRow, id)
    if row.state == inference_pb2.INFERENCE_STATE_FAILED:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the inference {id} is FAILED already; only one that runs can be stopped",
            resource="inference",
            id=id,
            state="FAILED",
        )
    set_state(id, inference_pb2.INFERENCE_STATE_STOPPING)
    return get(id)


def delete(id: int) -> None:
    """Delete an inference that has ended."""
    row = row_of(InferenceRow, id)
    if row.state not in FINAL_INFERENCE_STATES:
        state = inference_state_name(row.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the inference {id} is {state}; stop it first, or delete it with force",
            resource="inference",
            id=id,
            state=state,
        )
    row.delete_instance()
    changes.note(Kind.INFERENCE, id)


def set_state(id: int, state: int, error: status_pb2.Status | None = None) -> None:
    """Put an inference into a state, unless it is in it or has ended. One that ends has no replicas any more.

    One that was asked to stop only ends: what the reconciler saw before that does not undo the wish.
    """
    row = row_of(InferenceRow, id)
    is_stopping = row.state == inference_pb2.INFERENCE_STATE_STOPPING
    is_end = state in FINAL_INFERENCE_STATES
    if row.state == state or row.state in FINAL_INFERENCE_STATES or (is_stopping and not is_end):
        return
    row.state = state
    row.error_pb = error_bytes(error)
    row.update_time = now_us()
    row.save()
    if is_end:
        drop_replicas(id, 0)
    changes.note(Kind.INFERENCE, id)


def replicas(inference_id: int | None = None) -> list[Replica]:
    """The slots of an inference, or of every one that has not ended, by inference and slot."""
    query = ReplicaRow.select().join(InferenceRow, on=(ReplicaRow.inference_id == InferenceRow.id))
    if inference_id is not None:
        query = query.where(ReplicaRow.inference_id == inference_id)
    else:
        query = query.where(InferenceRow.state.not_in(FINAL_INFERENCE_STATES))
    return [_replica(row) for row in query.order_by(ReplicaRow.inference_id, ReplicaRow.slot)]


def start_replica(inference_id: int, slot: int, *, again: bool = False) -> int:
    """Give a slot its next attempt, which fences those before, and return its number; `again`: the one that it has.

    Raises FailedPrecondition when the inference has ended or is told to, NotFound when it was deleted.
    """
    _check_not_ended(row_of(InferenceRow, inference_id))
    row = _replica_row(inference_id, slot)
    row.attempt += 0 if again else 1
    row.restart_count = row.attempt - 1
    row.retry_time = None
    row.start_time = now_us()
    _put_starting(row, _said_error(row))
    return row.attempt


def report_replica(inference_id: int, attempt: int, said: inference_pb2.ReplicaState) -> None:
    """Keep what a replica says of itself; FENCED for an older attempt, or a slot that is no longer wanted."""
    row = ReplicaRow.get_or_none(ReplicaRow.inference_id == inference_id, ReplicaRow.slot == said.slot)
    if row is None or row.attempt != attempt:
        current = 0 if row is None else row.attempt
        raise FailedPrecondition(
            error_pb2.REASON_FENCED,
            f"attempt {attempt} of slot {said.slot} of the inference {inference_id} was replaced by attempt {current}",
            resource="inference",
            id=inference_id,
            slot=said.slot,
            attempt=current,
        )
    row.state_pb = said.SerializeToString()
    if row.state != said.state:
        # The state of the whole may follow.
        changes.note(Kind.INFERENCE, inference_id)
    row.state = said.state
    row.report_time = now_us()
    ran_us = row.report_time - (row.start_time or row.report_time)
    if said.state == inference_pb2.INFERENCE_STATE_RUNNING and (said.answered_count or ran_us > SURVIVED_US):
        row.failure_count = 0
    _save_replica(row)
    if said.state == inference_pb2.INFERENCE_STATE_RUNNING:
        _keep_answering(inference_id, said.result_id)


def _answering(row: InferenceRow) -> int:
    """What a replica that starts goes back to; 0 of an inference that has ended."""
    if row.state in FINAL_INFERENCE_STATES:
        return 0
    return int(parse(inference_pb2.Inference, row.inference_pb).answering_result_id)


def _keep_answering(inference_id: int, result_id: int) -> None:
    """The wanted result could be loaded: it answers until the next one can."""
    row = row_of(InferenceRow, inference_id)
    wish = parse(inference_pb2.Inference, row.inference_pb)
    if result_id == row.result_id != wish.answering_result_id:
        wish.answering_result_id = result_id
        row.inference_pb = wish.SerializeToString()
        row.save()


def record_replica_failure(inference_id: int, slot: int, error: status_pb2.Status | None, retry_time_us: int) -> int:
    """A slot's process ended by itself: count it; returns how many did in a row without running.

    `error` replaces what it said itself; None keeps that. The next one may start at `retry_time_us`.
    """
    row = ReplicaRow.get_or_none(ReplicaRow.inference_id == inference_id, ReplicaRow.slot == slot)
    if row is None:
        return 0
    row.failure_count += 1
    row.retry_time = retry_time_us
    _put_starting(row, error or _said_error(row))
    return int(row.failure_count)


def restart_replica(inference_id: int, slot: int, retry_time_us: int) -> None:
    """A slot's process ended because it was told to, and another one is wanted."""
    row = ReplicaRow.get_or_none(ReplicaRow.inference_id == inference_id, ReplicaRow.slot == slot)
    if row is not None:
        row.retry_time = retry_time_us
        _put_starting(row, None)


def drop_replicas(inference_id: int, from_slot: int) -> None:
    """Forget the slots from this one on; their processes are gone."""
    ReplicaRow.delete().where(ReplicaRow.inference_id == inference_id, ReplicaRow.slot >= from_slot).execute()
    changes.note(Kind.REPLICA, inference_id)


def _said_error(row: ReplicaRow) -> status_pb2.Status | None:
    said = parse(inference_pb2.ReplicaState, row.state_pb)
    return said.error if said.HasField("error") else None


def _put_starting(row: ReplicaRow, error: status_pb2.Status | None) -> None:
    """Of what the process said only the error is still true."""
    row.state = inference_pb2.INFERENCE_STATE_STARTING
    row.state_pb = inference_pb2.ReplicaState(error=error).SerializeToString()
    row.report_time = None
    _save_replica(row)


def _replica_row(inference_id: int, slot: int) -> ReplicaRow:
    row, _ = ReplicaRow.get_or_create(  # type: ignore[no-untyped-call]
        inference_id=inference_id, slot=slot
    )
    found: ReplicaRow = row
    return found


def _save_replica(row: ReplicaRow) -> None:
    row.save()
    changes.note(Kind.REPLICA, row.inference_id)


def _replica(row: ReplicaRow) -> Replica:
    return Replica(
        inference_id=row.inference_id,
        slot=row.slot,
        attempt=row.attempt,
        state=row.state,
        restart_count=row.restart_count,
        failure_count=row.failure_count,
        retry_time_us=row.retry_time,
        report_time_us=row.report_time,
        error=_said_error(row),
    )


def _fit_replicas(row: InferenceRow) -> None:
    for slot in range(row.replicas):
        _replica_row(row.id, slot)


def _check_not_ended(row: InferenceRow) -> None:
    if row.state in _NO_MORE:
        state = inference_state_name(row.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the inference {row.id} is {state}; only one that runs can be changed",
            resource="inference",
            id=row.id,
            state=state,
        )


def _columns(inference: inference_pb2.Inference) -> dict[str, object]:
    wish = inference_pb2.Inference()
    wish.CopyFrom(inference)
    for name in _NOT_STORED:
        wish.ClearField(name)
    return {
        "name": inference.name,
        "result_id": inference.result_id,
        "model_id": inference.model_id or None,
        "alias_name": inference.alias,
        "replicas": inference.replicas,
        "inference_pb": wish.SerializeToString(),
    }


def _messages(rows: Sequence[InferenceRow]) -> list[inference_pb2.Inference]:
    ids = [row.id for row in rows]
    slots: dict[int, list[ReplicaRow]] = defaultdict(list)
    for slot in ReplicaRow.select().where(ReplicaRow.inference_id.in_(ids)).order_by(ReplicaRow.slot):
        slots[slot.inference_id].append(slot)
    served = {row.id: row for row in ResultRow.select().where(ResultRow.id.in_([row.result_id for row in rows]))}
    return [
        _with_remarks(
            inference_message(row, slots[row.id], served[row.result_id].model_name, served[row.result_id].version)
        )
        for row in rows
    ]


def _with_remarks(inference: inference_pb2.Inference) -> inference_pb2.Inference:
    """What a replica at work says is wrong is wrong with the whole. Warnings are not stored: they follow."""
    inference.warnings[:] = warnings_of(inference)
    errors = [one.error for one in inference.replica_states if one.state in _AT_WORK and one.HasField("error")]
    if errors and not inference.HasField("error"):
        inference.error.CopyFrom(errors[0])
    return inference
