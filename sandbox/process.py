"""A worker process: started confined under a warden, ended as a whole tree."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandbox import warden
from sandbox.limits import Ending, Limits
from sandbox.output import OutputDrain

log = logging.getLogger(__name__)

# The most that an unprivileged process may have in one pipe: a batch of images goes over in one switch of processes.
PIPE_BYTES = 1024 * 1024
START_TIMEOUT_S = 30.0
KILL_TIMEOUT_S = 10.0
# The only variables of the feeder that a worker sees: which devices it may use.
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")


def worker_environment(folder: Path, threads: int | None) -> dict[str, str]:
    """All that a worker finds in its environment; nothing of the feeder's but its devices."""
    environment = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",  # Orders of sets are part of a reproducible training.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        # Threads that spin while they wait cost a busy machine its processors: beside a few other processes a step of a
        # small PyTorch model took 30 ms, and 2 ms with this.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            environment[name] = str(threads)
    environment.update({name: os.environ[name] for name in PASSED_ON if name in os.environ})
    return environment


@dataclass(frozen=True)
class Started:
    """A worker that was started, as what one process can give another: descriptors, which the taker then owns.

    Until somebody makes a `WorkerProcess` of it, nobody reads what it prints.
    """

    request_fd: int
    answer_fd: int
    output_fd: int
    status_fd: int
    """Where its warden reports."""
    control_fd: int
    """Where its warden is told what to do; it kills the worker when the last copy is closed."""
    warden_fd: int
    """Becomes readable when the warden has ended (pidfd)."""

    @property
    def fds(self) -> tuple[int, ...]:
        """In the order of the fields."""
        return (
            self.request_fd, self.answer_fd, self.output_fd, self.status_fd, self.control_fd, self.warden_fd,
        )  # fmt: skip

    def drop(self) -> None:
        """Closes our copies: the worker ends, unless somebody else has been given it."""
        for fd in self.fds:
            os.close(fd)


def start_worker(command: Sequence[str], *, limits: Limits, folder: Path, threads: int | None = None) -> Started:
    """Starts it confined, under its warden. The other ends of its pipes are two more arguments of `command`."""
    folder.mkdir(parents=True, exist_ok=True)
    their_request, request = _wide_pipe()
    answer, their_answer = _wide_pipe()
    output, their_output = os.pipe()
    status, their_status = os.pipe()
    their_control, control = os.pipe()
    theirs = (their_request, their_answer)
    config = {
        "command": [*command, *map(str, theirs)],
        "environment": worker_environment(folder, threads),
        "folder": str(folder.absolute()),
        "limits": asdict(limits),
        "worker_fds": theirs,
        "output_fd": their_output,
        "status_fd": their_status,
    }
    try:
        warden_fd = _start_warden(config, their_control)
    finally:
        for fd in (*theirs, their_output, their_status, their_control):
            os.close(fd)
    os.write(control, json.dumps(config).encode() + b"\n")
    return Started(request, answer, output, status, control, warden_fd)


class WorkerProcess:
    """One worker, from its start to the end of everything that it started.

    `request_fd` is the feeder's pipe to it and `answer_fd` the pipe back. Whoever starts it calls `kill()` or `wait()`
    in the end, from any thread.
    """

    def __init__(self, started: Started, *, limits: Limits, on_output: Callable[[str], None] | None = None) -> None:
        self.request_fd, self.answer_fd = started.request_fd, started.answer_fd
        self._started = started
        self._control, self._reports = io.FileIO(started.control_fd, "w"), Reports(started.status_fd)
        self._flooded = False
        self._ending: Ending | None = None
        self._ending_lock = threading.Lock()
        self.pid = 0
        self.output = OutputDrain(started.output_fd, limits, on_output, self._end_flood)
        self.pid = self._first_report()

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        limits: Limits,
        folder: Path,
        threads: int | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> WorkerProcess:
        """Starts it; see `start_worker`."""
        return cls(
            start_worker(command, limits=limits, folder=folder, threads=threads), limits=limits, on_output=on_output
        )

    @property
    def alive(self) -> bool:
        """Whether its warden still watches it."""
        return self._ending is None and not is_readable(self._started.warden_fd)

    def interrupt(self) -> None:
        """Asks the worker to stop at its next good moment (SIGTERM)."""
        self._command(b"t")

    def kill(self) -> Ending:
        """Ends the whole tree now, if it has not ended; returns when nothing of it is left."""
        self._command(b"k")
        return self.wait(KILL_TIMEOUT_S)

    def wait(self, timeout_s: float) -> Ending:
        """Waits for the worker to end; past the time the tree is killed. Safe to call again."""
        with self._ending_lock:
            if self._ending is None:
                report = self._reports.next(time.monotonic() + timeout_s)
                if report is None and not is_readable(self._started.warden_fd):
                    self._command(b"k")
                    report = self._reports.next(time.monotonic() + KILL_TIMEOUT_S)
                self._ending = self._finish(report)
            return self._ending

    def _command(self, letter: bytes) -> None:
        # The warden may have ended, and it ends after its tree.
        with contextlib.suppress(OSError, ValueError):
            self._control.write(letter)

    def _end_flood(self) -> None:
        self._flooded = True
        self._command(b"k")

    def _first_report(self) -> int:
        report = self._reports.next(time.monotonic() + START_TIMEOUT_S)
        if report is None or not isinstance(report.get("pid"), int):
            self._finish(None)
            raise OSError(f"the warden did not start a worker within {START_TIMEOUT_S:.0f} s")
        return int(report["pid"])

    def _finish(self, report: dict[str, Any] | None) -> Ending:
        started = self._started
        if report is None:
            self._end_without_warden()
        if not is_readable(started.warden_fd, KILL_TIMEOUT_S):
            log.error("a warden does not end", extra={"worker": self.pid})
        reap(started.warden_fd)
        self._control.close()
        self.output.finish()
        self._reports.close()
        os.close(started.warden_fd)
        if report is None:
            return Ending()
        if self._flooded:
            report["verdict"] = "output"
        return Ending(**report)

    def _end_without_warden(self) -> None:
        """Somebody killed the warden: the worker died with it, and what was in its process group dies here."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._started.warden_fd, signal.SIGKILL)
        if self.pid > 1:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


class Reports:
    """What a warden tells."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._read = b""

    def next(self, deadline: float) -> dict[str, Any] | None:
        """None when the time (of time.monotonic()) is over or the warden gone without one."""
        while b"\n" not in self._read:
            if not is_readable(self._fd, deadline - time.monotonic()):
                return None
            data = os.read(self._fd, 4096)
            if not data:
                return None
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def close(self) -> None:
        os.close(self._fd)


def reap(warden_fd: int) -> None:
    """Takes the status of a warden that has ended, if it is a child of this process."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, warden_fd, os.WEXITED | os.WNOHANG)


def is_readable(fd: int, wait_s: float = 0.0) -> bool:
    """Whether there is something to read, or its other end is closed; a pidfd: whether the process has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, wait_s) * 1000))


def _wide_pipe() -> tuple[int, int]:
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # The user has used up the kernel's allowance: narrower pipes are only slower.
    return ends


def _start_warden(config: Mapping[str, Any], control: int) -> int:
    """Its pidfd. Not by `subprocess`, which wants to reap it: whoever is given the worker waits for it."""
    kept = (*config["worker_fds"], config["output_fd"], config["status_fd"])
    warden_pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", warden.__file__],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),  # onto itself: it is inherited
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )
    return os.pidfd_open(warden_pid)
