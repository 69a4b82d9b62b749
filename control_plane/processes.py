"""Processes of this machine by an identity that is never given twice: pid and start time, within one boot (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# In the environment of every workload and what it starts: a path that only this workload of this home has.
MARKER = "HEADRACE_WORKLOAD"


def boot_id() -> str:
    """Another one after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_exactly(pid: int, starttime: int) -> bool:
    """Whether the process lives and is not another one that was given the same pid."""
    return _stat(pid).get("starttime") == starttime


def signal_exactly(pid: int, starttime: int, number: int) -> bool:
    """Signal that process and no other; False when it is gone."""
    try:
        # The descriptor stays with the process that it was opened for, so nothing can happen between check and signal.
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_exactly(pid, starttime):
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def kill_session(mark: str, leader: int | None, starttime: int) -> None:
    """Kill whatever is left of a workload: processes of the session that `leader` began, and those with its mark.

    A session's number is not given to another process while anything is left of it. If a younger process has it
    already, nothing was.
    """
    leader_now = None if leader is None else _stat(leader).get("starttime")
    reused = leader_now is not None and leader_now != starttime
    marker = f"{MARKER}={mark}".encode()
    for pid in _pids():
        stat = _stat(pid)
        if not stat or pid == os.getpid():
            continue
        in_session = leader is not None and not reused and stat["session"] == leader
        if in_session or marker in _environ(pid):
            signal_exactly(pid, stat["starttime"], signal.SIGKILL)


def _pids() -> Iterator[int]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            yield int(path.name)


def _stat(pid: int) -> dict[str, int]:
    """Session and start time; empty for a process that is gone or a zombie."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return {"session": int(fields[3]), "starttime": int(fields[19])}
    return {}


def _environ(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []
