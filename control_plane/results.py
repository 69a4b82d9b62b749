"""ResultCollector: what trainers report, stored once, told to any number of watchers; and the files of results."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import dropwhile, groupby
from typing import Any

from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from control_plane.artifacts import ArtifactStore, Upload
from control_plane.bundle import bundle, bundle_name
from control_plane.comparison import compared
from control_plane.events import QUEUE_LENGTH, Follower, Watchers
from control_plane.exports import Exports
from control_plane.listing import newest_first, position
from control_plane.pictures import draw_confusion, draw_residuals, draw_roc
from control_plane.queue import Queue
from control_plane.store import Kind, Store, deployments, reports, results, states
from control_plane.validation import refuse
from headrace import pages
from headrace.errors import (
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from headrace.failpoints import fail_at
from headrace.v1 import deployment_pb2, error_pb2, model_pb2, result_collector_pb2, result_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorServicer

ReportRequest = result_collector_pb2.ReportRequest
ReportResponse = result_collector_pb2.ReportResponse

# One transaction, one fsync, for as many events as have arrived by then.
REPORT_BATCH = 500
REPLAY_PAGE = 200
# What happens to a result, where it stands in the queue, and what was refused while it waits for its stream.
WATCHED = (Kind.RESULT, Kind.QUEUE, Kind.REFUSAL)
KEEP_ALIVE_S = 15.0
WATCH_LIMIT_S = 600.0

# Side by side: as many as a screen has room for.
MOST_COMPARED = 20

# What one event may hold.
MAX_METRICS = 10_000
MAX_METRIC_NAME = 512
MAX_CURVE_NUMBERS = 250_000
# The others are the control plane's own to give.
REPORTED_STATES = (
    deployment_pb2.STATE_STARTING,
    deployment_pb2.STATE_WAITING,
    deployment_pb2.STATE_READING,
    deployment_pb2.STATE_TRAINING,
    deployment_pb2.STATE_EVALUATING,
    deployment_pb2.STATE_UPLOADING,
    deployment_pb2.STATE_FINISHED,
    deployment_pb2.STATE_FAILED,
)

SHA256 = re.compile(r"[0-9a-f]{64}")
ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Stands for the first artifact of a result, which is in the framework's own format.
MAIN_ARTIFACT = "model"


class ResultCollector(ResultCollectorServicer):
    def __init__(
        self,
        store: Store,
        watchers: Watchers,
        artifacts: ArtifactStore,
        queue: Queue,
        exports: Exports,
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
        watch_limit_s: float = WATCH_LIMIT_S,
    ) -> None:
        self._store = store
        self._watchers = watchers
        self._artifacts = artifacts
        self._queue = queue
        self._exports = exports
        self._keep_alive_s = keep_alive_s
        self._watch_limit_s = watch_limit_s

    async def GetResult(self, request: result_collector_pb2.GetResultRequest, context: Any) -> result_pb2.Result:
        found = await self._store.read(lambda: results.get(request.id))
        await self._queue.add_to([found])
        return found

    async def ListResults(
        self, request: result_collector_pb2.ListResultsRequest, context: Any
    ) -> result_collector_pb2.ListResultsResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: results.page(
                before_id=before_id,
                limit=limit,
                full=request.view == model_pb2.VIEW_FULL,
                deployment_id=request.deployment_id,
                model_id=request.model_id,
                state=request.state,
            ),
        )
        await self._queue.add_to(items)
        return result_collector_pb2.ListResultsResponse(results=items, next_page_token=token)

    async def CompareResults(
        self, request: result_collector_pb2.CompareResultsRequest, context: Any
    ) -> result_collector_pb2.CompareResultsResponse:
        ids = request.result_ids
        if not 2 <= len(ids) <= MOST_COMPARED:
            refuse([FieldViolation("result_ids", f"must be 2 to {MOST_COMPARED} results, not {len(ids)}")])
        found = await self._store.read(lambda: [results.get(one, full=False) for one in ids])
        return result_collector_pb2.CompareResultsResponse(results=found, values=compared(found))

    async def DeleteResult(self, request: result_collector_pb2.DeleteResultRequest, context: Any) -> empty_pb2.Empty:
        orphans = await self._store.write(lambda: results.delete(request.id))
        await self._artifacts.remove_unused(self._store, orphans)
        return empty_pb2.Empty()

    async def ListEpochs(
        self, request: result_collector_pb2.ListEpochsRequest, context: Any
    ) -> result_collector_pb2.ListEpochsResponse:
        size = pages.page_size(request.page_size)
        after: int = position(request, int) or 0
        found = await self._store.read(
            lambda: reports.epoch_page(request.result_id, after_number=after, limit=size + 1)
        )
        token = pages.encode_token(request, found[size - 1].number) if len(found) > size else ""
        return result_collector_pb2.ListEpochsResponse(epochs=found[:size], next_page_token=token)

    async def WatchResults(
        self, request: result_collector_pb2.WatchResultsRequest, context: Any
    ) -> AsyncIterator[result_pb2.ResultEvent]:
        watch = await self._watch(request)
        async for event in watch.replayed():
            yield event
        with self._watchers.follow([(kind, one) for one in watch.result_ids for kind in WATCHED]) as follower:
            # What was committed between the end of the replay and the line above.
            async for event in watch.replayed():
                yield event
            for event in watch.waiting(await self._queue.places() if watch.may_wait else {}):
                yield event
            refused = await self._store.read(lambda: deployments.refused_announcements(watch.result_ids))
            for result_id, one in refused.items():
                yield watch.passing(result_pb2.ResultEvent(result_id=result_id, refused_announcement=one))
            async for event in watch.followed(follower):
                yield event

    async def Report(
        self, request_iterator: AsyncIterator[ReportRequest], context: Any
    ) -> AsyncIterator[ReportResponse]:
        report = _Report(self._store)
        async with aclosing(_batches(request_iterator)) as batches:
            async for batch in batches:
                for response in await report.take(batch):
                    yield response
                if report.fenced:
                    return

    async def GetUpload(
        self, request: result_collector_pb2.GetUploadRequest, context: Any
    ) -> result_collector_pb2.GetUploadResponse:
        _check_sha256("sha256", request.sha256)
        await self._store.read(lambda: results.get(request.result_id, full=False))
        offset = await self._artifacts.uploaded(request.result_id, request.sha256)
        return result_collector_pb2.GetUploadResponse(offset=offset)

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[result_collector_pb2.UploadArtifactRequest], context: Any
    ) -> result_pb2.Artifact:
        header = await _header(request_iterator)
        await self._store.read(lambda: _check_may_upload(header))
        if (stored := await self._record_stored(header)) is not None:
            return stored
        sha256, size_bytes = header.artifact.sha256, header.artifact.size_bytes
        with self._artifacts.upload(header.result_id, sha256, header.offset) as upload:
            await _receive(request_iterator, upload, size_bytes)
            await self._artifacts.check(upload, sha256, size_bytes)
            async with self._artifacts.recording:
                await self._artifacts.keep(upload, sha256)
                recorded = await self._record(header)
        if recorded.sha256 != sha256:
            await self._artifacts.remove_unused(self._store, [sha256])
        return recorded

    async def DownloadArtifact(
        self, request: result_collector_pb2.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        artifact = _named(
            await self._store.read(lambda: results.artifacts(request.result_id)), request.result_id, request.name
        )
        if not 0 <= request.offset <= artifact.size_bytes:
            rule = f"must be in [0, {artifact.size_bytes}], not {request.offset}"
            refuse([FieldViolation("offset", rule)])
        body = httpbody_pb2.HttpBody(content_type=artifact.media_type or "application/octet-stream")
        # The first message says what is coming: the gateway tells a browser the file's name and size by it.
        body.extensions.add().Pack(artifact)
        async for chunk in self._artifacts.chunks(artifact.sha256, request.offset):
            body.data = chunk
            yield body
            body = httpbody_pb2.HttpBody(content_type=body.content_type)

    async def ExportResult(
        self, request: result_collector_pb2.ExportResultRequest, context: Any
    ) -> result_pb2.Artifact:
        return await self._exports.artifact(request.result_id, request.format)

    async def DownloadResult(
        self, request: result_collector_pb2.DownloadResultRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        result = await self._store.read(lambda: results.get(request.result_id))
        _named(result.artifacts, result.id, MAIN_ARTIFACT)  # A result without a file has nothing to download.
        body = httpbody_pb2.HttpBody(content_type="application/zip")
        body.extensions.add().Pack(result_pb2.Artifact(name=bundle_name(result), media_type=body.content_type))
        async for piece in bundle(result, self._artifacts):
            body.data = piece
            yield body
            body = httpbody_pb2.HttpBody(content_type=body.content_type)

    async def RenderConfusionMatrix(
        self, request: result_collector_pb2.RenderConfusionMatrixRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        return await self._picture(request.result_id, draw_confusion)

    async def RenderRoc(self, request: result_collector_pb2.RenderRocRequest, context: Any) -> httpbody_pb2.HttpBody:
        return await self._picture(request.result_id, draw_roc)

    async def RenderResiduals(
        self, request: result_collector_pb2.RenderResidualsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        return await self._picture(request.result_id, draw_residuals)

    async def _picture(self, result_id: int, draw: Callable[[result_pb2.Result], bytes]) -> httpbody_pb2.HttpBody:
        result = await self._store.read(lambda: results.get(result_id))
        return httpbody_pb2.HttpBody(content_type="image/png", data=await asyncio.to_thread(draw, result))

    async def _watch(self, request: result_collector_pb2.WatchResultsRequest) -> _Watch:
        if bool(request.result_id) == bool(request.deployment_id):
            refuse([FieldViolation("result_id", "must be set, or deployment_id, and not both")])
        if request.result_id:
            await self._store.read(lambda: results.get(request.result_id, full=False))
            ids = [request.result_id]
        else:
            ids = list((await self._store.read(lambda: deployments.get(request.deployment_id))).result_ids)
        return _Watch(self._store, ids, request.after_sequence, self._keep_alive_s, self._watch_limit_s)

    async def _record_stored(self, header: result_collector_pb2.UploadHeader) -> result_pb2.Artifact | None:
        """Another result, or an earlier try, may have brought the same bytes."""
        async with self._artifacts.recording:
            size_bytes = await self._artifacts.size_of(header.artifact.sha256)
            if size_bytes is None:
                return None
            header.artifact.size_bytes = size_bytes
            return await self._record(header)

    async def _record(self, header: result_collector_pb2.UploadHeader) -> result_pb2.Artifact:
        result_id, artifact = header.result_id, header.artifact
        if header.is_export:
            return await self._store.write(lambda: results.add_export(result_id, artifact))
        return await self._store.write(lambda: results.add_artifact(result_id, header.attempt, artifact))


class _Report:
    """One connection of a trainer."""

    def __init__(self, store: Store) -> None:
        self.fenced = False
        self._store = store
        # After a gap: what is on its way behind it is passed over until the event that was asked for comes.
        self._awaited_seq = 0

    async def take(self, batch: Iterable[ReportRequest]) -> list[ReportResponse]:
        """Store what arrived, and say how far everything is on disk."""
        responses = []
        for part in _parts(batch):
            if part[0].seq == 0:
                responses.append(await self._position(part[0]))
            elif events := self._not_behind_gap(part):
                responses.append(await self._keep(events))
            if self.fenced:
                break
        return responses

    def _not_behind_gap(self, part: Sequence[ReportRequest]) -> list[ReportRequest]:
        if not self._awaited_seq:
            return list(part)
        return list(dropwhile(lambda event: event.seq > self._awaited_seq, part))

    async def _position(self, hello: ReportRequest) -> ReportResponse:
        at = await self._store.read(lambda: reports.position(hello.result_id, hello.attempt))
        self._awaited_seq = 0
        return self._response(at)

    async def _keep(self, events: Sequence[ReportRequest]) -> ReportResponse:
        for event in events:
            _check_event(event)
        fail_at("report_before_commit")
        at = await self._store.write(lambda: reports.store(events[0].result_id, events[0].attempt, events))
        fail_at("report_after_commit")
        self._awaited_seq = at.resume_from
        return self._response(at)

    def _response(self, at: reports.Position) -> ReportResponse:
        self.fenced = at.fenced
        return ReportResponse(acked_seq=at.acked_seq, resume_from=at.resume_from, fenced=at.fenced)


class _Watch:
    """One watcher: where it is, and which of its results may still bring events."""

    def __init__(
        self, store: Store, result_ids: Sequence[int], after: int, keep_alive_s: float, limit_s: float
    ) -> None:
        self.result_ids = result_ids
        self._store = store
        self._last = after
        self._running = set(result_ids)
        # Those that were seen to leave the queue: a place that was found out before is not told after it.
        self._started: set[int] = set()
        self._told: dict[int, deployment_pb2.QueuePlace] = {}
        self._keep_alive_s = keep_alive_s
        self._ends = time.monotonic() + limit_s

    async def replayed(self) -> AsyncIterator[result_pb2.ResultEvent]:
        """What is stored behind the last event, until nothing is."""
        while True:
            events, running = await self._store.read(
                lambda: reports.watch_page(self.result_ids, self._last, REPLAY_PAGE)
            )
            for event in events:
                self._take(event)
                yield event
            if len(events) < REPLAY_PAGE:
                self._running = running
                return

    @property
    def may_wait(self) -> bool:
        """Whether a result may be in the queue, as far as its events tell."""
        return not self._running <= self._started

    def waiting(self, places: Mapping[int, deployment_pb2.QueuePlace]) -> Iterator[result_pb2.ResultEvent]:
        """The present places of those that wait."""
        for result_id in self.result_ids:
            if result_id in places:
                yield from self._queued(result_id, places[result_id])

    async def followed(self, follower: Follower) -> AsyncIterator[result_pb2.ResultEvent]:
        """What comes, until every result has ended or the watch is over."""
        while self._running and (left_s := self._ends - time.monotonic()) > 0:
            change = None if follower.lagged else await follower.next(min(self._keep_alive_s, left_s))
            if follower.lagged:
                raise self._lagged()
            if change is None:
                yield result_pb2.ResultEvent(sequence=self._last)
            elif change.kind == Kind.QUEUE and change.event is not None:
                for event in self._queued(change.id, change.event.queue):
                    yield event
            elif change.kind == Kind.REFUSAL and change.event is not None:
                yield self.passing(change.event)
            elif change.event is not None and change.event.sequence > self._last:
                self._take(change.event)
                yield change.event

    def _take(self, event: result_pb2.ResultEvent) -> None:
        self._last = event.sequence
        if not event.HasField("result"):
            return
        if event.result.state == deployment_pb2.STATE_CREATED:
            self._started.discard(event.result_id)
        else:
            self._started.add(event.result_id)
            self._told.pop(event.result_id, None)
        if states.is_final(event.result.state):
            self._running.discard(event.result_id)

    def _queued(self, result_id: int, place: deployment_pb2.QueuePlace) -> Iterator[result_pb2.ResultEvent]:
        """What is new about a place."""
        if result_id in self._started or self._told.get(result_id) == place:
            return
        self._told[result_id] = place
        yield self.passing(result_pb2.ResultEvent(result_id=result_id, queue=place))

    def passing(self, event: result_pb2.ResultEvent) -> result_pb2.ResultEvent:
        """As an event that is not stored: who resumes after it is told again."""
        told = result_pb2.ResultEvent(sequence=self._last)
        told.MergeFrom(event)
        told.time.GetCurrentTime()
        return told

    def _lagged(self) -> ResourceExhausted:
        return ResourceExhausted(
            error_pb2.REASON_WATCH_LAGGED,
            f"this watcher is more than {QUEUE_LENGTH} events behind; watch again after the sequence {self._last}",
            resume_after=self._last,
        )


async def _batches(requests: AsyncIterator[ReportRequest]) -> AsyncGenerator[list[ReportRequest], None]:
    """All that has arrived, at most REPORT_BATCH at a time; ends with the requests."""
    arrived: asyncio.Queue[ReportRequest | None] = asyncio.Queue(REPORT_BATCH)
    receiving = asyncio.create_task(_receive_all(requests, arrived))
    try:
        while (request := await arrived.get()) is not None:
            batch = [request]
            while len(batch) < REPORT_BATCH and not arrived.empty():
                request = arrived.get_nowait()
                if request is None:
                    break
                batch.append(request)
            yield batch
            if request is None:
                break
        await receiving
    finally:
        receiving.cancel()


async def _receive_all(requests: AsyncIterator[ReportRequest], arrived: asyncio.Queue[ReportRequest | None]) -> None:
    """Ends with None, also when the connection breaks: what came before is stored all the same."""
    try:
        async for request in requests:
            await arrived.put(request)
    finally:
        if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
            await arrived.put(None)


def _parts(batch: Iterable[ReportRequest]) -> Iterator[list[ReportRequest]]:
    """The batch in its order, cut where the attempt changes and around questions (`seq` 0)."""
    for _, part in groupby(batch, key=lambda event: (event.result_id, event.attempt, event.seq == 0)):
        yield list(part)


def _check_event(event: ReportRequest) -> None:
    """Refuse what cannot be stored; the event's own attempt cannot repair it, so its trainer has to end."""
    bad: list[FieldViolation] = []
    if event.seq < 0:
        bad.append(FieldViolation("seq", f"must not be negative, not {event.seq}"))
    if event.HasField("state_change") and event.state_change.state not in REPORTED_STATES:
        bad.append(FieldViolation("state_change.state", "is not one that a trainer reports"))
    if event.HasField("epoch"):
        if event.epoch.number < 1:
            bad.append(FieldViolation("epoch.number", f"must be 1 or more, not {event.epoch.number}"))
        bad += _bad_metrics("epoch.metrics", event.epoch.metrics)
    if event.HasField("outcome"):
        bad += _bad_metrics("outcome.metrics", event.outcome.metrics)
        bad += _bad_confusion_matrix(event.outcome.confusion_matrix)
        bad += _bad_curves(event.outcome)
    refuse(bad)


