"""Connections of peewee: one per thread, each to the file of the store that owns the thread."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peewee import SqliteDatabase

# Waiting for another process's lock (a backup, a person with the sqlite3 shell) before the caller hears of it.
BUSY_TIMEOUT_S = 5.0

_target = threading.local()

PRAGMAS = {
    "journal_mode": "wal",
    # FULL: a commit returns when it is on disk. Acknowledgements depend on it.
    "synchronous": "full",
    "foreign_keys": 1,
    "temp_store": "memory",
    "cache_size": -16_384,
}


class ThreadsDatabase(SqliteDatabase):
    """Tables are bound to a database once for the process; the file is the thread's, so that stores do not mix."""

    def _connect(self) -> Any:
        path: Path = _target.path
        connection = sqlite3.connect(path, timeout=_target.busy_timeout_s, isolation_level=None)
        try:
            self._add_conn_hooks(connection)  # type: ignore[attr-defined]
        except Exception:
            connection.close()
            raise
        return connection

    def rollback(self) -> None:
        """SQLite has undone the transaction already when the disk is full or fails; undoing it again would be an error,
        and hide the first one."""
        if self.connection().in_transaction:  # type: ignore[no-untyped-call]
            super().rollback()


database = ThreadsDatabase("headrace", pragmas=PRAGMAS)


def adopt_thread(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Make every query of this thread go to `path`."""
    _target.path = path
    _target.busy_timeout_s = busy_timeout_s


def release_thread() -> None:
    """Close this thread's connection."""
    if not database.is_closed():
        database.close()


@contextmanager
def thread_connected_to(path: Path) -> Iterator[None]:
    """Use `path` in the calling thread for the length of the block."""
    adopt_thread(path)
    try:
        yield
    finally:
        release_thread()
