"""Queries of results: their state, their attempts, what is known of them. Events of trainers are in `reports`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from google.rpc import status_pb2

from control_plane.store import changes, inferences
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.connections import database
from control_plane.store.lookups import in_use, row_of
from control_plane.store.rows import (
    artifact_message,
    error_bytes,
    number_event,
    parse,
    parse_error,
    result_message,
)
from control_plane.store.states import FINAL_STATES, is_final, state_name, whole_state
from control_plane.store.tables import (
    AliasRow,
    ArtifactRow,
    DeploymentRow,
    ModelRow,
    ResultRow,
)
from headrace.errors import FailedPrecondition
from headrace.v1 import deployment_pb2, error_pb2, result_collector_pb2, result_pb2, stream_pb2


@dataclass(frozen=True)
class ActiveResult:
    """What the reconciler needs to know of a result that has not ended."""

    id: int
    deployment_id: int
    model_id: int
    framework: int
    state: int
    attempt: int
    # How many events of this attempt are stored.
    acked_seq: int
    has_stream: bool
    resources: deployment_pb2.Resources
    # Attempts in a row that ended without progress, the error of the last one, and when the next may start.
    failure_count: int
    failure: status_pb2.Status | None
    retry_time_us: int | None


# What has ended, or is told to end, is not put into another state by what its process does.
_UNTOUCHABLE = (*FINAL_STATES, deployment_pb2.STATE_CANCELLING)


@dataclass(frozen=True)
class Code:
    """What is trained: a model as it was at some time."""

    model_name: str
    framework: int
    imports: str
    code: str
    code_sha256: str


def code_of_model(model: ModelRow) -> Code:
    """As it is now."""
    return Code(model.name, model.framework, model.imports, model.code, model.code_sha256)


def code_of_result(result: ResultRow) -> Code:
    """As it was when the result was created."""
    return Code(result.model_name, result.framework, result.imports, result.code, result.code_sha256)


def create(
    deployment: DeploymentRow, model_id: int, code: Code, settings: deployment_pb2.TrainingSettings
) -> ResultRow:
    now = now_us()
    row = ResultRow.create(
        create_time=now,
        update_time=now,
        deployment_id=deployment.id,
        model_id=model_id,
        **asdict(code),
        state=deployment_pb2.STATE_CREATED,
        outcome_pb=result_collector_pb2.Outcome(settings=settings).SerializeToString(),
    )
    announce(row)
    return row


def get(id: int, *, full: bool = True) -> result_pb2.Result:
    return _messages([row_of(ResultRow, id)], full=full)[0]


def page(
    *,
    before_id: int | None,
    limit: int,
    full: bool = False,
    deployment_id: int = 0,
    model_id: int = 0,
    state: int = 0,
) -> list[result_pb2.Result]:
    """Newest first, those with an id below `before_id`."""
    query = ResultRow.select().order_by(ResultRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(ResultRow.id < before_id)
    if deployment_id:
        query = query.where(ResultRow.deployment_id == deployment_id)
    if model_id:
        query = query.where(ResultRow.model_id == model_id)
    if state:
        query = query.where(ResultRow.state == state)
    return _messages(list(query), full=full)


def delete(id: int) -> list[str]:
    """Delete an ended result; returns the SHA-256 of artifacts that nothing refers to any more."""
    row = row_of(ResultRow, id)
    _check_deletable(row)
    digests = {artifact.sha256 for artifact in ArtifactRow.select().where(ArtifactRow.result_id == id)}
    row.delete_instance()
    changes.note(Kind.RESULT, id)
    return sorted(digest for digest in digests if not digest_is_used(digest))


def stream(row: ResultRow) -> stream_pb2.Stream:
    """What it was trained on; empty while that is not known."""
    return parse(result_collector_pb2.Outcome, row.outcome_pb).stream


def active() -> list[ActiveResult]:
    """Every result that has not ended, oldest first."""
    query = (
        ResultRow.select(ResultRow, DeploymentRow.stream_id, DeploymentRow.stream_pb, DeploymentRow.resources_pb)
        .join(DeploymentRow, on=(ResultRow.deployment_id == DeploymentRow.id))
        .where(ResultRow.state.not_in(FINAL_STATES))
        .order_by(ResultRow.id)
        .objects()
    )
    return [_active(row) for row in query]


def start_attempt(id: int) -> int:
    """Give the result its next attempt, which fences those before, and return its number. The state is STARTING."""
    row = row_of(ResultRow, id)
    _check_runs(row)
    row.attempt += 1
    row.acked_seq = 0
    row.retry_time = None
    row.failure_pb = None
    row.start_time = row.start_time or now_us()
    enter(row, deployment_pb2.STATE_STARTING)
    return row.attempt


def set_state(id: int, state: int, error: status_pb2.Status | None = None) -> None:
    """Put the result into a state, unless it has ended. A FAILED one has an error."""
    row = row_of(ResultRow, id)
    if is_final(row.state) or row.state == state:
        return
    row.error_pb = error_bytes(error) if state == deployment_pb2.STATE_FAILED else None
    enter(row, state)


def record_failure(id: int, error: status_pb2.Status | None, retry_time_us: int) -> int:
    """An attempt ended without an end of the training: count it; returns how many did in a row without progress.

    `error` replaces what the attempt reported itself; None keeps that. The next attempt may start at `retry_time_us`;
    until then the result is STARTING.
    """
    row = row_of(ResultRow, id)
    if row.state not in _UNTOUCHABLE:
        row.failure_count += 1
        row.retry_time = retry_time_us
        row.failure_pb = error_bytes(error) if error is not None else row.failure_pb
        enter(row, deployment_pb2.STATE_STARTING)
    return row.failure_count


def fail(id: int, error: status_pb2.Status) -> None:
    """End it, unless it has ended or is being cancelled."""
    if row_of(ResultRow, id).state not in _UNTOUCHABLE:
        set_state(id, deployment_pb2.STATE_FAILED, error)


def requeue(id: int) -> None:
    """Back into the queue, without a failure, unless it has ended or is being cancelled."""
    row = row_of(ResultRow, id)
    if row.state not in (*_UNTOUCHABLE, deployment_pb2.STATE_CREATED):
        row.retry_time = None
        enter(row, deployment_pb2.STATE_CREATED)


def give_way(id: int) -> None:
    """Back into the queue if it only waits for its stream, and does not do more by now."""
    if row_of(ResultRow, id).state in (deployment_pb2.STATE_STARTING, deployment_pb2.STATE_WAITING):
        requeue(id)


def add_artifact(id: int, attempt: int, artifact: result_pb2.Artifact) -> result_pb2.Artifact:
    """Record a stored file; the same name replaces the one before. FENCED for an older attempt."""
    row = row_of(ResultRow, id)
    check_attempt(row, attempt)
    ArtifactRow.delete().where(ArtifactRow.result_id == id, ArtifactRow.name == artifact.name).execute()
    return _insert_artifact(id, artifact)


def add_export(id: int, artifact: result_pb2.Artifact) -> result_pb2.Artifact:
    """Record a converted model of a FINISHED result; one of the same name stays. Returns what is there."""
    check_takes_exports(id)
    there = ArtifactRow.get_or_none(ArtifactRow.result_id == id, ArtifactRow.name == artifact.name)
    return _insert_artifact(id, artifact) if there is None else artifact_message(there)


def check_takes_exports(id: int) -> None:
    """WRONG_STATE unless the result is FINISHED."""
    row = row_of(ResultRow, id)
    if row.state != deployment_pb2.STATE_FINISHED:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {id} is {state_name(row.state)}; only one that is FINISHED has exports",
            resource="result",
            id=id,
            state=state_name(row.state),
        )


def _insert_artifact(id: int, artifact: result_pb2.Artifact) -> result_pb2.Artifact:
    stored = ArtifactRow.create(
        result_id=id,
        name=artifact.name,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        create_time=now_us(),
    )
    changes.note(Kind.RESULT, id)
    return artifact_message(stored)


def artifacts(id: int) -> list[result_pb2.Artifact]:
    """In the order of their upload: the framework's own format is the first."""
    row_of(ResultRow, id)
    query = ArtifactRow.select().where(ArtifactRow.result_id == id).order_by(ArtifactRow.id)
    return [artifact_message(row) for row in query]


