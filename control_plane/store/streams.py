"""Queries of announced streams and of how far control topics are recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.store import changes, deployments
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.lookups import in_use, row_of
from control_plane.store.rows import stream_message, time_us
from control_plane.store.states import FINAL_STATES
from control_plane.store.tables import ControlPositionRow, ControlTopicRow, DeploymentRow, StreamRow
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2, stream_catalog_pb2, stream_pb2


@dataclass(frozen=True)
class Recorded:
    """What recording a message came to; `created` is false for one that is stored already."""

    stream: stream_pb2.Stream | None
    created: bool


def record(request: stream_catalog_pb2.RecordStreamRequest) -> Recorded:
    """Store an announcement once, give it to its deployment, and advance the position, all in one transaction.

    Those that were refused are shown by the deployments that they were meant for.
    """
    row, created = None, False
    if request.HasField("announcement"):
        topic_id = _topic_id(request.source.topic)
        row = _recorded_before(request, topic_id)
        if row is None:
            deployments.check_allows(request.announcement)
            row, created = _insert(request, topic_id), True
    for refused in request.refused:
        deployments.refuse_announcement(refused)
    _advance(request.source)
    return Recorded(None if row is None else stream_message(row), created)


def get(id: int) -> stream_pb2.Stream:
    return stream_message(row_of(StreamRow, id))


def page(*, before_id: int | None, limit: int, deployment_id: int = 0) -> list[stream_pb2.Stream]:
    """Newest first, those with an id below `before_id`."""
    query = StreamRow.select().order_by(StreamRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(StreamRow.id < before_id)
    if deployment_id:
        query = query.where(StreamRow.deployment_id == deployment_id)
    return [stream_message(row) for row in query]


def delete(id: int) -> None:
    """Forget a stream that no running deployment trains on."""
    row = row_of(StreamRow, id)
    using = DeploymentRow.select(DeploymentRow.id).where(
        DeploymentRow.stream_id == id, DeploymentRow.state.not_in(FINAL_STATES)
    )
    if ids := [deployment.id for deployment in using]:
        raise in_use("stream", id, "deployment", ids)
    row.delete_instance()
    changes.note(Kind.STREAM, id)


def of_deployment(deployment_id: int) -> stream_pb2.Stream | None:
    """The stream that a deployment trains on, if it has one yet."""
    if (own := deployments.own_stream(deployment_id)) is not None:
        return own
    stream_id = deployments.stream_id(deployment_id)
    return get(stream_id) if stream_id else None


def follow(topic: str, topic_id: str) -> dict[int, int]:
    """Partition to the next offset to record of the control topic that has this id in Kafka.

    From now on messages are recorded as this topic's. What an older topic of the same name was recorded up to is
    forgotten; its streams stay.
    """
    row = ControlTopicRow.get_or_none(ControlTopicRow.topic == topic)
    if row is None:
        # Recorded by a version that did not know ids: the topic is taken for the one that it knew.
        StreamRow.update(source_topic_id=topic_id).where(
            StreamRow.source_topic == topic, StreamRow.source_topic_id == ""
        ).execute()
        ControlTopicRow.create(topic=topic, topic_id=topic_id)
    elif row.topic_id != topic_id:
        ControlPositionRow.delete().where(ControlPositionRow.topic == topic).execute()
        ControlTopicRow.update(topic_id=topic_id).where(ControlTopicRow.topic == topic).execute()
    return positions(topic)


def positions(topic: str) -> dict[int, int]:
    """Partition to the next offset to record."""
    rows = ControlPositionRow.select().where(ControlPositionRow.topic == topic)
    return {row.partition: row.next_offset for row in rows}


def _recorded_before(request: stream_catalog_pb2.RecordStreamRequest, topic_id: str) -> StreamRow | None:
    """The stream of this message: of its place in the log, or of its id, for the same deployment and the same topics.

    Raises InvalidArgument (INVALID_FIELD) where another deployment's stream has the id.
    """
    source = request.source
    same_place = (
        (StreamRow.source_topic == source.topic)
        & (StreamRow.source_topic_id == topic_id)
        & (StreamRow.source_partition == source.partition)
        & (StreamRow.source_offset == source.offset)
    )
    row: StreamRow | None = StreamRow.get_or_none(same_place)
    if row is None:
        row = StreamRow.get_or_none(StreamRow.message_id == _message_id(request))
        _check_deployment(row, request.announcement)
    return row


def _check_deployment(row: StreamRow | None, announcement: stream_pb2.StreamAnnouncement) -> None:
    if row is not None and row.deployment_id != announcement.deployment_id:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            f"the stream {announcement.message_id!r} was announced for deployment {row.deployment_id} already; "
            "give another stream_id",
            fields=[FieldViolation("announcement.message_id", f"belongs to deployment {row.deployment_id}")],
        )


def _insert(request: stream_catalog_pb2.RecordStreamRequest, topic_id: str) -> StreamRow:
    source, now = request.source, now_us()
    row = StreamRow.create(
        create_time=now,
        update_time=now,
        message_id=_message_id(request),
        deployment_id=request.announcement.deployment_id,
        announcement_pb=request.announcement.SerializeToString(),
        dialect=request.dialect,
        source_topic=source.topic,
        source_topic_id=topic_id,
        source_partition=source.partition,
        source_offset=source.offset,
        source_time=time_us(source.time) if source.HasField("time") else None,
    )
    changes.note(Kind.STREAM, row.id)
    deployments.offer_stream(row.deployment_id, row.id)
    return row


def _topic_id(topic: str) -> str:
    """Of the control topic that is being recorded; empty while nobody follows one."""
    row = ControlTopicRow.get_or_none(ControlTopicRow.topic == topic)
    return "" if row is None else str(row.topic_id)


def _message_id(request: stream_catalog_pb2.RecordStreamRequest) -> str:
    """What the stream is known by: its id, with that of its topics where they were made anew since it was recorded."""
    source, announcement = request.source, request.announcement
    message_id = announcement.message_id or f"{source.topic}/{source.partition}/{source.offset}"
    first = StreamRow.get_or_none(StreamRow.message_id == message_id)
    if first is None or not _recreated(stream_message(first).topic_ids, announcement.topic_ids):
        return message_id
    topics = "\n".join(f"{topic} {announcement.topic_ids[topic]}" for topic in sorted(announcement.topic_ids))
    return f"{message_id}@{hashlib.sha256(topics.encode()).hexdigest()[:32]}"


def _recreated(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a topic has another id. One whose id was not known may be the same."""
    return any(before[topic] != now[topic] for topic in before.keys() & now.keys())


def _advance(source: stream_pb2.StreamSource) -> None:
    """Positions only rise: a message that is recorded again leaves them."""
    next_offset = source.offset + 1
    place = (ControlPositionRow.topic == source.topic) & (ControlPositionRow.partition == source.partition)
    row = ControlPositionRow.get_or_none(place)
    if row is None:
        ControlPositionRow.create(topic=source.topic, partition=source.partition, next_offset=next_offset)
    elif row.next_offset < next_offset:
        ControlPositionRow.update(next_offset=next_offset).where(place).execute()
