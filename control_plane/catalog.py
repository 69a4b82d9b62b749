"""StreamCatalog: every data set that was announced on the control topic."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

from google.protobuf import empty_pb2

from control_plane.announcing import announce, resolved
from control_plane.availability import add_availability
from control_plane.events import Watchers
from control_plane.listing import newest_first
from control_plane.store import Kind, Store, deployments, states, streams
from control_plane.stream_heads import check_topics, head_count, read_head
from control_plane.validation import refuse
from headrace.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2, model_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogServicer
from streams import control
from streams.kafka import KafkaSettings, topic_ids, unknown_topic
from streams.offsets import count_offsets, format_ranges

AWAIT_LIMIT_S = 30.0
# Less than a caller's deadline, so that he hears which broker is away.
ASK_TIMEOUT_S = 6.0

# What an announcement and the stream that came of it have in common.
_SAID = (
    "ranges",
    "unsupervised_ranges",
    "input_format",
    "input_config",
    "validation_rate",
    "test_rate",
    "record_count",
    "description",
    "restrictions",
    "incremental",
    "open_topics",
    "unsupervised_open_topics",
    "stream_key",
    "topic_ids",
)


class StreamCatalog(StreamCatalogServicer):
    def __init__(self, store: Store, watchers: Watchers, kafka: KafkaSettings, control_topic: str) -> None:
        self._store = store
        self._watchers = watchers
        self._kafka = kafka
        self._control_topic = control_topic

    async def GetStream(self, request: stream_catalog_pb2.GetStreamRequest, context: Any) -> stream_pb2.Stream:
        stream = _readable(await self._store.read(lambda: streams.get(request.id)))
        await add_availability(self._kafka, [stream])
        return stream

    async def ListStreams(
        self, request: stream_catalog_pb2.ListStreamsRequest, context: Any
    ) -> stream_catalog_pb2.ListStreamsResponse:
        def query(before_id: int | None, limit: int) -> list[stream_pb2.Stream]:
            page = streams.page(before_id=before_id, limit=limit, deployment_id=request.deployment_id)
            return [_readable(stream) for stream in page]

        found, token = await newest_first(self._store, request, query)
        if request.view == model_pb2.VIEW_FULL:
            await add_availability(self._kafka, found)
        return stream_catalog_pb2.ListStreamsResponse(streams=found, next_page_token=token)

    async def DeleteStream(self, request: stream_catalog_pb2.DeleteStreamRequest, context: Any) -> empty_pb2.Empty:
        await self._store.write(lambda: streams.delete(request.id))
        return empty_pb2.Empty()

    async def ReplayStream(
        self, request: stream_catalog_pb2.ReplayStreamRequest, context: Any
    ) -> stream_catalog_pb2.ReplayStreamResponse:
        stream = await self._store.read(lambda: streams.get(request.id))
        await self._store.read(lambda: _check_takes_stream(request.deployment_id))
        again = _announcement(stream, request.deployment_id)
        await self._store.read(lambda: deployments.check_allows(again))
        await asyncio.to_thread(check_topics, self._kafka, stream, ASK_TIMEOUT_S)
        # In the dialect that it came in: what listens to the topic beside us understood it the first time.
        source = await announce(self._kafka, self._control_topic, again, stream.dialect)
        return stream_catalog_pb2.ReplayStreamResponse(source=source)

    async def AnnounceStream(
        self, request: stream_catalog_pb2.AnnounceStreamRequest, context: Any
    ) -> stream_catalog_pb2.AnnounceStreamResponse:
        announcement = await resolved(self._kafka, request)
        await self._store.read(lambda: _check_may_take_stream(request.deployment_id))
        await self._store.read(lambda: deployments.check_allows(announcement))
        source = None
        if not request.validate_only:
            source = await announce(self._kafka, self._control_topic, announcement)
        return stream_catalog_pb2.AnnounceStreamResponse(
            source=source, ranges=announcement.ranges, offset_count=count_offsets(announcement.ranges)
        )

    async def GetStreamHead(
        self, request: stream_catalog_pb2.GetStreamHeadRequest, context: Any
    ) -> stream_catalog_pb2.GetStreamHeadResponse:
        count = head_count(request.record_count)
        stream = await self._store.read(lambda: streams.get(request.id))
        head = await asyncio.to_thread(read_head, self._kafka, stream, count)
        await add_availability(self._kafka, [stream])
        head.availability = stream.availability
        return head

    async def AwaitStream(
        self, request: stream_catalog_pb2.AwaitStreamRequest, context: Any
    ) -> stream_catalog_pb2.AwaitStreamResponse:
        wait_s = request.wait.ToNanoseconds() / 1e9 if request.HasField("wait") else AWAIT_LIMIT_S
        ends = time.monotonic() + min(wait_s, AWAIT_LIMIT_S)
        with self._watchers.wake((Kind.DEPLOYMENT, request.deployment_id)) as wake:
            stream = await self._stream_of(request.deployment_id)
            while stream is None and (left_s := ends - time.monotonic()) > 0:
                await wake.wait(left_s)
                stream = await self._stream_of(request.deployment_id)
        return stream_catalog_pb2.AwaitStreamResponse(stream=stream)

    async def RecordStream(
        self, request: stream_catalog_pb2.RecordStreamRequest, context: Any
    ) -> stream_catalog_pb2.RecordStreamResponse:
        _check(request)
        fail_at("stream_before_commit")
        recorded = await self._store.write(lambda: streams.record(request))
        fail_at("stream_after_commit")
        stream = None if recorded.stream is None else _readable(recorded.stream)
        return stream_catalog_pb2.RecordStreamResponse(stream=stream, created=recorded.created)

    async def GetRecordedPositions(
        self, request: stream_catalog_pb2.GetRecordedPositionsRequest, context: Any
    ) -> stream_catalog_pb2.GetRecordedPositionsResponse:
        ids = await asyncio.to_thread(topic_ids, self._kafka, [request.topic], ASK_TIMEOUT_S)
        if request.topic not in ids:
            raise unknown_topic(request.topic)
        found = await self._store.write(lambda: streams.follow(request.topic, ids[request.topic]))
        return stream_catalog_pb2.GetRecordedPositionsResponse(next_offsets=found)

    async def _stream_of(self, deployment_id: int) -> stream_pb2.Stream | None:
        stream = await self._store.read(lambda: streams.of_deployment(deployment_id))
        return None if stream is None else _readable(stream)


def _readable(stream: stream_pb2.Stream) -> stream_pb2.Stream:
    """With its ranges as Kafka-ML writes them."""
    stream.range_string = ",".join(filter(None, [format_ranges(stream.ranges), *stream.open_topics]))
    return stream


def _announcement(stream: stream_pb2.Stream, deployment_id: int) -> stream_pb2.StreamAnnouncement:
    """The stream announced anew, for a deployment."""
    said: dict[str, Any] = {name: getattr(stream, name) for name in _SAID}
    return stream_pb2.StreamAnnouncement(message_id=str(uuid.uuid4()), deployment_id=deployment_id, **said)


def _check_may_take_stream(deployment_id: int) -> None:
    """Raise FailedPrecondition where the deployment could not use it any more; one that does not exist yet may."""
    with suppress(NotFound):
        _check_takes_stream(deployment_id)


def _check_takes_stream(deployment_id: int) -> None:
    deployment = deployments.get(deployment_id)
    if deployment.from_result_id or deployment.stream_id or states.is_final(deployment.state):
        has = f"has the stream {deployment.stream_id}" if deployment.stream_id else "has ended"
        if deployment.from_result_id:
            has = f"trains the result {deployment.from_result_id} again and has the stream of that"
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the deployment {deployment_id} {has} already; create another one for this stream",
            resource="deployment",
            id=deployment_id,
            state=states.state_name(deployment.state),
            stream_id=deployment.stream_id,
        )


def _check(request: stream_catalog_pb2.RecordStreamRequest) -> None:
    """Raise InvalidArgument with every field that cannot be recorded, those of the announcement too."""
    source, bad = request.source, []
    if not source.topic:
        bad.append(FieldViolation("source.topic", "must be the control topic"))
    for name, value in (("partition", source.partition), ("offset", source.offset)):
        if value < 0:
            bad.append(FieldViolation(f"source.{name}", f"must not be negative, not {value}"))
    if request.HasField("announcement"):
        if request.dialect not in (stream_pb2.DIALECT_HEADRACE, stream_pb2.DIALECT_KAFKA_ML):
            bad.append(FieldViolation("dialect", "must be DIALECT_HEADRACE or DIALECT_KAFKA_ML"))
        bad += _bad_announcement(request.announcement, also=bool(bad))
    refuse(bad)


def _bad_announcement(announcement: stream_pb2.StreamAnnouncement, *, also: bool) -> list[FieldViolation]:
    """Its bad fields; alone (not `also`), the error keeps the reason that `streams` gives it, such as INVALID_RANGE."""
    try:
        control.check(announcement)
    except InvalidArgument as error:
        if not also:
            raise
        return [FieldViolation(f"announcement.{bad.field}", bad.description) for bad in error.fields]
    return []
