"""The store: one SQLite file, one thread that writes, a few that read."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from peewee import PeeweeException

from control_plane.store import changes, faults, schema
from control_plane.store.changes import Change
from control_plane.store.connections import BUSY_TIMEOUT_S, adopt_thread, database, release_thread
from headrace.errors import FailedPrecondition, HeadraceError, Unavailable
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

T = TypeVar("T")
Listener = Callable[[Sequence[Change]], None]

READERS = 2


class Store:
    """Runs query functions of `control_plane.store` in its own threads; they see no other.

    `await store.write(lambda: models.create(model))` is one transaction: on disk when it returns, undone when it
    raises. A `read` sees one snapshot. Both raise the HeadraceError of the query, or STORAGE_UNAVAILABLE.
    """

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        # Set once the disk failed under a write: the process must end, and may be started again.
        self.broken = threading.Event()
        self._busy_timeout_s = busy_timeout_s
        self._listeners: list[Listener] = []
        self._lock: IO[bytes] | None = None
        self._writer = self._threads("store-writer", 1)
        self._readers = self._threads("store-reader", READERS)

    @classmethod
    def open(cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Store:
        """Create or migrate the file, and keep other control planes away from it until `close`.

        Raises FailedPrecondition when another process has it open or a newer version wrote it, Unavailable when the
        file cannot be read or made.
        """
        store = cls(path, busy_timeout_s)
        try:
            store._take_lock()
            store._writer.submit(store._prepare).result()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was submitted, close every connection, free the file."""
        for threads, count in ((self._readers, READERS), (self._writer, 1)):
            barrier = threading.Barrier(count)
            for _ in range(count):
                threads.submit(_leave, barrier)
            threads.shutdown(wait=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` on the writing thread with what each commit changed, in their order. It must not block."""
        self._listeners.append(listener)

    async def read(self, query: Callable[[], T]) -> T:
        """Run a query that only reads."""
        return await asyncio.wrap_future(self._readers.submit(self._read, query))

    async def write(self, query: Callable[[], T]) -> T:
        """Run a query in one transaction, alone."""
        return await asyncio.wrap_future(self._writer.submit(self._write, query))

    def read_now(self, query: Callable[[], T]) -> T:
        """`read` for callers without an event loop."""
        return self._readers.submit(self._read, query).result()

    def write_now(self, query: Callable[[], T]) -> T:
        """`write` for callers without an event loop."""
        return self._writer.submit(self._write, query).result()

    def _threads(self, name: str, count: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=adopt_thread, initargs=(self.path, self._busy_timeout_s)
        )

    def _take_lock(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(self.path.name + ".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE,
                f"another control plane uses {self.path}; stop that one, or give this one another HEADRACE_HOME",
                resource="database",
                path=self.path,
            ) from error
        self._lock = lock

    def _prepare(self) -> None:
        with self._typed_errors():
            database.connect(reuse_if_open=True)
            schema.migrate(self.path)
        self.path.chmod(0o600)

    def _read(self, query: Callable[[], T]) -> T:
        with self._typed_errors(), database.atomic("DEFERRED"):
            return query()

    def _write(self, query: Callable[[], T]) -> T:
        if self.broken.is_set():
            raise Unavailable(
                error_pb2.REASON_STORAGE_UNAVAILABLE,
                f"the disk that holds {self.path} failed; the control plane stops",
                path=self.path,
            )
        changes.begin()
        with self._typed_errors(writing=True), database.atomic("IMMEDIATE"):
            answer = query()
        committed = changes.collected()
        if committed:
            for listener in self._listeners:
                listener(committed)
        return answer

    @contextmanager
    def _typed_errors(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except HeadraceError:
            raise
        except (PeeweeException, sqlite3.Error) as error:
            if writing and faults.is_broken(error):
                log.error("the disk failed under a write", extra={"path": str(self.path), "pid": os.getpid()})
                self.broken.set()
            raise faults.typed(error, self.path) from error


def _leave(barrier: threading.Barrier) -> None:
    """Close this thread's connection; the barrier makes each thread of a pool take part."""
    release_thread()
    barrier.wait(timeout=60)
