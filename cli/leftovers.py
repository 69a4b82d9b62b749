"""Finds and ends the processes of a home folder that nobody supervises any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

SERVICES = frozenset({"control_plane", "executors", "logger", "gateway"})
WORKLOADS = frozenset({"trainer", "inferencer"})
TERM_GRACE_S = 10.0


def sweep(home: Path, modules: frozenset[str] = SERVICES | WORKLOADS, grace_s: float = TERM_GRACE_S) -> int:
    """End every process of the home that runs one of these modules, its broker, and their children.

    They get SIGTERM, and SIGKILL after `grace_s`. Returns how many there were, when all are gone.
    """
    found = list(_processes(home, modules))
    everything = {process.pid: process for parent in found for process in [parent, *_children(parent)]}
    for process in found:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(list(everything.values()), timeout=grace_s)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=TERM_GRACE_S)
    return len(found)


def _processes(home: Path, modules: frozenset[str]) -> Iterator[psutil.Process]:
    """By command line *and* home: a shell in which somebody exported HEADRACE_HOME is none of ours."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if _is_broker(words, home) or (_module(words) in modules and _home(process) == home):
                yield process
        except (psutil.Error, OSError):
            continue


def _module(words: list[str]) -> str:
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def _home(process: psutil.Process) -> Path | None:
    value = process.environ().get("HEADRACE_HOME")
    return Path(value) if value else None


def _is_broker(words: list[str], home: Path) -> bool:
    return words[-2:] == ["kafka.Kafka", str(home / "kafka" / "server.properties")]


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
