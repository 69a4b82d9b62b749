"""The queue as people see it: places, why results wait, and that watchers are told of every move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from control_plane.store import deployments, results
from headrace.v1 import deployment_pb2, result_pb2
from headrace.v1 import result_collector_pb2 as api
from tests.control_plane.conftest import Plane, StartPlane

FAILED = deployment_pb2.STATE_FAILED


@pytest.fixture
async def narrow(start_plane: StartPlane) -> Plane:
    """At most two trainings at once, and nothing that starts or ends one."""
    return await start_plane(max_trainings=2)


async def queued(plane: Plane, count: int) -> list[int]:
    """Results that wait, each of a training of its own; two others run."""
    ids = [(await plane.training(f"m{number}", start=number < 2)).result_ids[0] for number in range(count + 2)]
    return ids[2:]


async def end(plane: Plane, result_id: int) -> None:
    await plane.store.write(partial(results.set_state, result_id, FAILED))


async def places(plane: Plane) -> dict[int, deployment_pb2.QueuePlace]:
    found = (await plane.collector.ListResults(api.ListResultsRequest())).results
    return {one.id: one.queue for one in found if one.HasField("queue")}


def moves(events: Any) -> AsyncIterator[result_pb2.ResultEvent]:
    """Those that are not of a result itself."""

    async def only() -> AsyncIterator[result_pb2.ResultEvent]:
        async for event in events:
            if event.HasField("queue"):
                yield event

    return only()


async def test_a_result_that_waits_says_its_place_and_why(narrow: Plane) -> None:
    first, second, third = await queued(narrow, 3)
    found = await places(narrow)
    assert {one: place.place for one, place in found.items()} == {first: 1, second: 2, third: 3}
    third_place = (await narrow.collector.GetResult(api.GetResultRequest(id=third))).queue
    assert third_place == found[third]
    assert (third_place.length, third_place.running_count, third_place.running_limit) == (3, 2, 2)
    assert third_place.message.startswith("3rd of 3 in the queue: 2 trainings run, at most 2 at once")
    assert "stream" in third_place.message


async def test_places_move_up_as_trainings_end(narrow: Plane) -> None:
    first, second, third = await queued(narrow, 3)
    await end(narrow, 1)
    # The first is about to be started: there is a processor for it.
    assert {one: place.place for one, place in (await places(narrow)).items()} == {second: 1, third: 2}
    await narrow.store.write(partial(results.start_attempt, first))
    await end(narrow, 2)
    await end(narrow, first)
    assert await places(narrow) == {}


async def test_who_begins_to_watch_is_told_the_place_and_then_every_move(narrow: Plane) -> None:
    *_, third = await queued(narrow, 3)
    watching = aiter(narrow.collector.WatchResults(api.WatchResultsRequest(result_id=third)))
    told = moves(watching)
    async with asyncio.timeout(10):
        first = await anext(told)
        assert (first.result_id, first.queue.place, first.queue.length) == (third, 3, 3)
        # Another change of a training moves nobody.
        await narrow.store.write(partial(results.set_state, 1, deployment_pb2.STATE_TRAINING))
        await end(narrow, 1)
        assert (await anext(told)).queue.place == 2
        later = await narrow.training("later", start=False)
        assert (await anext(told)).queue.length == 3
        await narrow.store.write(partial(deployments.cancel, later.id))
        await end(narrow, 2)
    assert first.sequence > 0


async def test_a_place_told_is_not_an_event_to_resume_after(narrow: Plane) -> None:
    *_, second = await queued(narrow, 2)
    watching = aiter(narrow.collector.WatchResults(api.WatchResultsRequest(result_id=second)))
    async with asyncio.timeout(10):
        created, place = await anext(watching), await anext(watching)
        assert place.sequence == created.sequence
        again = api.WatchResultsRequest(result_id=second, after_sequence=place.sequence)
        resumed = await anext(aiter(narrow.collector.WatchResults(again)))
    assert resumed.queue == place.queue


async def test_what_has_started_has_no_place_any_more(narrow: Plane) -> None:
    (only,) = await queued(narrow, 1)
    watching = aiter(narrow.collector.WatchResults(api.WatchResultsRequest(result_id=only)))
    async with asyncio.timeout(10):
        while not (await anext(watching)).HasField("queue"):
            pass
        await end(narrow, 1)
        await narrow.store.write(partial(results.start_attempt, only))
        await narrow.training("another", start=False)
        await end(narrow, only)
        rest = [event async for event in watching]
    assert [event.WhichOneof("kind") for event in rest] == ["result", "result"]
