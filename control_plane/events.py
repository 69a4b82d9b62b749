"""Tells tasks of this process what was committed, the moment it is."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from control_plane.store import Change, Kind, Store

# A resource by its id, or every resource of a kind.
Key = tuple[Kind, int | None]

QUEUE_LENGTH = 256

L = TypeVar("L", "Follower", "Wake")


class Follower:
    """Every change of what it follows, in order, until its reader is too slow for the queue."""

    def __init__(self, capacity: int) -> None:
        self._changes: asyncio.Queue[Change] = asyncio.Queue(capacity)
        self.lagged = False

    async def next(self, timeout_s: float) -> Change | None:
        """The next change; None when none came in time. Check `lagged` after each."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._changes.get()
        except TimeoutError:
            return None

    def tell(self, change: Change) -> None:
        if self.lagged:
            return
        try:
            self._changes.put_nowait(change)
        except asyncio.QueueFull:
            # Nothing behind a gap is worth keeping.
            self.lagged = True
            self._changes = asyncio.Queue(1)


class Wake:
    """Remembers that something changed; many changes are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last call; False when nothing did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    def tell(self, change: Change) -> None:
        self._event.set()


class Watchers:
    """Hands changes from the store's thread to the event loop that it was made in."""

    def __init__(self, store: Store) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_key: dict[Key, set[Follower | Wake]] = defaultdict(set)
        store.listen(self._on_commit)

    @contextmanager
    def follow(self, keys: Iterable[Key], capacity: int = QUEUE_LENGTH) -> Iterator[Follower]:
        """Queue every change of these resources from now on."""
        with self._registered(list(keys), Follower(capacity)) as follower:
            yield follower

    @contextmanager
    def wake(self, *keys: Key) -> Iterator[Wake]:
        """Wake up after changes of these resources."""
        with self._registered(keys, Wake()) as wake:
            yield wake

    @contextmanager
    def _registered(self, keys: Sequence[Key], listener: L) -> Iterator[L]:
        for key in keys:
            self._by_key[key].add(listener)
        try:
            yield listener
        finally:
            for key in keys:
                self._by_key[key].discard(listener)
                if not self._by_key[key]:
                    del self._by_key[key]

    def tell(self, changes: Sequence[Change]) -> None:
        """Tell of what is not stored. Called in the event loop."""
        self._tell(changes)

    def is_followed(self, kind: Kind) -> bool:
        """Whether anybody follows a resource of this kind."""
        return any(followed == kind for followed, _ in self._by_key)

    def _on_commit(self, changes: Sequence[Change]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._tell, changes)
        except RuntimeError:
            # The loop has ended: nobody is left to be told.
            return

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for key in ((change.kind, change.id), (change.kind, None)):
                for listener in self._by_key.get(key, ()):
                    listener.tell(change)
