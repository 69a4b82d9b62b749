"""Trainings on the same records: one of them reads these at a time, and the others find them read."""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import Cancelled
from headrace.v1 import error_pb2
from streams.preflight import Wait

LOCK = "reader.lock"
LOOK_S = 0.1
WHY = "another training of this deployment reads the records"


@contextmanager
def sole_reader(folder: Path, stop: threading.Event, on_wait: Callable[[Wait], None]) -> Iterator[None]:
    """A block that one process at a time is in. Who is killed in it leaves it: the kernel gives its lock free.

    Raises CANCELLED when `stop` is set before it is this one's turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(file, stop, on_wait)
        yield
    finally:
        os.close(file)


def _wait_for(file: int, stop: threading.Event, on_wait: Callable[[Wait], None]) -> None:
    while not _lock(file):
        on_wait(Wait(0, 0, WHY))
        if stop.wait(LOOK_S):
            raise Cancelled(error_pb2.REASON_CANCELLED, "the trainer was stopped while it waited for the records")


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
