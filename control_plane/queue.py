"""Who waits for a free processor, at which place and why; told to watchers as the queue moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from control_plane.events import Wake, Watchers
from control_plane.store import Change, Kind, Store, results
from control_plane.store.results import ActiveResult
from control_plane.training_plan import queue_places
from headrace.errors import HeadraceError
from headrace.v1 import deployment_pb2, result_pb2
from headrace.v1.deployment_pb2 import QueuePlace

log = logging.getLogger(__name__)

# After the store could not be read.
SOON_S = 1.0
# Every move is told of; without a change there is none.
IDLE_S = 600.0


class Queue:
    """The queue of trainings, as it follows from the store."""

    def __init__(self, store: Store, watchers: Watchers, max_trainings: int) -> None:
        self._store, self._watchers, self._max_trainings = store, watchers, max_trainings
        self._told: Mapping[int, QueuePlace] = {}

    async def places(self) -> Mapping[int, QueuePlace]:
        """Result id to its place, of those that wait."""
        return places_of(await self._store.read(results.active), self._max_trainings)

    async def add_to(self, found: Iterable[result_pb2.Result]) -> None:
        """Fill in the place of those that wait."""
        waiting = [one for one in found if one.state == deployment_pb2.STATE_CREATED]
        places = await self.places() if waiting else {}
        for one in waiting:
            if one.id in places:
                one.queue.CopyFrom(places[one.id])

    async def run(self) -> None:
        """Tell moves until it is cancelled. With the state of a result its deployment is said to have changed."""
        with self._watchers.wake((Kind.DEPLOYMENT, None)) as wake:
            while True:
                await self.step(wake)

    async def step(self, wake: Wake) -> None:
        """Tell those that follow a place that has changed, and wait for the next change of a training."""
        wait_s = IDLE_S
        try:
            if self._watchers.is_followed(Kind.QUEUE):
                self._tell(await self.places())
        except HeadraceError as error:
            log.warning("cannot tell the places of the queue", extra={"cause": error.message})
            wait_s = SOON_S
        await wake.wait(wait_s)

    def _tell(self, places: Mapping[int, QueuePlace]) -> None:
        moved = [_change(one, place) for one, place in places.items() if self._told.get(one) != place]
        self._watchers.tell(moved)
        self._told = places


@asynccontextmanager
async def telling_moves(queue: Queue) -> AsyncIterator[None]:
    """In the background, until the block ends."""
    task = asyncio.create_task(queue.run(), name="queue")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def places_of(active: Sequence[ActiveResult], max_trainings: int) -> dict[int, QueuePlace]:
    """Result id to its place; `active` are all that have not ended."""
    places = queue_places(active, max_trainings)
    has_stream = {one.id: one.has_stream for one in active}
    running = min(len(active) - len(places), max_trainings)
    return {
        one: QueuePlace(
            place=place,
            length=len(places),
            running_count=running,
            running_limit=max_trainings,
            message=_message(place, len(places), running, max_trainings, has_stream[one]),
        )
        for one, place in places.items()
    }


def summary(places: Sequence[QueuePlace]) -> str:
    """Of all results of a deployment that wait; empty where none does."""
    if not places:
        return ""
    first = min(places, key=lambda one: one.place)
    waits = "1 model waits" if len(places) == 1 else f"{len(places)} models wait, the first of them"
    return f"{waits} as {first.message}"


def _message(place: int, length: int, running: int, limit: int, has_stream: bool) -> str:
    """`3rd of 5 in the queue: 2 trainings run, at most 2 at once`."""
    run = "1 training runs" if running == 1 else f"{running} trainings run"
    later = "" if has_stream else "; it waits for its stream, too, and those whose stream is there go first"
    return f"{_ordinal(place)} of {length} in the queue: {run}, at most {limit} at once{later}"


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = "th" if number % 100 in (11, 12, 13) else endings.get(number % 10, "th")
    return f"{number}{ending}"


def _change(id: int, place: QueuePlace) -> Change:
    return Change(Kind.QUEUE, id, result_pb2.ResultEvent(result_id=id, queue=place))