def digest_is_used(sha256: str) -> bool:
    return bool(ArtifactRow.select(ArtifactRow.id).where(ArtifactRow.sha256 == sha256).exists())


def check_may_change(id: int, attempt: int) -> None:
    """NotFound, or FENCED unless the attempt is the current one of a result that runs."""
    check_attempt(row_of(ResultRow, id), attempt)


def check_attempt(row: ResultRow, attempt: int) -> None:
    """FENCED unless the attempt is the current one of a result that runs."""
    if attempt != row.attempt or is_final(row.state):
        raise FailedPrecondition(
            error_pb2.REASON_FENCED,
            f"attempt {attempt} of the result {row.id} may not change it any more: "
            f"it is {state_name(row.state)} in attempt {row.attempt}",
            resource="result",
            id=row.id,
            attempt=row.attempt,
            state=state_name(row.state),
        )


def announce(row: ResultRow) -> None:
    """Tell watchers the result as it is now."""
    message = _messages([row], full=False)[0]
    add_event(row, result_pb2.ResultEvent(result=message))


def add_event(
    row: ResultRow, kind: result_pb2.ResultEvent, *, epoch: int | None = None, is_progress: bool = False
) -> None:
    """Append what happened to the events that watchers see. `kind` has only its oneof set."""
    now = now_us()
    # By hand: reports come by the thousand, and building this statement costs fifty times as much as running it.
    inserted = database.execute_sql(  # type: ignore[no-untyped-call]
        "INSERT INTO result_event (result_id, attempt, time, kind_pb, epoch, is_progress) VALUES (?, ?, ?, ?, ?, ?)",
        (row.id, row.attempt, now, kind.SerializeToString(), epoch, is_progress),
    )
    event = result_pb2.ResultEvent()
    event.CopyFrom(kind)
    number_event(event, sequence=inserted.lastrowid, result_id=row.id, attempt=row.attempt, time_us=now)
    changes.note(Kind.RESULT, row.id, event)