def _bad_metrics(field: str, metrics: result_pb2.SplitMetrics) -> list[FieldViolation]:
    count = sum(len(split.values) for split in metrics.splits.values())
    names = [*metrics.splits, *(name for split in metrics.splits.values() for name in split.values)]
    if count > MAX_METRICS or any(len(name) > MAX_METRIC_NAME for name in names):
        rule = f"may have {MAX_METRICS} metrics with names of {MAX_METRIC_NAME} characters"
        return [FieldViolation(field, rule)]
    return []


def _bad_confusion_matrix(matrix: result_pb2.ConfusionMatrix) -> list[FieldViolation]:
    expected, found = len(matrix.labels) ** 2, len(matrix.counts)
    if found != expected or any(count < 0 for count in matrix.counts):
        rule = f"must have {expected} counts for {len(matrix.labels)} labels, none negative, not {found}"
        return [FieldViolation("outcome.confusion_matrix.counts", rule)]
    return []


def _bad_curves(outcome: result_collector_pb2.Outcome) -> list[FieldViolation]:
    numbers = sum(len(curve.false_positive_rates) + len(curve.true_positive_rates) for curve in outcome.roc.curves)
    for output in outcome.residuals.outputs:
        numbers += len(output.bin_counts) + len(output.true_sample) + len(output.answered_sample)
    too_many = numbers > MAX_CURVE_NUMBERS
    uneven = any(len(one.false_positive_rates) != len(one.true_positive_rates) for one in outcome.roc.curves)
    if not too_many and not uneven:
        return []
    rule = f"may have {MAX_CURVE_NUMBERS} numbers in all, and curves as many rates of the one kind as of the other"
    return [FieldViolation("outcome", f"roc and residuals {rule}")]


def _check_may_upload(header: result_collector_pb2.UploadHeader) -> None:
    if header.is_export:
        results.check_takes_exports(header.result_id)
    else:
        results.check_may_change(header.result_id, header.attempt)


async def _header(
    requests: AsyncIterator[result_collector_pb2.UploadArtifactRequest],
) -> result_collector_pb2.UploadHeader:
    first = await anext(aiter(requests), None)
    if first is None or not first.HasField("header"):
        raise InvalidArgument(error_pb2.REASON_MALFORMED_REQUEST, "an upload begins with its header, then come chunks")
    header = first.header
    _check_sha256("header.artifact.sha256", header.artifact.sha256)
    bad = []
    if not ARTIFACT_NAME.fullmatch(header.artifact.name) or header.artifact.name == MAIN_ARTIFACT:
        rule = f"must be a file's name other than {MAIN_ARTIFACT!r}, not {header.artifact.name[:80]!r}"
        bad.append(FieldViolation("header.artifact.name", rule))
    for name, value in (("artifact.size_bytes", header.artifact.size_bytes), ("offset", header.offset)):
        if value < 0:
            bad.append(FieldViolation(f"header.{name}", f"must not be negative, not {value}"))
    refuse(bad)
    return header


async def _receive(
    requests: AsyncIterator[result_collector_pb2.UploadArtifactRequest], upload: Upload, size_bytes: int
) -> None:
    async for request in requests:
        if upload.size + len(request.chunk) > size_bytes:
            rule = f"are more bytes than the {size_bytes} of header.artifact.size_bytes"
            refuse([FieldViolation("chunk", rule)])
        await upload.write(request.chunk)


def _check_sha256(field: str, sha256: str) -> None:
    if not SHA256.fullmatch(sha256):
        refuse([FieldViolation(field, f"must be 64 hexadecimal digits in lower case, not {sha256[:80]!r}")])


def _named(artifacts: Sequence[result_pb2.Artifact], result_id: int, name: str) -> result_pb2.Artifact:
    for artifact in artifacts:
        if name in (artifact.name, MAIN_ARTIFACT):
            return artifact
    known = ", ".join(artifact.name for artifact in artifacts) or "none"
    raise NotFound(
        error_pb2.REASON_NO_ARTIFACT,
        f"the result {result_id} has no artifact {name!r}; it has: {known}",
        resource="artifact",
        id=result_id,
        name=name,
        known=known,
    )
