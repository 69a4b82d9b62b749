"""The cluster that is this machine: workloads are processes in sessions of their own that outlive the control plane.

In `HOME/workloads`, for each workload NAME:

    NAME.lock   held (flock) by its shim and by itself: "is it alive" is "is the lock held"
    NAME.json   written before anything starts; the shim adds (pid, starttime, boot_id) before it executes the workload
    NAME.stop   the grace in seconds, once it was told to stop
    NAME.exit   how it ended; written before the lock is free

A record without a pid whose lock is free was never executed. One with a pid and without an exit whose lock is free lost
its shim, and the workload died with that: nobody knows how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from control_plane import processes, shim
from control_plane.cluster import Exit, LogChunk, Observed, Seen, Workload
from control_plane.names import owner_of
from headrace.failpoints import fail_at
from streams.clusters import SECRET_PREFIX

log = logging.getLogger(__name__)

LOG_BYTES = 8 * 1024 * 1024
READ_BYTES = 256 * 1024
# A shim that has not ended so long after the grace does not do its work (SIGSTOP): it is killed with its tree.
OVERDUE_S = 2.0
# Of the control plane's environment only these concern workloads as well.
PASSED_ON = (
    "HEADRACE_LOG_FORMAT",
    "HEADRACE_LOG_LEVEL",
    "HEADRACE_FAIL",
    "HEADRACE_FAIL_FOLDER",
    "HEADRACE_SPARE_WORKER",
    "HEADRACE_SPOOL_LIMIT_BYTES",
)

Command = Callable[[Workload], Sequence[str]]


def python_module(workload: Workload) -> Sequence[str]:
    """How services are started: `-P`, because a folder `trainer` where the user stands must not shadow ours."""
    return (sys.executable, "-P", "-m", workload.module)


class LocalCluster:
    """Implements `Cluster` with child processes of one home folder, which one control plane uses at a time.

    spares: where their spare workers wait (sandbox.spares); empty: each keeps its own.
    """

    def __init__(
        self,
        home: Path,
        *,
        environ: Mapping[str, str] | None = None,
        command: Command = python_module,
        log_bytes: int = LOG_BYTES,
        spares: str = "",
    ) -> None:
        home = home.absolute()
        self._home, self._command, self._log_bytes, self._spares = home, command, log_bytes, spares
        self._environ = _shared_environ(os.environ if environ is None else environ)
        self._workloads, self._works, self._logs = home / "workloads", home / "work", home / "logs"
        self._mutex = threading.Lock()
        # Ours to reap. Those of an earlier control plane are their adopters' to reap.
        self._shims: list[subprocess.Popen[bytes]] = []
        self._overdue: dict[str, float] = {}

    def start(self, workload: Workload) -> None:
        """See `Cluster`. Raises OSError when the machine has no room for one more process, or its disk none."""
        work, shared = self._works / workload.work, self._works / workload.shared_work
        for folder in (self._workloads, self._logs, work, shared):
            folder.mkdir(parents=True, exist_ok=True)
        files = self._files(workload.name)
        with self._mutex, files.locked() as lock:
            if lock is None or files.record().pid is not None:
                return
            files.clear()
            identity = {"attempt": workload.attempt, "spec_hash": workload.spec_hash}
            files.write_record(identity)
            fail_at("workload_intended")
            self._shims.append(self._start_shim(workload, files, identity, work, lock))
        fail_at("workload_started")
        log.info("started", extra={"workload": workload.name, "attempt": workload.attempt})

    def list(self) -> Seen:
        """See `Cluster`. What a dead shim left behind is killed on the way, and our own shims are reaped."""
        with self._mutex:
            self._shims = [process for process in self._shims if process.poll() is None]
            names = sorted(path.stem for path in self._workloads.glob("*.json"))
            seen = [observed for name in names if (observed := self._observe(self._files(name))) is not None]
        works = frozenset(path.name for path in self._works.glob("*"))
        return Seen({observed.name: observed for observed in seen}, works)

    def stop(self, name: str, grace_s: float) -> None:
        """See `Cluster`."""
        files = self._files(name)
        with self._mutex:
            if not files.is_locked():
                return
            record = self._settled_record(files)
            _write(files.stop, str(grace_s))
            overdue = time.monotonic() + grace_s + OVERDUE_S
            overdue = self._overdue[name] = min(overdue, self._overdue.get(name, overdue))
            if time.monotonic() >= overdue:
                log.warning("does not end; killing it", extra={"workload": name})
                self._kill(files, record)
            elif record.pid is not None:
                processes.signal_exactly(record.pid, record.starttime, signal.SIGTERM)

    def forget(self, name: str) -> None:
        """See `Cluster`."""
        files = self._files(name)
        with self._mutex, files.locked() as lock:
            if lock is not None:
                files.clear()
                files.lock.unlink()
                self._overdue.pop(name, None)

    def remove_works(self, works: Collection[str]) -> None:
        """See `Cluster`."""
        for work in works:
            shutil.rmtree(self._works / work, ignore_errors=True)

    def read_logs(self, name: str, offset: int) -> LogChunk:
        """See `Cluster`."""
        while True:
            first = self._full_logs(name)
            chunk = self._read(name, first, offset)
            if chunk is not None and self._full_logs(name) == first:
                return chunk

    def remove_logs(self, owners: Collection[str]) -> None:
        """See `Cluster`."""
        for path in self._logs.glob("*.log*"):
            if owner_of(path.name.partition(".log")[0]) in owners:
                path.unlink(missing_ok=True)

    def _start_shim(
        self, workload: Workload, files: _Files, identity: Mapping[str, Any], work: Path, lock: int
    ) -> subprocess.Popen[bytes]:
        config = {
            "workload": workload.name,
            "command": list(self._command(workload)),
            "folder": str(work),
            "log": str(self._log(workload.name)),
            "log_bytes": self._log_bytes,
            "record": str(files.json),
            "stop": str(files.stop),
            "exit": str(files.exit),
            "identity": identity,
            "lock_fd": lock,
        }
        place = {
            "HEADRACE_HOME": str(self._home),
            "HEADRACE_WORK_DIR": str(work),
            "HEADRACE_SPARES": self._spares,
            processes.MARKER: str(files.json),
        }
        if workload.shared_work:
            place["HEADRACE_SHARED_DIR"] = str(self._works / workload.shared_work)
        with self._log(workload.name).open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**self._environ, **workload.env, **place},
                pass_fds=(lock,),
                start_new_session=True,
            )

    def _observe(self, files: _Files) -> Observed | None:
        # In this order: the exit is on disk before the lock is free.
        is_locked = files.is_locked()
        record = files.record()
        observed = Observed(files.name, record.attempt, record.spec_hash, record.child)
        if is_locked:
            if record.pid is not None and not processes.is_exactly(record.pid, record.starttime):
                self._kill(files, record)
            return observed
        if (ended := files.read_exit()) is not None:
            return replace(observed, exit=ended)
        if record.pid is None:
            return None
        return replace(observed, exit=self._bury(files, record))

    def _bury(self, files: _Files, record: _Record) -> Exit:
        """The end of a workload whose shim was killed, or whose machine went down."""
        is_of_this_boot = record.boot_id == processes.boot_id()
        if is_of_this_boot:
            self._kill(files, record)
        ended = Exit(stopped=files.stop.exists() or not is_of_this_boot)
        _write(files.exit, json.dumps(asdict(ended)))
        return ended

    def _kill(self, files: _Files, record: _Record) -> None:
        if record.pid is not None:
            processes.signal_exactly(record.pid, record.starttime, signal.SIGKILL)
        processes.kill_session(str(files.json), record.pid, record.starttime)

    def _settled_record(self, files: _Files) -> _Record:
        """A shim that has just started writes its pid within milliseconds."""
        deadline = time.monotonic() + 1.0
        while (record := files.record()).pid is None and files.is_locked() and time.monotonic() < deadline:
            time.sleep(0.005)
        return record

    def _files(self, name: str) -> _Files:
        return _Files(self._workloads, name)

    def _log(self, name: str, number: int | None = None) -> Path:
        return self._logs / (f"{name}.log" if number is None else f"{name}.log.{number}")

    def _full_logs(self, name: str) -> Sequence[int]:
        return sorted(int(path.suffix[1:]) for path in self._logs.glob(f"{name}.log.*"))

    def _read(self, name: str, full: Sequence[int], offset: int) -> LogChunk | None:
        """From the oldest file that holds the offset; None when it was renamed meanwhile."""
        oldest = full[0] * self._log_bytes if full else 0
        offset = max(offset, oldest)
        number = offset // self._log_bytes
        path = self._log(name, number if number in full else None)
        base = number * self._log_bytes if number in full else (full[-1] + 1) * self._log_bytes if full else 0
        try:
            with path.open("rb") as file:
                file.seek(offset - base)
                data = file.read(READ_BYTES)
        except FileNotFoundError:
            return LogChunk(b"", offset) if not full else None
        return LogChunk(data, offset + len(data))


@dataclass(frozen=True)
class _Record:
    """What NAME.json holds; `pid` and what follows are the shim's, `child` is the workload's pid."""

    attempt: int = 1
    spec_hash: str = ""
    pid: int | None = None
    starttime: int = 0
    boot_id: str = ""
    child: int | None = None


class _Files:
    """The files of one workload."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.lock, self.json, self.stop, self.exit = (
            folder / f"{name}.{kind}" for kind in ("lock", "json", "stop", "exit")
        )

    @contextmanager
    def locked(self) -> Iterator[int | None]:
        """The lock's descriptor, or None when it is held. A process that inherits it holds the lock as long as we."""
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd if _lock(fd) else None
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        try:
            with self.lock.open("rb") as file:
                return not _lock(file.fileno())
        except FileNotFoundError:
            return False

    def record(self) -> _Record:
        """Empty where there is none. Another version of this program may have written more than we know."""
        content = _read_json(self.json) or {}
        return _Record(**{part.name: content[part.name] for part in fields(_Record) if part.name in content})

    def write_record(self, identity: Mapping[str, Any]) -> None:
        _write(self.json, json.dumps(identity))

    def read_exit(self) -> Exit | None:
        content = _read_json(self.exit)
        return Exit(**content) if content else None

    def clear(self) -> None:
        """The record goes last: without it, nothing else is looked at."""
        for path in (self.exit, self.stop, self.json):
            path.unlink(missing_ok=True)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any] | None:
    """None for a file that is missing, or that a crash of the machine left empty."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    return None


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.rename(path)


def _shared_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """With what Kafka clusters refer to: the worker in which a model's code runs gets none of it."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("HEADRACE_") or name.startswith(SECRET_PREFIX) or name in PASSED_ON
    }