def enter(row: ResultRow, state: int) -> None:
    """Put a row into a state, whatever it was in; tells watchers and settles the deployment."""
    row.state = state
    row.update_time = now_us()
    if is_final(state):
        row.end_time = row.update_time
    row.save()
    announce(row)
    settle_deployment(row.deployment_id)


def finish(row: ResultRow) -> None:
    """Make it the next version of its model."""
    model = row_of(ModelRow, row.model_id)
    model.last_version += 1
    model.save(only=[ModelRow.last_version])
    row.version = model.last_version
    if row.progress_pb:
        progress = parse(result_pb2.Progress, row.progress_pb)
        progress.phase = deployment_pb2.STATE_FINISHED
        row.progress_pb = progress.SerializeToString()
    enter(row, deployment_pb2.STATE_FINISHED)


def settle_deployment(id: int) -> None:
    """Make the deployment's state, error and times follow from its results."""
    row = row_of(DeploymentRow, id)
    parts = list(ResultRow.select().where(ResultRow.deployment_id == id).order_by(ResultRow.id))
    row.state = whole_state([part.state for part in parts])
    starts = [part.start_time for part in parts if part.start_time is not None]
    row.start_time = min(starts, default=None)
    if is_final(row.state):
        row.end_time = max((part.end_time for part in parts if part.end_time is not None), default=now_us())
        failed = [part for part in parts if part.state == deployment_pb2.STATE_FAILED]
        row.error_pb = min(failed, key=lambda part: part.end_time or 0).error_pb if failed else None
    row.update_time = now_us()
    row.save()
    changes.note(Kind.DEPLOYMENT, id)


def _active(row: ResultRow) -> ActiveResult:
    # The columns of the joined tables sit on the row itself (`objects()` does not nest them).
    joined = row.__data__ | row.__dict__
    return ActiveResult(
        id=row.id,
        deployment_id=row.deployment_id,
        model_id=row.model_id,
        framework=row.framework,
        state=row.state,
        attempt=row.attempt,
        acked_seq=row.acked_seq,
        has_stream=joined["stream_id"] is not None or bool(joined["stream_pb"]),
        resources=parse(deployment_pb2.Resources, joined["resources_pb"]),
        failure_count=row.failure_count,
        failure=parse_error(row.failure_pb),
        retry_time_us=row.retry_time,
    )


def _messages(rows: Sequence[ResultRow], *, full: bool) -> list[result_pb2.Result]:
    ids = [row.id for row in rows]
    files: dict[int, list[ArtifactRow]] = defaultdict(list)
    for file in ArtifactRow.select().where(ArtifactRow.result_id.in_(ids)).order_by(ArtifactRow.id):
        files[file.result_id].append(file)
    aliases: dict[int, list[str]] = defaultdict(list)
    for alias in AliasRow.select().where(AliasRow.result_id.in_(ids)).order_by(AliasRow.name):
        aliases[alias.result_id].append(alias.name)
    return [result_message(row, files[row.id], aliases[row.id], full=full) for row in rows]


def _check_runs(row: ResultRow) -> None:
    if is_final(row.state) or row.state == deployment_pb2.STATE_CANCELLING:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {row.id} is {state_name(row.state)}; it cannot be started",
            resource="result",
            id=row.id,
            state=state_name(row.state),
        )


def _check_deletable(row: ResultRow) -> None:
    if not is_final(row.state):
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {row.id} is {state_name(row.state)}; cancel its deployment {row.deployment_id} first",
            resource="result",
            id=row.id,
            state=state_name(row.state),
        )
    if ids := inferences.users([row.id]):
        raise in_use("result", row.id, "inference", ids)
    aliases = [alias.name for alias in AliasRow.select().where(AliasRow.result_id == row.id)]
    if aliases:
        named = ", ".join(aliases)
        raise FailedPrecondition(
            error_pb2.REASON_RESOURCE_IN_USE,
            f"the result {row.id} is what the alias {named} of the model {row.model_id} points to; "
            "move or delete the alias first",
            resource="result",
            id=row.id,
            used_by="model_alias",
            used_by_ids=named,
        )
