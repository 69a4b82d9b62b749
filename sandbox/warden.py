"""The warden: a small process between a feeder and its worker, so that the worker dies as a whole tree.

It starts the worker confined and watches what the tree uses. When the worker ends, when the feeder says so, or when
the feeder is gone (however it went: its end of the control pipe closes), it kills every descendant and only then
reports. It is the subreaper of the tree: a daemon that forked twice into a session of its own becomes its child and
does not escape.

Runs as a file, isolated, on the standard library alone: it starts in milliseconds and holds nothing worth stealing.
The control pipe is its standard input: first one line, the configuration of `sandbox.process` in JSON; then `t` asks
the worker to stop (SIGTERM), `k` or its end kills. Reports are JSON lines on the status pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

WATCH_INTERVAL_MS = 100
# A look at the whole of /proc takes its time on a large machine: once a second at most, and 1 % of the time at most.
TREE_INTERVAL_S = 1.0
TREE_SHARE = 0.01
# Beyond the limit on what is resident: address space that allocators and thread stacks reserve and never touch.
RESERVED_BYTES = 2 * 1024**3
RESERVED_BYTES_PER_PROCESSOR = 64 * 1024**2

Config = dict[str, Any]


def main() -> None:
    """Starts the worker of the configuration, watches it to its end, reports."""
    config = _read_config()
    status = config["status_fd"]
    # Whatever else the feeder lets its children have, such as a lock, is not to outlive it.
    _close_all_but({*config["worker_fds"], config["output_fd"], status})
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    worker = _start_worker(config)
    for fd in (*config["worker_fds"], config["output_fd"]):
        os.close(fd)
    _report(status, {"pid": worker})
    verdict, peak = _watch(worker, config["limits"])
    ending = _kill_tree(worker)
    ending["peak_bytes"] = max(peak, ending["peak_bytes"])
    _report(status, {"verdict": verdict, **ending})


def _read_config() -> Config:
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1)  # Not a byte too many: what follows is for _watch.
        if not more:
            sys.exit(0)  # The feeder is gone before it began.
        line += more
    config: Config = json.loads(line)
    return config


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _report(fd: int, message: dict[str, Any]) -> None:
    try:
        os.write(fd, json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # The feeder is gone; the tree is killed all the same.


def _start_worker(config: Config) -> int:
    warden = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_worker(config, warden)
        finally:
            os._exit(127)
    return pid


def _become_worker(config: Config, warden: int) -> NoReturn:
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:  # It died before the line above could tell us.
        os._exit(127)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _limit(config["limits"])
    _connect(config)
    # Python ignores some signals, and what is ignored stays so over exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(config["folder"])
    os.execve(config["command"][0], config["command"], config["environment"])  # noqa: S606


def _limit(limits: Config) -> None:
    def set_limit(which: int, soft: int | None, hard: int | None = None) -> None:
        if soft:
            _, allowed = resource.getrlimit(which)
            wanted = soft if hard is None else hard
            top = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
            resource.setrlimit(which, (min(soft, top), top))

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits["memory_bytes"]:
        reserved = RESERVED_BYTES + RESERVED_BYTES_PER_PROCESSOR * (os.cpu_count() or 1)
        set_limit(resource.RLIMIT_DATA, limits["memory_bytes"] + reserved)
    if limits["cpu_s"]:
        set_limit(resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + 1)
    set_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    set_limit(resource.RLIMIT_NOFILE, limits["open_files"])
    # When the machine runs out of memory, this process is to go first, not the feeder.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


def _connect(config: Config) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(config["output_fd"], 1)
    os.dup2(config["output_fd"], 2)
    _close_all_but(set(config["worker_fds"]))


def _close_all_but(kept: set[int]) -> None:
    """Above the standard ones."""
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if fd > 2 and fd not in kept:
            # The one that listed the folder is closed already.
            with contextlib.suppress(OSError):
                os.close(fd)


def _watch(worker: int, limits: Config) -> tuple[str | None, int]:
    """Waits until the worker has ended or has to; returns why it has to, and the most memory seen."""
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    watched = os.pidfd_open(worker)
    poller.register(watched, select.POLLIN)
    peak, next_look = 0, 0.0
    while True:
        ready = dict(poller.poll(WATCH_INTERVAL_MS))
        if watched in ready:
            return None, peak
        if 0 in ready:
            command = os.read(0, 1)
            if command != b"t":
                return "asked", peak
            os.kill(worker, signal.SIGTERM)
        began, tree = time.monotonic(), [worker]
        if began >= next_look:
            tree += _descendants()
            took = time.monotonic() - began
            next_look = began + max(TREE_INTERVAL_S, took / TREE_SHARE)
        if limits["processes"] and len(tree) > limits["processes"]:
            return "processes", peak
        used = _resident_bytes(set(tree))
        peak = max(peak, used)
        if limits["memory_bytes"] and used > limits["memory_bytes"]:
            return "memory", peak


def _resident_bytes(pids: set[int]) -> int:
    """Private and shared-anonymous memory of the processes. What a fork shares with its parent is counted once."""
    if len(pids) == 1:
        return sum(_kib_fields(pid, "status", ("RssAnon:", "RssShmem:")) for pid in pids)
    return sum(_kib_fields(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for pid in pids)


def _kib_fields(pid: int, name: str, fields: tuple[str, ...]) -> int:
    try:
        with open(f"/proc/{pid}/{name}") as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))


def _descendants() -> list[int]:
    """Every living process below this one, from one look at /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            parent = _parent(int(entry))
            if parent is not None:
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
            # The name in parentheses may hold blanks and parentheses.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == b"Z" else int(parent)


def _kill_tree(worker: int) -> Config:
    """Kills until no descendant is left: what forks while it is killed is found in the next round."""
    ending: Config = {"exit_code": None, "signal": None, "peak_bytes": 0}
    with contextlib.suppress(ProcessLookupError):
        # It may have ended by itself: then this changes nothing about its status, since nobody has asked for it yet.
        os.kill(worker, signal.SIGKILL)
    while True:
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            _reap(worker, ending)
        except ChildProcessError:  # No child: whatever lost its parent became one of ours, so nothing is left.
            return ending
        time.sleep(0.002)


def _reap(worker: int, ending: Config) -> None:
    """Takes the status of every process that has ended. Raises ChildProcessError when there is no child at all."""
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == worker:
            ending["peak_bytes"] = usage.ru_maxrss * 1024
            code = os.waitstatus_to_exitcode(status)
            ending["exit_code" if code >= 0 else "signal"] = abs(code)


if __name__ == "__main__":
    main()
