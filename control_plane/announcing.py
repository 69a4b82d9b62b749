"""Announcing records that are in Kafka already: selections become offsets once, everything is checked, then it is
posted to the control topic, from where the logger records it like any other announcement.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence

from control_plane.posting import Place, post
from control_plane.training_checks import bad_description
from headrace.errors import FailedPrecondition, FieldViolation, InvalidArgument
from headrace.v1 import error_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2 import AnnounceStreamRequest
from headrace.v1.stream_pb2 import OffsetRange, StreamAnnouncement
from streams import control
from streams.codecs import codec_for
from streams.kafka import KafkaSettings, LogEnds, ensure_topics, log_ends, topic_ids, unknown_topic
from streams.offsets import check_ranges, count_offsets, format_ranges
from streams.selection import bad_selection, resolve

# Less than a caller's deadline, so that he hears which broker is away.
ASK_TIMEOUT_S = 6.0


async def resolved(kafka: KafkaSettings, request: AnnounceStreamRequest) -> StreamAnnouncement:
    """The announcement that a request comes to, every selection as offsets.

    Raises InvalidArgument with every bad field at once, or (EMPTY_STREAM) where nothing is chosen; NotFound
    (UNKNOWN_TOPIC), FailedPrecondition (DATA_EXPIRED, DATA_INCOMPLETE) for ranges that are not in the log, Unavailable.
    """
    return await asyncio.to_thread(_resolve, kafka, request, time.time_ns())


async def announce(
    kafka: KafkaSettings,
    topic: str,
    announcement: StreamAnnouncement,
    dialect: stream_pb2.Dialect = stream_pb2.DIALECT_HEADRACE,
) -> stream_pb2.StreamSource:
    """Post to the control topic, which is made where it is missing; returns where the message stands."""
    await asyncio.to_thread(ensure_topics, kafka, {topic: 1}, ASK_TIMEOUT_S)
    place = await _post(kafka, topic, announcement, dialect)
    return stream_pb2.StreamSource(topic=place.topic, partition=place.partition, offset=place.offset)


async def _post(
    kafka: KafkaSettings, topic: str, announcement: StreamAnnouncement, dialect: stream_pb2.Dialect
) -> Place:
    if dialect == stream_pb2.DIALECT_KAFKA_ML:
        key, value = control.encode_legacy(announcement)
        return await post(kafka, topic, value, key=key)
    headers, value = control.encode(announcement)
    return await post(kafka, topic, value, key=control.deployment_key(announcement.deployment_id), headers=headers)


def _resolve(kafka: KafkaSettings, request: AnnounceStreamRequest, now_ns: int) -> StreamAnnouncement:
    draft = _draft(request)
    if errors := list(_errors_of(request, draft, now_ns)):
        raise control.together(errors)
    _check_written(kafka, request.ranges)
    for selection in request.selections:
        draft.ranges.extend(resolve(kafka, selection, now_ns, ASK_TIMEOUT_S))
    if not count_offsets(draft.ranges):
        raise _nothing_chosen(request)
    check_ranges(list(draft.ranges), "ranges")  # selections may overlap each other, and the ranges
    draft.topic_ids.update(topic_ids(kafka, control.topics_of(draft), ASK_TIMEOUT_S))
    control.check(draft)
    return draft


def _draft(request: AnnounceStreamRequest) -> StreamAnnouncement:
    """Without the selections. How many records the ranges hold is not known: offsets may be holes."""
    return StreamAnnouncement(
        message_id=str(uuid.uuid4()),
        deployment_id=request.deployment_id,
        ranges=request.ranges,
        input_format=request.input_format,
        input_config=request.input_config,
        validation_rate=request.validation_rate,
        test_rate=request.test_rate,
        description=request.description,
        restrictions=request.restrictions,
    )


def _errors_of(request: AnnounceStreamRequest, draft: StreamAnnouncement, now_ns: int) -> Iterator[InvalidArgument]:
    """What is wrong whatever Kafka holds."""
    if bad := list(_bad_fields(request, now_ns)):
        text = "; ".join(f"{one.field}: {one.description}" for one in bad)
        yield InvalidArgument(error_pb2.REASON_INVALID_FIELD, text, fields=bad, field=bad[0].field)
    try:
        control.check(draft, ranges_follow=bool(request.selections))
    except InvalidArgument as error:
        yield error
    if draft.input_format in stream_pb2.DataFormat.values() and draft.input_format:
        yield from _bad_config(draft)


def _bad_fields(request: AnnounceStreamRequest, now_ns: int) -> Iterator[FieldViolation]:
    if not request.deployment_id:
        yield FieldViolation("deployment_id", "must be the id of the training that shall use the records")
    for index, selection in enumerate(request.selections):
        yield from bad_selection(selection, now_ns, f"selections[{index}]")
    yield from bad_description("description", request.description)


def _bad_config(draft: StreamAnnouncement) -> Iterator[InvalidArgument]:
    try:
        codec_for(draft.input_format, draft.input_config)
    except InvalidArgument as error:
        fields = [FieldViolation(f"input_config.{bad.field}", bad.description) for bad in error.fields]
        named = InvalidArgument(error.reason, error.message, fields=fields)
        named.metadata |= error.metadata
        yield named


def _check_written(kafka: KafkaSettings, ranges: Sequence[OffsetRange]) -> None:
    """Raise unless Kafka has every offset of the ranges. Behind an open transaction they only have to be waited for."""
    ends = {topic: log_ends(kafka, topic, ASK_TIMEOUT_S) for topic in sorted({one.topic for one in ranges})}
    for one in ranges:
        if one.partition not in ends[one.topic]:
            raise unknown_topic(one.topic, one.partition)
        found = ends[one.topic][one.partition]
        if one.start < one.end and found.low > one.start:
            raise _not_there(error_pb2.REASON_DATA_EXPIRED, one, found)
        if found.high < one.end:
            raise _not_there(error_pb2.REASON_DATA_INCOMPLETE, one, found)


def _not_there(reason: int, one: OffsetRange, ends: LogEnds) -> FailedPrecondition:
    return FailedPrecondition(
        reason,
        f"{format_ranges([one])} is not in the log, which has the offsets from {ends.low} to {ends.high} (exclusive)",
        resource="stream",
        topic=one.topic,
        partition=one.partition,
        start=one.start,
        end=one.end,
        low=ends.low,
        high=ends.high,
    )


def _nothing_chosen(request: AnnounceStreamRequest) -> InvalidArgument:
    chosen = {one.topic for one in request.ranges} | {one.topic for one in request.selections}
    topics = ", ".join(sorted(chosen))
    return InvalidArgument(
        error_pb2.REASON_EMPTY_STREAM,
        f"nothing that is written in {topics} is chosen; choose another time, or offsets",
        topics=topics,
    )
