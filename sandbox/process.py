"""A worker process: started confined under a warden, ended as a whole tree."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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


class WorkerProcess:
    """One worker, from its start to the end of everything that it started.

    `request_fd` is the feeder's pipe to it and `answer_fd` the pipe back; their other ends are passed to `command` as
    two more arguments, by number. Whoever starts it calls `kill()` or `wait()` in the end, from any thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        limits: Limits,
        folder: Path,
        threads: int | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        their_request, self.request_fd = _wide_pipe()
        self.answer_fd, their_answer = _wide_pipe()
        output, their_output = os.pipe()
        self._status, their_status = os.pipe()
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
            self._warden = _start_warden(config)
        finally:
            for fd in (*theirs, their_output, their_status):
                os.close(fd)
        self._reports = b""
        self._flooded = False
        self._ending: Ending | None = None
        self._ending_lock = threading.Lock()
        self.pid = 0
        self.output = OutputDrain(output, limits, on_output, self._end_flood)
        self.pid = self._first_report()

    @property
    def alive(self) -> bool:
        """Whether its warden still watches it."""
        return self._warden.poll() is None

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
                report = self._read_report(time.monotonic() + timeout_s)
                if report is None and self._warden.poll() is None:
                    self._command(b"k")
                    report = self._read_report(time.monotonic() + KILL_TIMEOUT_S)
                self._ending = self._finish(report)
            return self._ending

    def _command(self, letter: bytes) -> None:
        try:
            if self._warden.stdin is not None:
                os.write(self._warden.stdin.fileno(), letter)
        except (OSError, ValueError):
            pass  # The warden has ended, and it ends after its tree.

    def _end_flood(self) -> None:
        self._flooded = True
        self._command(b"k")

    def _first_report(self) -> int:
        report = self._read_report(time.monotonic() + START_TIMEOUT_S)
        if report is None or not isinstance(report.get("pid"), int):
            self._warden.kill()
            self._finish(None)
            raise OSError(f"the warden did not start a worker within {START_TIMEOUT_S:.0f} s")
        return int(report["pid"])

    def _read_report(self, deadline: float) -> dict[str, Any] | None:
        """One line of the status pipe; None when the time is over or the warden gone without one."""
        poller = select.poll()
        poller.register(self._status, select.POLLIN)
        while b"\n" not in self._reports:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            data = os.read(self._status, 4096)
            if not data:
                return None
            self._reports += data
        line, _, self._reports = self._reports.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def _finish(self, report: dict[str, Any] | None) -> Ending:
        if report is None:
            self._end_without_warden()
        try:
            self._warden.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.error("a warden does not end", extra={"warden": self._warden.pid})
        if self._warden.stdin is not None:
            self._warden.stdin.close()
        self.output.finish()
        os.close(self._status)
        if report is None:
            return Ending()
        if self._flooded:
            report["verdict"] = "output"
        return Ending(**report)

    def _end_without_warden(self) -> None:
        """Somebody killed the warden: the worker died with it, and what was in its process group dies here."""
        self._warden.kill()
        if self.pid > 1:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


def _wide_pipe() -> tuple[int, int]:
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # The user has used up the kernel's allowance: narrower pipes are only slower.
    return ends


def _start_warden(config: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    fds = (*config["worker_fds"], config["output_fd"], config["status_fd"])
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", warden.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={},
        pass_fds=fds,
        bufsize=0,
        start_new_session=True,
    )
    if started.stdin is not None:
        started.stdin.write(json.dumps(config).encode() + b"\n")
    return started
