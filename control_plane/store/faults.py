"""SQLite's errors as ours. The one place that knows its result codes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from peewee import PeeweeException

from headrace.errors import HeadraceError, Internal, ResourceExhausted, Unavailable
from headrace.v1 import error_pb2

_REASON = error_pb2.REASON_STORAGE_UNAVAILABLE


def is_broken(error: BaseException) -> bool:
    """Whether the disk failed under a write: what a later fsync on the same file promises is not to be believed."""
    return result_code(error).startswith("SQLITE_IOERR")


def result_code(error: BaseException) -> str:
    """`SQLITE_FULL`, `SQLITE_IOERR_FSYNC`, …; empty where SQLite had no part in it."""
    causes = (error, error.__cause__, error.__context__, *error.args[:1])
    for cause in causes:
        if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorname", None):
            return str(cause.sqlite_errorname)
    return ""


def typed(error: PeeweeException | sqlite3.Error, path: Path) -> HeadraceError:
    """What the caller of a query hears."""
    code = result_code(error)
    name = code or type(error).__name__
    if code.startswith("SQLITE_FULL"):
        message = f"the disk that holds {path} is full; nothing was stored"
        return ResourceExhausted(_REASON, message, retry_after_s=10, path=path, sqlite=name)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        message = f"another program holds the lock of {path}; nothing was stored"
        return Unavailable(_REASON, message, retry_after_s=1, path=path, sqlite=name)
    if code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Unavailable(
            _REASON, f"the database {path} cannot be used: {error}", retry_after_s=10, path=path, sqlite=name
        )
    return Internal(
        error_pb2.REASON_INTERNAL_ERROR, f"the database refused a statement: {error}", path=path, sqlite=name
    )
