"""Reports of trainers and their watchers, over gRPC."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, status_pb2

from control_plane.artifacts import ArtifactStore
from control_plane.events import Watchers
from control_plane.executor_client import ExecutorClient
from control_plane.exports import Exports
from control_plane.queue import Queue
from control_plane.results import ResultCollector
from control_plane.store import Store, deployments, reports, results
from headrace.client import connect, connect_async
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from headrace.server import serving
from headrace.v1 import deployment_pb2, model_pb2, result_pb2, stream_pb2
from headrace.v1 import result_collector_pb2 as api
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub, add_ResultCollectorServicer_to_server
from tests.control_plane.conftest import Plane, new_training

FINISHED = deployment_pb2.STATE_FINISHED
TRAINING = deployment_pb2.STATE_TRAINING


class Reporting:
    """A trainer's end of a Report call: sends what it is told, one answer at a time."""

    def __init__(self, plane: Plane, result_id: int, attempt: int = 1) -> None:
        self._sent: asyncio.Queue[api.ReportRequest | None] = asyncio.Queue()
        self._answers = aiter(plane.collector.Report(self._requests()))
        self._key = api.ReportRequest(result_id=result_id, attempt=attempt)

    async def ask(self) -> api.ReportResponse:
        """Say hello."""
        return await self.send(api.ReportRequest(seq=0))

    async def send(self, event: api.ReportRequest) -> api.ReportResponse:
        """Send an event and return its answer, if every one before was answered."""
        self.post(event)
        return await self.answer()

    def post(self, event: api.ReportRequest) -> None:
        event.MergeFrom(self._key)
        self._sent.put_nowait(event)

    async def answer(self) -> api.ReportResponse:
        async with asyncio.timeout(10):
            answer: api.ReportResponse = await anext(self._answers)
            return answer

    async def until(self, seq: int) -> api.ReportResponse:
        """Answers until one acknowledges `seq`."""
        while (answer := await self.answer()).acked_seq < seq:
            pass
        return answer

    def end(self) -> None:
        self._sent.put_nowait(None)

    async def _requests(self) -> AsyncIterator[api.ReportRequest]:
        while (request := await self._sent.get()) is not None:
            yield request


@asynccontextmanager
async def reporting(plane: Plane, result_id: int, attempt: int = 1) -> AsyncIterator[Reporting]:
    trainer = Reporting(plane, result_id, attempt)
    try:
        yield trainer
    finally:
        trainer.end()


def epoch(seq: int, number: int, loss: float = 0.5) -> api.ReportRequest:
    metrics = result_pb2.SplitMetrics(splits={"training": result_pb2.Metrics(values={"loss": loss})})
    return api.ReportRequest(seq=seq, epoch=result_pb2.Epoch(number=number, metrics=metrics))


def state(seq: int, to: deployment_pb2.State, reason: str = "") -> api.ReportRequest:
    change = api.StateChange(state=to)
    if reason:
        change.error.CopyFrom(status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=reason))
    return api.ReportRequest(seq=seq, state_change=change)


def progress(seq: int, step: int) -> api.ReportRequest:
    return api.ReportRequest(seq=seq, progress=result_pb2.Progress(phase=TRAINING, step=step))


async def numbers(plane: Plane, result_id: int) -> list[tuple[int, int]]:
    """(number, attempt) of every epoch, as listed."""
    request = api.ListEpochsRequest(result_id=result_id, page_size=3)
    found: list[tuple[int, int]] = []
    while True:
        page = await plane.collector.ListEpochs(request)
        found += [(one.number, one.attempt) for one in page.epochs]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def get(plane: Plane, result_id: int) -> result_pb2.Result:
    result: result_pb2.Result = await plane.collector.GetResult(api.GetResultRequest(id=result_id))
    return result


async def give_artifact(plane: Plane, result_id: int, attempt: int = 1) -> None:
    artifact = result_pb2.Artifact(name="model.keras", size_bytes=1, sha256="0" * 64)
    await plane.store.write(partial(results.add_artifact, result_id, attempt, artifact))


async def new_result(plane: Plane, name: str = "a") -> int:
    return (await plane.training(name)).result_ids[0]


async def test_a_new_attempt_begins_with_its_first_event(plane: Plane) -> None:
    async with reporting(plane, await new_result(plane)) as trainer:
        hello = await trainer.ask()
    assert (hello.acked_seq, hello.resume_from, hello.fenced) == (0, 1, False)


