"""Queries of deployments (trainings)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from control_plane.store import changes, inferences, results
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.lookups import in_use, row_of
from control_plane.store.rows import deployment_message, parse, stream_message, topic_names
from control_plane.store.states import FINAL_STATES, is_final, state_name
from control_plane.store.tables import (
    ConfigurationRow,
    DeploymentRow,
    MemberRow,
    ModelRow,
    ResultRow,
    StreamRow,
)
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.v1 import deployment_pb2, error_pb2, result_pb2, stream_pb2
from streams.control import topics_of


def create(deployment: deployment_pb2.Deployment) -> deployment_pb2.Deployment:
    """Store a training and one result per model, in one transaction.

    `settings` are complete (the seed is chosen). Without a `stream_id`, the newest stream that was announced for this
    id is taken, if there is one already. With a `from_result_id` the one result gets the code and the stream of that.
    Raises NotFound for the configuration, the stream or the result.
    """
    again = row_of(ResultRow, deployment.from_result_id) if deployment.from_result_id else None
    row_of(ConfigurationRow, deployment.configuration_id)
    if deployment.stream_id:
        row_of(StreamRow, deployment.stream_id)
    now = now_us()
    row = DeploymentRow.create(
        create_time=now,
        update_time=now,
        configuration_id=deployment.configuration_id,
        description=deployment.description,
        settings_pb=deployment.settings.SerializeToString(),
        stream_id=deployment.stream_id or None,
        resources_pb=deployment.resources.SerializeToString(),
        kafka_cluster=deployment.kafka_cluster,
        state=deployment_pb2.STATE_CREATED,
        from_result_id=deployment.from_result_id or None,
        stream_pb=b"" if again is None else results.stream(again).SerializeToString(),
        allowed_topics=",".join(deployment.allowed_topics),
    )
    if again is not None:
        results.create(row, again.model_id, results.code_of_result(again), deployment.settings)
    else:
        _take_early_stream(row)
        for model in _models(deployment.configuration_id):
            results.create(row, model.id, results.code_of_model(model), deployment.settings)
    changes.note(Kind.DEPLOYMENT, row.id)
    return get(row.id)


def filled_from_result(wish: deployment_pb2.Deployment) -> deployment_pb2.Deployment:
    """A wish to train a result again, with everything else that follows from it.

    Its record of a stream is named where it is still there; the training takes what the result keeps of it.
    """
    again = results.get(wish.from_result_id, full=False)
    source = row_of(DeploymentRow, again.deployment_id)
    stream = StreamRow.get_or_none(StreamRow.id == again.stream.id)
    filled = deployment_pb2.Deployment(
        configuration_id=source.configuration_id,
        settings=again.settings,
        stream_id=again.stream.id if stream is not None else 0,
        resources=parse(deployment_pb2.Resources, source.resources_pb),
    )
    filled.MergeFrom(wish)
    return filled


def get(id: int) -> deployment_pb2.Deployment:
    return deployment_message(row_of(DeploymentRow, id), _result_ids([id])[id])


def page(
    *, before_id: int | None, limit: int, configuration_id: int = 0, state: int = 0
) -> list[deployment_pb2.Deployment]:
    """Newest first, those with an id below `before_id`."""
    query = DeploymentRow.select().order_by(DeploymentRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(DeploymentRow.id < before_id)
    if configuration_id:
        query = query.where(DeploymentRow.configuration_id == configuration_id)
    if state:
        query = query.where(DeploymentRow.state == state)
    rows = list(query)
    result_ids = _result_ids([row.id for row in rows])
    return [deployment_message(row, result_ids[row.id]) for row in rows]


def cancel(id: int) -> deployment_pb2.Deployment:
    """Ask every result that has not ended to stop; FailedPrecondition when all have ended as something else."""
    row = row_of(DeploymentRow, id)
    if row.state in (deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED):
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the deployment {id} is {state_name(row.state)} already; only one that runs can be cancelled",
            resource="deployment",
            id=id,
            state=state_name(row.state),
        )
    for result in _active_results(id):
        results.set_state(result.id, deployment_pb2.STATE_CANCELLING)
    return get(id)


def delete(id: int) -> list[str]:
    """Delete an ended training with its results; returns the SHA-256 of artifacts that nothing refers to any more.

    Raises FailedPrecondition while it runs, or while an inference or an alias uses one of its results.
    """
    row = row_of(DeploymentRow, id)
    if not is_final(row.state):
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the deployment {id} is {state_name(row.state)}; cancel it first, or delete it with force",
            resource="deployment",
            id=id,
            state=state_name(row.state),
        )
    orphans: list[str] = []
    for result in ResultRow.select(ResultRow.id).where(ResultRow.deployment_id == id):
        orphans += results.delete(result.id)
    row.delete_instance()
    changes.note(Kind.DEPLOYMENT, id)
    return orphans


def users(id: int) -> list[int]:
    """Inferences that serve a result of this training, or answer with it."""
    trained = ResultRow.select(ResultRow.id).where(ResultRow.deployment_id == id)
    return inferences.users([result.id for result in trained])


def check_unused(id: int) -> None:
    """Raises FailedPrecondition when an inference serves one of its results."""
    if found := users(id):
        raise in_use("deployment", id, "inference", found)


def offer_stream(deployment_id: int, stream_id: int) -> bool:
    """Give a deployment the stream announced for it, if it exists, runs and has none."""
    row = _waiting(deployment_id)
    if row is None:
        return False
    row.stream_id, row.refused_pb = stream_id, None
    row.update_time = now_us()
    row.save()
    changes.note(Kind.DEPLOYMENT, deployment_id)
    return True


def check_allows(stream: stream_pb2.Stream | stream_pb2.StreamAnnouncement) -> None:
    """Raise InvalidArgument (TOPIC_NOT_ALLOWED) where its deployment takes no records of one of its topics."""
    row = DeploymentRow.get_or_none(DeploymentRow.id == stream.deployment_id)
    if row is not None and (error := _not_allowed(row, stream)) is not None:
        raise error


def refuse_announcement(refused: stream_pb2.RefusedAnnouncement) -> None:
    """Let the deployment that it was meant for show it, if it still waits for its stream."""
    row = _waiting(refused.deployment_id)
    if row is None:
        return
    row.refused_pb, row.update_time = refused.SerializeToString(), now_us()
    row.save()
    changes.note(Kind.DEPLOYMENT, row.id)
    for result in _active_results(row.id):
        event = result_pb2.ResultEvent(result_id=result.id, refused_announcement=refused)
        changes.note(Kind.REFUSAL, result.id, event)


def refused_announcements(result_ids: Sequence[int]) -> dict[int, stream_pb2.RefusedAnnouncement]:
    """Result id to the last one that was refused for its deployment, of results that have not ended."""
    results_asked = ResultRow.select(ResultRow.id, ResultRow.deployment_id).where(
        ResultRow.id.in_(result_ids), ResultRow.state.not_in(FINAL_STATES)
    )
    deployment_of = {row.id: row.deployment_id for row in results_asked}
    refused = {
        row.id: parse(stream_pb2.RefusedAnnouncement, row.refused_pb)
        for row in DeploymentRow.select(DeploymentRow.id, DeploymentRow.refused_pb).where(
            DeploymentRow.id.in_(set(deployment_of.values())), DeploymentRow.refused_pb.is_null(False)
        )
    }
    return {one: refused[deployment] for one, deployment in deployment_of.items() if deployment in refused}


def stream_id(id: int) -> int:
    """The stream that it trains on; 0 while it has none."""
    return row_of(DeploymentRow, id).stream_id or 0


def own_stream(id: int) -> stream_pb2.Stream | None:
    """What a training of a result anew learns from, whatever became of the stream's record; None of another."""
    row = row_of(DeploymentRow, id)
    return parse(stream_pb2.Stream, row.stream_pb) if row.stream_pb else None


