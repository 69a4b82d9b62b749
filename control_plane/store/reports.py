"""Events that trainers report: stored once, in order, with everything that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.store import results
from control_plane.store.clock import now_us
from control_plane.store.lookups import row_of
from control_plane.store.rows import error_bytes, event_message, parse
from control_plane.store.states import FINAL_STATES, is_final
from control_plane.store.tables import ArtifactRow, EventRow, ResultRow
from headrace.errors import FailedPrecondition
from headrace.v1 import deployment_pb2, error_pb2, result_collector_pb2, result_pb2

ReportRequest = result_collector_pb2.ReportRequest

# What of an outcome is in a column of its own, and only read where somebody looks at it.
HEAVY = ("roc", "residuals")


@dataclass(frozen=True)
class Position:
    """Where a report stands: every event up to `acked_seq` is stored; `resume_from` is set when one is missing."""

    acked_seq: int
    resume_from: int = 0
    fenced: bool = False


def position(result_id: int, attempt: int) -> Position:
    """Where an attempt goes on that has just connected: its first event that is not stored."""
    row = row_of(ResultRow, result_id)
    if _is_fenced(row, attempt):
        return _fenced(row, attempt)
    return Position(acked_seq=row.acked_seq, resume_from=row.acked_seq + 1)


def store(result_id: int, attempt: int, events: Sequence[ReportRequest]) -> Position:
    """Store events of one attempt in the order of their `seq`.

    One that is stored already is passed over. Behind a gap nothing is stored: the answer says where to resume. When an
    event ends the result, what comes behind it is fenced. Storing only without gaps makes the highest `seq` the key of
    all before it, so nothing is stored twice.
    """
    row = row_of(ResultRow, result_id)
    if _is_fenced(row, attempt):
        return _fenced(row, attempt)
    new, gap = _next_events(events, row.acked_seq)
    last_progress = max((event.seq for event in new if event.HasField("progress")), default=0)
    for event in new:
        row.acked_seq = event.seq
        if not event.HasField("progress") or event.seq == last_progress:
            _apply(row, event)
        if is_final(row.state):
            break
    row.save()
    return Position(acked_seq=row.acked_seq, resume_from=row.acked_seq + 1 if gap else 0)


def _next_events(events: Sequence[ReportRequest], acked_seq: int) -> tuple[list[ReportRequest], bool]:
    """Those that follow `acked_seq` without a gap, in order; and whether others are behind a gap."""
    new: list[ReportRequest] = []
    for event in sorted(events, key=lambda event: event.seq):
        expected = acked_seq + len(new) + 1
        if event.seq > expected:
            return new, True
        if event.seq == expected:
            new.append(event)
    return new, False


def _is_fenced(row: ResultRow, attempt: int) -> bool:
    """Only the newest attempt of a result that runs may report.

    An attempt above the row's cannot have been started by this database (it was restored from an older copy).
    """
    return attempt != row.attempt or is_final(row.state)


def _fenced(row: ResultRow, attempt: int) -> Position:
    """An attempt that ended the result itself still hears that its last event is stored."""
    return Position(acked_seq=row.acked_seq if attempt == row.attempt else 0, fenced=True)


def _apply(row: ResultRow, event: ReportRequest) -> None:
    kind = event.WhichOneof("event")
    if kind == "state_change":
        _apply_state(row, event.state_change)
    elif kind == "progress":
        _apply_progress(row, event.progress)
    elif kind == "epoch":
        _apply_epoch(row, event.epoch)
    elif kind == "outcome":
        _apply_outcome(row, event.outcome)


def _apply_state(row: ResultRow, change: result_collector_pb2.StateChange) -> None:
    if row.state in (deployment_pb2.STATE_CANCELLING, deployment_pb2.STATE_CREATED):
        # Its process was told to end; whoever stops it says what comes next.
        return
    if change.state == deployment_pb2.STATE_FINISHED:
        _check_has_artifact(row)
        results.finish(row)
        return
    if change.state == deployment_pb2.STATE_STARTING and change.HasField("error"):
        # The attempt gives up, another one may do better: remember why.
        row.failure_pb = error_bytes(change.error)
    elif change.state == row.state:
        return
    if change.state == deployment_pb2.STATE_FAILED:
        row.error_pb = error_bytes(change.error)
    results.enter(row, change.state)


def _apply_progress(row: ResultRow, progress: result_pb2.Progress) -> None:
    _count_beginning(row, progress)
    row.progress_pb = progress.SerializeToString()
    row.update_time = now_us()
    EventRow.delete().where(EventRow.result_id == row.id, EventRow.is_progress).execute()
    results.add_event(row, result_pb2.ResultEvent(progress=progress), is_progress=True)


def _count_beginning(row: ResultRow, progress: result_pb2.Progress) -> None:
    """An attempt first tells where its training begins. Later than any before it: that is progress without an epoch.

    What it tells afterwards is not, for an attempt after it may have to do that again.
    """
    if progress.phase != deployment_pb2.STATE_TRAINING or _has_begun(row):
        return
    began = progress.epoch * progress.steps + progress.step
    if began > row.best_step:
        row.best_step = began
        row.failure_count = 0


def _has_begun(row: ResultRow) -> bool:
    """Whether this attempt has told of its training before."""
    last = EventRow.get_or_none(EventRow.result_id == row.id, EventRow.is_progress, EventRow.attempt == row.attempt)
    return last is not None and event_message(last).progress.phase == deployment_pb2.STATE_TRAINING


def _apply_epoch(row: ResultRow, reported: result_pb2.Epoch) -> None:
    """Store an epoch; those that older attempts computed from this number on are not part of this training any more."""
    epoch = result_pb2.Epoch()
    epoch.CopyFrom(reported)
    epoch.result_id = row.id
    epoch.attempt = row.attempt
    if epoch.number <= row.best_epoch:
        superseded = (EventRow.epoch >= epoch.number) & (EventRow.attempt < row.attempt)
        again = EventRow.epoch == epoch.number
        EventRow.delete().where(EventRow.result_id == row.id, superseded | again).execute()
    results.add_event(row, result_pb2.ResultEvent(epoch=epoch), epoch=epoch.number)
    _remember_metrics(row, epoch.metrics)
    if epoch.number > row.best_epoch:
        row.best_epoch = epoch.number
        row.failure_count = 0


def _remember_metrics(row: ResultRow, metrics: result_pb2.SplitMetrics) -> None:
    """The last metrics of each split stay on the result."""
    outcome = parse(result_collector_pb2.Outcome, row.outcome_pb)
    for split, values in metrics.splits.items():
        outcome.metrics.splits[split].CopyFrom(values)
    row.outcome_pb = outcome.SerializeToString()
    row.update_time = now_us()


def _apply_outcome(row: ResultRow, said: result_collector_pb2.Outcome) -> None:
    """Fields that are set replace those stored, whole; metrics replace split by split."""
    curves = parse(result_collector_pb2.Outcome, row.curves_pb)
    outcome = parse(result_collector_pb2.Outcome, row.outcome_pb)
    for field, value in said.ListFields():
        if field.name == "metrics":
            for split, values in said.metrics.splits.items():
                outcome.metrics.splits[split].CopyFrom(values)
        elif field.name == "confusion_matrix":
            row.confusion_matrix_pb = value.SerializeToString()
        elif field.name in HEAVY:
            getattr(curves, field.name).CopyFrom(value)
        elif field.message_type is not None:
            getattr(outcome, field.name).CopyFrom(value)
        else:
            setattr(outcome, field.name, value)
    row.outcome_pb = outcome.SerializeToString()
    row.curves_pb = curves.SerializeToString()
    row.update_time = now_us()


def _check_has_artifact(row: ResultRow) -> None:
    if not ArtifactRow.select(ArtifactRow.id).where(ArtifactRow.result_id == row.id).exists():
        raise FailedPrecondition(
            error_pb2.REASON_NO_ARTIFACT,
            f"the result {row.id} has no stored model, so it is not FINISHED; upload one first",
            resource="result",
            id=row.id,
        )


def epoch_page(result_id: int, *, after_number: int, limit: int) -> list[result_pb2.Epoch]:
    """By number, those above `after_number`. Each number is there once: the newest attempt's."""
    row_of(ResultRow, result_id)
    query = EventRow.select().where(EventRow.result_id == result_id, EventRow.epoch > after_number)
    return [event_message(row).epoch for row in query.order_by(EventRow.epoch).limit(limit)]


def watch_page(result_ids: Sequence[int], after: int, limit: int) -> tuple[list[result_pb2.ResultEvent], set[int]]:
    """What watchers of these results have not seen, in order; and which of the results have not ended, as of then."""
    query = EventRow.select().where(EventRow.result_id.in_(result_ids), EventRow.id > after)
    events = [event_message(row) for row in query.order_by(EventRow.id).limit(limit)]
    running = ResultRow.select(ResultRow.id).where(ResultRow.id.in_(result_ids), ResultRow.state.not_in(FINAL_STATES))
    return events, {row.id for row in running}