async def test_events_are_acknowledged_up_to_the_last_stored(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        for seq in range(1, 8):
            trainer.post(epoch(seq, seq))
        assert (await trainer.until(7)).resume_from == 0
    assert await numbers(plane, result_id) == [(number, 1) for number in range(1, 8)]


async def test_the_whole_story_of_a_training_shows_on_its_result(plane: Plane) -> None:
    deployment = await plane.training("a")
    (result_id,) = deployment.result_ids
    await give_artifact(plane, result_id)
    known = api.Outcome(
        framework_version="tensorflow 2.21.0",
        training_time=duration_pb2.Duration(seconds=3),
        stream=stream_pb2.Stream(id=4, record_count=10),
        split_sizes=result_pb2.SplitSizes(training=8, validation=1, test=1),
        metrics=result_pb2.SplitMetrics(splits={"test": result_pb2.Metrics(values={"accuracy": 0.75})}),
        confusion_matrix=result_pb2.ConfusionMatrix(labels=["0", "1"], counts=[3, 1, 0, 4]),
    )
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        story = [
            state(1, deployment_pb2.STATE_READING),
            progress(2, 1),
            state(3, TRAINING),
            epoch(4, 1, loss=0.9),
            api.ReportRequest(seq=5, outcome=known),
            progress(6, 5),
            state(7, FINISHED),
        ]
        for event in story:
            trainer.post(event)
        assert not (await trainer.until(7)).fenced
    result = await get(plane, result_id)
    assert (result.state, result.version, result.attempt) == (FINISHED, 1, 1)
    assert result.metrics.splits["training"].values["loss"] == 0.9
    assert result.metrics.splits["test"].values["accuracy"] == 0.75
    assert result.settings.seed == 7
    assert result.stream.id == 4
    assert list(result.confusion_matrix.counts) == [3, 1, 0, 4]
    assert (result.progress.step, result.progress.phase) == (5, FINISHED)
    assert result.HasField("start_time")
    assert result.HasField("end_time")
    whole = await plane.store.read(partial(deployments.get, deployment.id))
    assert (whole.state, whole.end_time) == (FINISHED, result.end_time)


async def test_a_list_leaves_heavy_fields_out(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        matrix = result_pb2.ConfusionMatrix(labels=["0"], counts=[1])
        await trainer.ask()
        await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(confusion_matrix=matrix)))
    (basic,) = (await plane.collector.ListResults(api.ListResultsRequest())).results
    assert not basic.HasField("confusion_matrix")
    assert not basic.code
    (full,) = (await plane.collector.ListResults(api.ListResultsRequest(view=model_pb2.VIEW_FULL))).results
    assert full.confusion_matrix == matrix
    assert full.code


async def test_lists_of_results_are_filtered(plane: Plane) -> None:
    one, other = await plane.training("a", "b"), await plane.training("c")
    listed = await plane.collector.ListResults(api.ListResultsRequest(deployment_id=one.id))
    assert [result.id for result in listed.results] == list(reversed(one.result_ids))
    listed = await plane.collector.ListResults(
        api.ListResultsRequest(model_id=listed.results[0].model_id, state=deployment_pb2.STATE_STARTING)
    )
    assert [result.id for result in listed.results] == [one.result_ids[1]]
    assert other.result_ids[0] not in [result.id for result in listed.results]


async def test_versions_count_per_model_and_are_never_given_twice(plane: Plane) -> None:
    result_id = await new_result(plane)
    configuration_id = (await plane.store.read(partial(deployments.get, 1))).configuration_id

    async def finish_another() -> int:
        wish = deployment_pb2.Deployment(configuration_id=configuration_id)
        deployment = await plane.store.write(partial(deployments.create, wish))
        (another,) = deployment.result_ids
        await plane.store.write(partial(results.start_attempt, another))
        await finish(another)
        return int(another)

    async def finish(one: int) -> None:
        await give_artifact(plane, one)
        async with reporting(plane, one) as trainer:
            await trainer.ask()
            await trainer.send(state(1, FINISHED))

    await finish(result_id)
    second = await finish_another()
    assert (await get(plane, second)).version == 2
    await plane.collector.DeleteResult(api.DeleteResultRequest(id=second))
    assert (await get(plane, await finish_another())).version == 3