def _not_allowed(
    row: DeploymentRow, stream: stream_pb2.Stream | stream_pb2.StreamAnnouncement
) -> InvalidArgument | None:
    allowed = topic_names(row.allowed_topics)
    others = sorted(topics_of(stream) - set(allowed)) if allowed else []
    if not others:
        return None
    return InvalidArgument(
        error_pb2.REASON_TOPIC_NOT_ALLOWED,
        f"the deployment {row.id} takes records of {', '.join(allowed)} only, not of {others[0]}",
        id=row.id,
        topic=others[0],
        allowed=", ".join(allowed),
    )


def _waiting(id: int) -> DeploymentRow | None:
    """The deployment, if it exists, runs and has no stream."""
    row: DeploymentRow | None = DeploymentRow.get_or_none(DeploymentRow.id == id)
    if row is None or row.stream_id is not None or row.stream_pb or is_final(row.state):
        return None
    return row


def _take_early_stream(row: DeploymentRow) -> None:
    if row.stream_id is not None:
        return
    for early in StreamRow.select().where(StreamRow.deployment_id == row.id).order_by(StreamRow.id.desc()):
        stream = stream_message(early)
        if (error := _not_allowed(row, stream)) is None:
            row.stream_id, row.refused_pb = early.id, None
            break
        if row.refused_pb is None:
            told = stream_pb2.RefusedAnnouncement(deployment_id=row.id, error=error.to_status(), source=stream.source)
            row.refused_pb = told.SerializeToString()
    row.save()


def _models(configuration_id: int) -> list[ModelRow]:
    query = ModelRow.select().join(MemberRow, on=(MemberRow.model_id == ModelRow.id))
    return list(query.where(MemberRow.configuration_id == configuration_id).order_by(MemberRow.position))


def _result_ids(ids: Sequence[int]) -> dict[int, list[int]]:
    """Deployment id to the ids of its results, in the order of the configuration."""
    found: dict[int, list[int]] = defaultdict(list)
    query = ResultRow.select(ResultRow.id, ResultRow.deployment_id).where(ResultRow.deployment_id.in_(ids))
    for row in query.order_by(ResultRow.id):
        found[row.deployment_id].append(row.id)
    return found


def _active_results(id: int) -> list[ResultRow]:
    query = ResultRow.select().where(ResultRow.deployment_id == id, ResultRow.state.not_in(FINAL_STATES))
    return list(query.order_by(ResultRow.id))
