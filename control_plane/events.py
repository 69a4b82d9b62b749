"""Tells tasks of this process what was committed, the moment it is."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

from control_plane.store import Change, Kind, Store

# A resource by its id, or every resource of a kind.
Key = tuple[Kind, int | None]

QUEUE_LENGTH = 256
# A thousand followers that write at once would hold the loop for a tenth of a second, and whoever waits for an answer.
WOKEN_AT_ONCE = 8

L = TypeVar("L", "Follower", "Wake")


class Follower:
    """Every change of what it follows, in order, until its reader is too slow for the queue.

    on_told: called with each change, so that the reader is woken by `wake` in its turn.
    """

    def __init__(self, capacity: int, on_told: Callable[[Follower], None]) -> None:
        self._capacity, self._on_told = capacity, on_told
        self._changes: deque[Change] = deque()
        self._woken = asyncio.Event()
        self.lagged = False

    async def next(self, timeout_s: float) -> Change | None:
        """The next change; None when none came in time. Check `lagged` after each."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._changes and not self.lagged:
                    self._woken.clear()
                    await self._woken.wait()
        return self._changes.popleft() if self._changes else None

    def tell(self, change: Change) -> None:
        if self.lagged:
            return
        if len(self._changes) == self._capacity:
            # Nothing behind a gap is worth keeping.
            self.lagged = True
            self._changes.clear()
        else:
            self._changes.append(change)
        self._on_told(self)

    def wake(self) -> None:
        self._woken.set()


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
        self._to_wake: dict[Follower, None] = {}  # in the order in which they were told
        store.listen(self._on_commit)

    @contextmanager
    def follow(self, keys: Iterable[Key], capacity: int = QUEUE_LENGTH) -> Iterator[Follower]:
        """Queue every change of these resources from now on."""
        with self._registered(list(keys), Follower(capacity, self._wake_later)) as follower:
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

    def _wake_later(self, follower: Follower) -> None:
        if not self._to_wake:
            self._loop.call_soon(self._wake_some)
        self._to_wake[follower] = None

    def _wake_some(self) -> None:
        """The first of those that wait; the others after whatever else the loop has to do."""
        for follower in list(islice(self._to_wake, WOKEN_AT_ONCE)):
            del self._to_wake[follower]
            follower.wake()
        if self._to_wake:
            self._loop.call_soon(self._wake_some)