async def test_nothing_is_finished_without_a_model(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        with pytest.raises(FailedPrecondition) as caught:
            await trainer.send(state(1, FINISHED))
    assert caught.value.reason_name == "NO_ARTIFACT"
    assert (await get(plane, result_id)).state == deployment_pb2.STATE_STARTING


async def test_a_failure_keeps_its_error(plane: Plane) -> None:
    deployment = await plane.training("a", "b")
    first, second = deployment.result_ids
    for result_id, end in ((first, "no memory"), (second, "no data")):
        async with reporting(plane, result_id) as trainer:
            await trainer.ask()
            await trainer.send(state(1, deployment_pb2.STATE_FAILED, end))
    assert (await get(plane, first)).error.message == "no memory"
    whole = await plane.store.read(partial(deployments.get, deployment.id))
    assert (whole.state, whole.error.message) == (deployment_pb2.STATE_FAILED, "no memory")


async def test_an_error_of_an_attempt_that_gives_up_is_kept_for_the_end(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(state(1, deployment_pb2.STATE_STARTING, "the broker is away"))
    (active,) = await plane.store.read(results.active)
    assert active.failure is not None
    assert active.failure.message == "the broker is away"
    assert not (await get(plane, result_id)).HasField("error")


async def test_what_is_sent_again_is_stored_once(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(epoch(1, 1))
    async with reporting(plane, result_id) as trainer:
        assert (await trainer.ask()).resume_from == 2
        assert (await trainer.send(epoch(1, 1))).acked_seq == 1
        trainer.post(epoch(1, 1))
        trainer.post(epoch(2, 2))
        await trainer.until(2)
    assert await numbers(plane, result_id) == [(1, 1), (2, 1)]
    events = await plane.store.read(partial(reports.watch_page, [result_id], 0, 100))
    assert sum(event.HasField("epoch") for event in events[0]) == 2


async def test_a_gap_is_answered_once_with_where_to_resume(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        gap = await trainer.send(epoch(3, 3))
        assert (gap.acked_seq, gap.resume_from) == (0, 1)
        # What was on its way already says nothing new.
        trainer.post(epoch(4, 4))
        for seq in (1, 2, 3, 4):
            trainer.post(epoch(seq, seq))
        answer = await trainer.until(4)
        assert answer.resume_from == 0
    assert await numbers(plane, result_id) == [(number, 1) for number in (1, 2, 3, 4)]


async def test_any_order_and_repetition_ends_with_each_event_once(plane: Plane) -> None:
    """A network that loses, doubles and reorders, and a trainer that resumes where it is told."""
    result_id, last = await new_result(plane), 40
    chance = random.Random(11)
    async with reporting(plane, result_id) as trainer:
        answer = await trainer.ask()
        while answer.acked_seq < last:
            next_seq = answer.acked_seq + 1
            window = list(range(next_seq, min(next_seq + 8, last + 1)))
            garbled = [seq for seq in window if chance.random() > 0.2] + chance.choices(window, k=3)
            chance.shuffle(garbled)
            for seq in [*garbled, next_seq]:
                trainer.post(epoch(seq, seq))
            answer = await trainer.until(next_seq)
    assert await numbers(plane, result_id) == [(number, 1) for number in range(1, last + 1)]


async def test_a_newer_attempt_fences_the_older(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as old:
        await old.ask()
        await old.send(epoch(1, 1))
        await old.send(epoch(2, 2))
        assert await plane.store.write(partial(results.start_attempt, result_id)) == 2
        async with reporting(plane, result_id, attempt=2) as new:
            assert (await new.ask()).resume_from == 1
            await new.send(epoch(1, 1))
            assert (await old.send(epoch(3, 3))).fenced
    assert await numbers(plane, result_id) == [(1, 2)]


async def test_a_resumed_attempt_keeps_the_epochs_before_it(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        for seq in (1, 2, 3, 4, 5):
            trainer.post(epoch(seq, seq))
        await trainer.until(5)
    await plane.store.write(partial(results.start_attempt, result_id))
    # Until it has an epoch of its own, those of the attempt before are shown.
    assert await numbers(plane, result_id) == [(number, 1) for number in (1, 2, 3, 4, 5)]
    async with reporting(plane, result_id, attempt=2) as trainer:
        await trainer.ask()
        await trainer.send(epoch(1, 4))
    assert await numbers(plane, result_id) == [(1, 1), (2, 1), (3, 1), (4, 2)]


async def test_a_higher_epoch_is_progress_and_forgets_failures(plane: Plane) -> None:
    result_id = await new_result(plane)
    for expected in (1, 2):
        assert await plane.store.write(partial(results.record_failure, result_id, None, 0)) == expected
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(epoch(1, 1))
    assert await plane.store.write(partial(results.record_failure, result_id, None, 0)) == 1
    await plane.store.write(partial(results.start_attempt, result_id))
    async with reporting(plane, result_id, attempt=2) as trainer:
        await trainer.ask()
        await trainer.send(epoch(1, 1))
    assert await plane.store.write(partial(results.record_failure, result_id, None, 0)) == 2


async def test_an_attempt_that_begins_later_is_progress_and_the_latest_beginning_stays(plane: Plane) -> None:
    result_id = await new_result(plane)

    async def failures_after(attempt: int, *steps: int) -> int:
        """How often it has failed in a row, once an attempt that told of these steps has failed."""
        await plane.store.write(partial(results.start_attempt, result_id))
        async with reporting(plane, result_id, attempt) as trainer:
            await trainer.ask()
            for seq, step in enumerate(steps, 1):
                await trainer.send(progress(seq, step))
        return int(await plane.store.write(partial(results.record_failure, result_id, None, 0)))

    assert await failures_after(2, 5, 70) == 1
    assert await failures_after(3, 5) == 2, "where it came to is not where the next begins"
    assert await failures_after(4, 4) == 3
    assert await failures_after(5, 5) == 4, "an earlier beginning does not lower what counts"
    assert await failures_after(6, 6) == 1


async def test_an_ended_result_takes_no_events_but_acknowledges_its_last(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(state(1, deployment_pb2.STATE_FAILED, "over"))
    async with reporting(plane, result_id) as again:
        hello = await again.ask()
    assert (hello.acked_seq, hello.fenced) == (1, True)
    async with reporting(plane, result_id) as late:
        assert (await late.send(epoch(2, 1))).fenced
    assert await numbers(plane, result_id) == []


async def test_a_cancelled_training_cannot_finish(plane: Plane) -> None:
    deployment = await plane.training("a")
    (result_id,) = deployment.result_ids
    await give_artifact(plane, result_id)
    await plane.store.write(partial(deployments.cancel, deployment.id))
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        assert (await trainer.send(state(1, FINISHED))).acked_seq == 1
    assert (await get(plane, result_id)).state == deployment_pb2.STATE_CANCELLING


async def test_nan_and_infinity_stay_what_they_are(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        for seq, loss in enumerate((math.nan, math.inf, -math.inf), 1):
            trainer.post(epoch(seq, seq, loss))
        await trainer.until(3)
    listed = await plane.collector.ListEpochs(api.ListEpochsRequest(result_id=result_id))
    losses = [one.metrics.splits["training"].values["loss"] for one in listed.epochs]
    assert math.isnan(losses[0])
    assert losses[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (epoch(1, 0), "epoch.number"),
        (state(1, deployment_pb2.STATE_CANCELLED), "state_change.state"),
        (
            api.ReportRequest(
                seq=1,
                epoch=result_pb2.Epoch(
                    number=1,
                    metrics=result_pb2.SplitMetrics(splits={"training": result_pb2.Metrics(values={"x" * 1000: 1.0})}),
                ),
            ),
            "epoch.metrics",
        ),
    ],
)
async def test_what_no_trainer_may_report_is_refused(plane: Plane, event: api.ReportRequest, field: str) -> None:
    async with reporting(plane, await new_result(plane)) as trainer:
        await trainer.ask()
        with pytest.raises(InvalidArgument) as caught:
            await trainer.send(event)
    assert [bad.field for bad in caught.value.fields] == [field]


async def test_a_report_of_nobody_is_not_found(plane: Plane) -> None:
    async with reporting(plane, 99) as trainer:
        with pytest.raises(NotFound):
            await trainer.ask()


async def watch(plane: Plane, **request: Any) -> list[result_pb2.ResultEvent]:
    """Every event until the watch ends by itself."""
    async with asyncio.timeout(10):
        return [event async for event in plane.collector.WatchResults(api.WatchResultsRequest(**request))]


def kinds(events: Iterable[result_pb2.ResultEvent]) -> list[str]:
    """`epoch 2`, `progress 5`, `TRAINING`; empty for a keep-alive."""
    words = []
    for event in events:
        kind = event.WhichOneof("kind")
        if kind == "epoch":
            words.append(f"epoch {event.epoch.number}")
        elif kind == "progress":
            words.append(f"progress {event.progress.step}")
        elif kind == "result":
            words.append(deployment_pb2.State.Name(event.result.state).removeprefix("STATE_"))
        else:
            words.append("")
    return words


async def test_a_watcher_sees_the_stored_and_then_the_live_and_ends_with_the_result(plane: Plane) -> None:
    result_id = await new_result(plane)
    await give_artifact(plane, result_id)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(state(1, TRAINING))
        await trainer.send(epoch(2, 1))
        watching = aiter(plane.collector.WatchResults(api.WatchResultsRequest(result_id=result_id)))
        stored = [await anext(watching) for _ in range(4)]
        assert kinds(stored) == ["CREATED", "STARTING", "TRAINING", "epoch 1"]
        await trainer.send(epoch(3, 2))
        await trainer.send(state(4, FINISHED))
        live = [event async for event in watching]
    assert kinds(live) == ["epoch 2", "FINISHED"]
    assert live[-1].result.version == 1
    sequences = [event.sequence for event in [*stored, *live]]
    assert sequences == sorted(set(sequences))
    # A late watcher sees the same, and one that resumes the rest.
    assert await watch(plane, result_id=result_id) == [*stored, *live]
    assert await watch(plane, result_id=result_id, after_sequence=stored[-1].sequence) == live
    assert await watch(plane, result_id=result_id, after_sequence=live[-1].sequence) == []


async def test_only_the_latest_progress_is_kept(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        for seq in range(1, 6):
            trainer.post(progress(seq, seq))
        await trainer.until(5)
        await trainer.send(state(6, deployment_pb2.STATE_FAILED, "over"))
    assert kinds(await watch(plane, result_id=result_id)) == ["CREATED", "STARTING", "progress 5", "FAILED"]


async def test_a_watch_of_a_deployment_has_all_its_results(plane: Plane) -> None:
    deployment = await plane.training("a", "b")
    other = await new_result(plane, "other")
    watching = asyncio.create_task(watch(plane, deployment_id=deployment.id))
    for result_id in (other, *deployment.result_ids):
        async with reporting(plane, result_id) as trainer:
            await trainer.ask()
            await trainer.send(epoch(1, 1))
            await trainer.send(state(2, deployment_pb2.STATE_FAILED, "over"))
    events = await watching
    assert {event.result_id for event in events} == set(deployment.result_ids)
    assert sorted(kinds(events)) == sorted(2 * ["CREATED", "STARTING", "epoch 1", "FAILED"])


async def test_watchers_joining_at_any_moment_miss_and_double_nothing(plane: Plane) -> None:
    result_id = await new_result(plane)
    watching = []
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        for seq in range(1, 301):
            trainer.post(epoch(seq, seq))
            if seq % 20 == 0:
                await trainer.until(seq)
                watching.append(asyncio.create_task(watch(plane, result_id=result_id)))
                await asyncio.sleep(0)
        await trainer.send(state(301, deployment_pb2.STATE_FAILED, "over"))
        seen = await asyncio.gather(*watching)
    expected = ["CREATED", "STARTING", *(f"epoch {number}" for number in range(1, 301)), "FAILED"]
    assert all(kinds(events) == expected for events in seen)


async def test_a_quiet_watch_is_kept_alive_and_ends_after_its_time(store: Store, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "uploads")
    watchers = Watchers(store)
    queue = Queue(store, watchers, max_trainings=2)
    exports = Exports(store, ExecutorClient({}, {}))
    collector = ResultCollector(store, watchers, artifacts, queue, exports, keep_alive_s=0.1, watch_limit_s=0.5)
    await store.write(partial(new_training, "a"))
    service = (add_ResultCollectorServicer_to_server, collector, "headrace.v1.ResultCollector")
    async with serving("127.0.0.1:0", [service]) as server, connect_async(f"127.0.0.1:{server.port}") as channel:
        stub = ResultCollectorStub(channel)
        events = [event async for event in stub.WatchResults(api.WatchResultsRequest(result_id=1))]
    assert kinds(events)[:3] == ["CREATED", "STARTING", ""]
    assert events[2].sequence == events[1].sequence
    assert 2 <= kinds(events).count("") <= 6


async def read_into(sequences: list[int], events: AsyncIterator[result_pb2.ResultEvent]) -> None:
    async with asyncio.timeout(20):
        async for event in events:
            sequences.append(event.sequence)


async def test_a_watcher_that_does_not_read_is_told_and_harms_nobody(plane: Plane) -> None:
    result_id = await new_result(plane)
    big = api.Outcome(framework_version="x" * 20_000)
    async with connect_async(plane.address) as channel, reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(api.ReportRequest(seq=1, outcome=big))
        slow = aiter(ResultCollectorStub(channel).WatchResults(api.WatchResultsRequest(result_id=result_id)))
        await anext(slow)
        # Each event is a result of 20 kB: more than sockets and queue hold.
        for seq in range(2, 1202):
            to = TRAINING if seq % 2 else deployment_pb2.STATE_EVALUATING
            trainer.post(state(seq, to))
        await trainer.until(1201)
        read = [0]
        with pytest.raises(ResourceExhausted) as caught:
            await read_into(read, slow)
        assert caught.value.reason_name == "WATCH_LAGGED"
        resume_after = int(caught.value.metadata["resume_after"])
        assert resume_after == read[-1]
        await trainer.send(state(1202, deployment_pb2.STATE_FAILED, "over"))
    rest = await watch(plane, result_id=result_id, after_sequence=resume_after)
    assert kinds(rest)[-1] == "FAILED"


async def test_a_watch_names_a_result_or_a_deployment(plane: Plane) -> None:
    for request in ({}, {"result_id": 1, "deployment_id": 1}):
        with pytest.raises(InvalidArgument):
            await watch(plane, **request)
    with pytest.raises(NotFound):
        await watch(plane, result_id=5)


async def test_a_running_result_is_not_deleted(plane: Plane) -> None:
    result_id = await new_result(plane)
    with pytest.raises(FailedPrecondition) as caught:
        await plane.collector.DeleteResult(api.DeleteResultRequest(id=result_id))
    assert caught.value.metadata["state"] == "STARTING"


async def test_a_confusion_matrix_is_drawn(plane: Plane) -> None:
    result_id = await new_result(plane)
    matrix = result_pb2.ConfusionMatrix(labels=["cat", "dog"], counts=[3, 1, 0, 4])
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(confusion_matrix=matrix)))
    request = api.RenderConfusionMatrixRequest(result_id=result_id)
    first, second = await asyncio.gather(*(plane.collector.RenderConfusionMatrix(request) for _ in range(2)))
    assert first.content_type == "image/png"
    assert first.data.startswith(b"\x89PNG\r\n")
    assert first.data == second.data


@pytest.mark.parametrize(
    ("is_asked", "ends", "said"),
    [
        (False, FINISHED, "settings.confusion_matrix"),
        (True, None, "STARTING"),
        (True, deployment_pb2.STATE_FAILED, "FAILED"),
        (True, FINISHED, "test_rate"),
    ],
)
async def test_no_confusion_matrix_is_said_with_what_to_set(
    plane: Plane, is_asked: bool, ends: deployment_pb2.State | None, said: str
) -> None:
    result_id = await new_result(plane)
    await give_artifact(plane, result_id)
    settings = deployment_pb2.TrainingSettings(confusion_matrix=is_asked)
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(settings=settings)))
        if ends is not None:
            await trainer.send(state(2, ends, "over" if ends != FINISHED else ""))
    with pytest.raises(FailedPrecondition) as caught:
        await plane.collector.RenderConfusionMatrix(api.RenderConfusionMatrixRequest(result_id=result_id))
    assert caught.value.reason_name == "WRONG_STATE"
    assert said in caught.value.message


async def test_a_confusion_matrix_of_another_size_than_its_labels_is_refused(plane: Plane) -> None:
    result_id = await new_result(plane)
    matrix = result_pb2.ConfusionMatrix(labels=["cat", "dog"], counts=[3, 1, 0])
    async with reporting(plane, result_id) as trainer:
        await trainer.ask()
        with pytest.raises(InvalidArgument) as caught:
            await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(confusion_matrix=matrix)))
    assert caught.value.fields[0].field == "outcome.confusion_matrix.counts"


ROC = result_pb2.Roc(
    curves=[
        result_pb2.RocCurve(label="cat", auc=0.75, false_positive_rates=[0, 0.5, 1], true_positive_rates=[0, 1, 1])
    ],
    row_count=10,
    split="test",
)
RESIDUALS = result_pb2.Residuals(
    quantile_levels=[0, 1],
    outputs=[
        result_pb2.OutputResiduals(
            label="0", mean=0.5, quantiles=[0, 1], bin_edges=[0, 0.5, 1], bin_counts=[3, 4],
            true_sample=[1, 2], answered_sample=[2, 3],
        )
    ],
    row_count=7,
    split="test",
)  # fmt: skip


async def test_curves_are_kept_shown_in_full_only_and_drawn(plane: Plane) -> None:
    result_id = await new_result(plane)
    async with reporting(plane, result_id) as trainer:
        await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(roc=ROC)))
        await trainer.send(api.ReportRequest(seq=2, outcome=api.Outcome(residuals=RESIDUALS)))
    shown = await get(plane, result_id)
    assert (shown.roc, shown.residuals) == (ROC, RESIDUALS)
    (listed,) = (await plane.collector.ListResults(api.ListResultsRequest())).results
    assert not listed.HasField("roc")
    assert not listed.HasField("residuals")
    for picture in (
        await plane.collector.RenderRoc(api.RenderRocRequest(result_id=result_id)),
        await plane.collector.RenderResiduals(api.RenderResidualsRequest(result_id=result_id)),
    ):
        assert picture.content_type == "image/png"
        assert picture.data.startswith(b"\x89PNG\r\n")


