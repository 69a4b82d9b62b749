"""The shim: a small process between the control plane and a workload, so that its end is known whoever is away.

It starts the workload, writes its output to a bounded log, and waits. When the workload ends, or does not within the
grace after SIGTERM, it kills every descendant and leaves the exit in a file. It is the subreaper of the tree: what
forks twice into a session of its own becomes its child and does not escape. The workload dies with it.

Runs as a file, isolated, on the standard library alone: it starts in milliseconds. Its argument is the configuration of
`control_plane.local` in JSON. It holds the lock of the workload's file until its end, and so does the workload.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CHUNK_BYTES = 64 * 1024
DEFAULT_GRACE_S = 10.0

Config = dict[str, Any]


def main() -> None:
    """Runs the workload of the configuration to its end."""
    config = json.loads(sys.argv[1])
    wakeup = _catch_signals()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    log = Log(config["log"], config["log_bytes"])
    child, output = _start(config)
    shim = Shim(config, child, output, wakeup, log)
    code = shim.run()
    _write_json(config["exit"], {**_ending(code), "stopped": shim.stopping})


class Shim:
    """Waits for the workload, its output, and the wish to stop it."""

    def __init__(self, config: Config, child: int, output: int, wakeup: int, log: Log) -> None:
        self.stopping = False
        self._config, self._child, self._output, self._wakeup, self._log = config, child, output, wakeup, log
        self._code: int | None = None
        self._deadline: float | None = None
        self._poller = select.poll()
        self._poller.register(wakeup, select.POLLIN)
        self._poller.register(output, select.POLLIN)

    def run(self) -> int:
        """Returns the workload's exit code, or minus its signal, when nothing of the tree is left."""
        if os.path.exists(self._config["stop"]):  # noqa: PTH110 - pathlib costs this process its quick start
            self._begin_stop()
        while self._code is None:
            self._wait()
            self._reap()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                break
        return self._kill_tree()

    def _wait(self) -> None:
        left_ms = None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) * 1000
        for fd, _ in self._poller.poll(left_ms):
            if fd == self._wakeup:
                if signal.SIGTERM in os.read(fd, 4096):
                    self._begin_stop()
            elif not self._pump():
                self._poller.unregister(fd)

    def _begin_stop(self) -> None:
        """A later wish may only shorten the grace: who repeats the wish does not prolong it."""
        deadline = time.monotonic() + _grace_s(self._config["stop"])
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        if not self.stopping:
            self.stopping = True
            self._signal(self._child, signal.SIGTERM)

    def _pump(self) -> bool:
        """Moves output to the log; False when there is no more for now, or ever."""
        try:
            data = os.read(self._output, CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._log.write(data)
        return bool(data)

    def _kill_tree(self) -> int:
        """Kills until no descendant is left: what forks while it is killed is found in the next round."""
        if self._code is None:
            self._signal(self._child, signal.SIGKILL)
        while self._reap():
            for pid in _descendants():
                self._signal(pid, signal.SIGKILL)
            time.sleep(0.002)
        with contextlib.suppress(OSError):
            while data := os.read(self._output, CHUNK_BYTES):
                self._log.write(data)
        return -signal.SIGKILL if self._code is None else self._code

    def _reap(self) -> bool:
        """Takes the status of every process that has ended; False when there is no child at all."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._child:
                    self._code = os.waitstatus_to_exitcode(status)
        return False

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Log:
    """A file of at most `limit` bytes. A full one is renamed to PATH.N, counted from 0, of which the last one stays."""

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        self._open()

    def write(self, data: bytes) -> None:
        """A full disk loses output, not the training."""
        with contextlib.suppress(OSError):
            while data:
                if self._size >= self._limit:
                    self._rotate()
                written = os.write(self._fd, data[: self._limit - self._size])
                self._size += written
                data = data[written:]

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        folder, name = os.path.split(self._path)
        # Exactly these: `infer-1-0.log` is not `infer-1-01.log`, and a number is what follows its last dot.
        full = [entry for entry in os.listdir(folder) if entry.rpartition(".")[0] == name]  # noqa: PTH208
        numbers = sorted(int(entry.rpartition(".")[2]) for entry in full)
        os.close(self._fd)
        os.rename(self._path, f"{self._path}.{numbers[-1] + 1 if numbers else 0}")  # noqa: PTH104
        self._open()
        for number in numbers:
            os.unlink(f"{self._path}.{number}")  # noqa: PTH108


def _catch_signals() -> int:
    """A pipe that tells of SIGTERM and of children that ended."""
    read, write = os.pipe()
    for fd in (read, write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return read


def _start(config: Config) -> tuple[int, int]:
    """The workload's pid and its output. It is executed only after its record is on disk."""
    output, their_output = os.pipe()
    their_go, go = os.pipe()
    shim = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            _become_workload(config, shim, their_go, their_output)
        finally:
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.close(their_output)
    os.close(their_go)
    _write_json(config["record"], {**config["identity"], **_identity(shim), "child": child})
    os.write(go, b"g")
    os.close(go)
    os.set_blocking(output, False)
    return child, output


def _become_workload(config: Config, shim: int, go: int, output: int) -> NoReturn:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != shim:  # It died before the line above could tell us.
        os._exit(127)
    if not os.read(go, 1):
        os._exit(127)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, place)
    os.set_inheritable(config["lock_fd"], True)
    # What is ignored or caught stays ignored, or is lost, over exec: begin with the system's defaults.
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.chdir(config["folder"])
    try:
        os.execv(config["command"][0], config["command"])  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot start {config['command'][0]}: {error}\n".encode())
        os._exit(127)


def _identity(pid: int) -> Config:
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        boot_id = file.read().strip()
    with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
        # The 22nd field; the 2nd, the name in parentheses, may hold blanks.
        starttime = int(stat.read().rpartition(b")")[2].split()[19])
    return {"pid": pid, "starttime": starttime, "boot_id": boot_id}


def _ending(code: int) -> Config:
    return {"code": code, "signal": None} if code >= 0 else {"code": None, "signal": -code}


def _grace_s(path: str) -> float:
    try:
        with open(path) as file:  # noqa: PTH123
            return float(file.read())
    except (OSError, ValueError):
        return DEFAULT_GRACE_S


def _write_json(path: str, content: Config) -> None:
    partial = f"{path}.partial"
    with open(partial, "w") as file:  # noqa: PTH123
        json.dump(content, file)
    os.rename(partial, path)  # noqa: PTH104


def _descendants() -> list[int]:
    """Every living process below this one, from one look at /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == b"Z" else int(parent)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    main()
