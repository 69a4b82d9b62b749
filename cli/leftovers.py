"""Finds and ends the processes of a home folder that nobody supervises any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

SERVICES = frozenset({"control_plane", "executors", "logger", "gateway"})
WORKLOADS = frozenset({"trainer", "inferencer"})
TERM_GRACE_S = 10.0
KILL_GRACE_S = 5.0
TURN_S = 0.02


def sweep(home: Path, *, workloads: bool = True, grace_s: float = TERM_GRACE_S) -> int:
    """End every process of the home that runs one of our services, its broker, and all their children.

    workloads: trainers and inferencers too; without, they go on, and the next control plane adopts them.

    They get SIGTERM, and SIGKILL after `grace_s`. Returns how many there were, when all are gone.
    """
    found = list(_processes(home, workloads))
    children = [child for process in found for child in _children(process)]
    for process in found:
        _signal(process.terminate)
    _await_end(found, grace_s)
    # A worker ends with the process that feeds it; what is left now does not want to.
    for process in [*found, *children]:
        _signal(process.kill)
    _await_end([*found, *children], KILL_GRACE_S)
    return len(found)


def _await_end(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(TURN_S)


def _runs(process: psutil.Process) -> bool:
    """A zombie has ended, whether or not somebody fetches its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _processes(home: Path, workloads: bool) -> Iterator[psutil.Process]:
    """By command line *and* home: a shell in which somebody exported HEADRACE_HOME is none of ours."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            is_service = _is_broker(words, home) or _runs_one_of(SERVICES, words, process, home)
            is_workload = _is_shim(words, home) or _runs_one_of(WORKLOADS, words, process, home)
            if is_service or (workloads and is_workload):
                yield process
        except (psutil.Error, OSError):
            continue


def _runs_one_of(modules: frozenset[str], words: list[str], process: psutil.Process, home: Path) -> bool:
    return _module(words) in modules and _home(process) == home


def _module(words: list[str]) -> str:
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def _home(process: psutil.Process) -> Path | None:
    value = process.environ().get("HEADRACE_HOME")
    return Path(value) if value else None


def _is_broker(words: list[str], home: Path) -> bool:
    return words[-2:] == ["kafka.Kafka", str(home / "kafka" / "server.properties")]


def _is_shim(words: list[str], home: Path) -> bool:
    """The process between the control plane and a workload; its last argument is JSON with its paths."""
    return len(words) > 2 and words[-2].endswith("control_plane/shim.py") and f"{home}/" in words[-1]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.Error:
        pass
