"""Logs: JSON lines in production, readable lines on a terminal, with what they are about bound once."""

import contextvars
import datetime
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.errors import HeadraceError
from headrace.settings import SettingsError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
log = logging.getLogger(__name__)
_bound: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("bound", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(service: str) -> None:
    """Sends every log of the process to stderr, and what a thread dies of to the log.

    HEADRACE_LOG_FORMAT: `json` or `text` (default: text on a terminal). HEADRACE_LOG_LEVEL: default INFO.
    Raises SettingsError for other values.
    """
    chosen, level = _chosen_format(), (os.environ.get("HEADRACE_LOG_LEVEL") or "INFO").upper()
    problems = []
    if chosen not in ("json", "text"):
        problems.append(f"HEADRACE_LOG_FORMAT is {chosen!r}, but it must be json or text")
    if level not in LEVELS:
        problems.append(f"HEADRACE_LOG_LEVEL is {level!r}, but it must be one of {', '.join(LEVELS)}")
    if problems:
        raise SettingsError(problems)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service) if chosen == "json" else _TextFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    threading.excepthook = _log_the_end_of_a_thread


def _chosen_format() -> str:
    return os.environ.get("HEADRACE_LOG_FORMAT") or ("text" if sys.stderr.isatty() else "json")


def _log_the_end_of_a_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread else ""
        log.error("a thread was ended by a bug", extra={"thread_name": name}, exc_info=ended.exc_value)


@contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Adds fields (`result=7`) to every log line written inside, in this thread or task."""
    token = _bound.set({**bound_fields(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> dict[str, Any]:
    """What is bound here."""
    return dict(_bound.get() or {})


def bind_for_good(**fields: Any) -> None:
    """Adds fields until the task or context ends."""
    _bound.set({**bound_fields(), **fields})


def error_fields(error: HeadraceError) -> dict[str, Any]:
    """An error's reason, message and facts as `extra` of a log line; its facts may have any name."""
    return {"reason": error.reason_name, "cause": error.message, "facts": dict(error.metadata)}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**bound_fields(), **extra}


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service}: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        return f"{text} [{fields}]" if fields else text