async def test_no_curves_are_said_with_why(plane: Plane) -> None:
    result_id = await new_result(plane)
    for render in (
        plane.collector.RenderRoc(api.RenderRocRequest(result_id=result_id)),
        plane.collector.RenderResiduals(api.RenderResidualsRequest(result_id=result_id)),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await render
        assert (caught.value.reason_name, caught.value.metadata["state"]) == ("WRONG_STATE", "STARTING")


@pytest.mark.parametrize(
    "curve",
    [
        result_pb2.RocCurve(false_positive_rates=[0, 1], true_positive_rates=[0]),
        result_pb2.RocCurve(false_positive_rates=[0] * 130_000, true_positive_rates=[0] * 130_000),
    ],
    ids=["uneven", "too long"],
)
async def test_curves_that_are_none_are_refused(plane: Plane, curve: result_pb2.RocCurve) -> None:
    async with reporting(plane, await new_result(plane)) as trainer:
        await trainer.ask()
        with pytest.raises(InvalidArgument) as caught:
            await trainer.send(api.ReportRequest(seq=1, outcome=api.Outcome(roc=result_pb2.Roc(curves=[curve]))))
    assert caught.value.fields[0].field == "outcome"


async def test_results_are_compared_side_by_side(plane: Plane) -> None:
    ids = (await plane.training("a", "b")).result_ids
    for number, result_id in enumerate(ids):
        settings = deployment_pb2.TrainingSettings(batch_size=32 * (number + 1), seed=7, single={})
        settings.tensorflow.fit_args = "epochs=3"
        splits = {"test": result_pb2.Metrics(values={"accuracy": 0.75})}
        if number:
            splits["training"] = result_pb2.Metrics(values={"loss": math.nan})
        known = api.Outcome(
            settings=settings,
            framework_version="tensorflow 2.21.0",
            stream=stream_pb2.Stream(ranges=[stream_pb2.OffsetRange(topic="t", partition=1, start=5, end=9)]),
            metrics=result_pb2.SplitMetrics(splits=splits),
        )
        async with reporting(plane, result_id) as trainer:
            await trainer.ask()
            await trainer.send(api.ReportRequest(seq=1, outcome=known))
    answer = await plane.collector.CompareResults(api.CompareResultsRequest(result_ids=[ids[1], ids[0]]))
    assert [one.id for one in answer.results] == [ids[1], ids[0]]
    values = {row.name: (list(row.values), row.differs) for row in answer.values}
    assert values["model"] == (["b", "a"], True)
    assert values["code_sha256"] == (["b", "a"], True)
    assert values["framework_version"] == (["tensorflow 2.21.0"] * 2, False)
    assert values["stream.ranges"] == (["t:1:5:9"] * 2, False)
    assert values["settings.batch_size"] == (["64", "32"], True)
    assert values["settings.seed"] == (["7", "7"], False)
    assert values["settings.mode"] == (["single", "single"], False)
    assert values["settings.tensorflow.fit_args"] == (["epochs=3"] * 2, False)
    assert values["metrics.test.accuracy"] == (["0.75", "0.75"], False)
    assert values["metrics.training.loss"] == (["nan", ""], True)
    assert list(values)[-2:] == ["metrics.training.loss", "metrics.test.accuracy"]


async def test_a_comparison_needs_results_that_exist(plane: Plane) -> None:
    result_id = await new_result(plane)
    for wrong in ([], [result_id], [result_id] * 21):
        with pytest.raises(InvalidArgument):
            await plane.collector.CompareResults(api.CompareResultsRequest(result_ids=wrong))
    with pytest.raises(NotFound):
        await plane.collector.CompareResults(api.CompareResultsRequest(result_ids=[result_id, 99]))


ACKNOWLEDGING_FIRST = """
import asyncio
from control_plane import results
keep = results._Report._keep
async def keep_later(report, events):
    await asyncio.sleep(0.05)
    await keep(report, events)
async def answer_first(report, events):
    report.storing = asyncio.create_task(keep_later(report, events))
    return report._response(results.reports.Position(acked_seq=events[-1].seq))
results._Report._keep = answer_first
"""
KILLED_SERVER = """
import asyncio, sys
from pathlib import Path
from control_plane.__main__ import control_plane
from control_plane.settings import Settings
from control_plane.store import Store
async def main(home):
    with Store.open(home / "headrace.db") as store:
        settings = Settings(home=home, kafka="127.0.0.1:1", listen="127.0.0.1:0")
        async with control_plane(settings, store) as server:
            print(server.port, flush=True)
            await asyncio.Event().wait()
asyncio.run(main(Path(sys.argv[1])))
"""


def report_until_killed(port: int, server: subprocess.Popen[str], kill_at: int, last: int) -> int:
    """Report epochs as a trainer does, from where the server asks; kill it behind an acknowledgement."""
    acked = 0
    asked: list[api.ReportRequest] = [api.ReportRequest(result_id=1, attempt=1, seq=0)]
    with connect(f"127.0.0.1:{port}") as channel:
        collector: Any = ResultCollectorStub(channel)
        (hello,) = list(collector.Report(iter(asked)))
        requests = []
        for seq in range(hello.resume_from, last + 1):
            event = epoch(seq, seq)
            event.MergeFrom(api.ReportRequest(result_id=1, attempt=1))
            requests.append(event)
        try:
            for answer in collector.Report(iter(requests)):
                acked = answer.acked_seq
                if acked >= kill_at and server.poll() is None:
                    server.send_signal(signal.SIGKILL)
        except Exception:
            server.wait(10)
    return acked


@contextmanager
def collector_process(home: Path, failpoint: str, bug: str = "") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A control plane in a process of its own, with its port."""
    server = subprocess.Popen(
        [sys.executable, "-c", bug + KILLED_SERVER, str(home)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HEADRACE_FAIL": failpoint},
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline()), server
    finally:
        server.kill()
        server.wait()


def stored_epochs(home: Path) -> list[int]:
    with Store.open(home / "headrace.db") as store:
        page = store.read_now(partial(reports.epoch_page, 1, after_number=0, limit=10_000))
    return [one.number for one in page]


NEVER = 1_000_000


def expect_nothing_lost_by_kills(home: Path, bug: str = "") -> None:
    with Store.open(home / "headrace.db") as store:
        store.write_now(partial(new_training, "a"))
    kills = [("", 200), ("report_before_commit:exit@2", NEVER), ("report_after_commit:exit@2", NEVER)]
    for run, (failpoint, kill_at) in enumerate(kills, 1):
        with collector_process(home, failpoint, bug) as (port, server):
            acked = report_until_killed(port, server, kill_at, last=run * 1500)
            assert server.wait(10) == -signal.SIGKILL
        stored = stored_epochs(home)
        assert stored == list(range(1, len(stored) + 1))
        assert len(stored) >= acked
    with collector_process(home, "", bug) as (port, server):
        assert report_until_killed(port, server, NEVER, last=4500) == 4500
    assert stored_epochs(home) == list(range(1, 4501))


def test_no_acknowledged_event_is_lost_when_the_collector_is_killed(tmp_path: Path) -> None:
    expect_nothing_lost_by_kills(tmp_path)


def test_a_collector_that_acknowledges_before_it_stores_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        expect_nothing_lost_by_kills(tmp_path, ACKNOWLEDGING_FIRST)
