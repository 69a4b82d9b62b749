"""What the kernel tells of memory: whether it killed for it, and how much is left."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int:
    """How often the kernel has killed in this process's cgroup so far; 0 where nobody counts.

    Compare two readings: a worker that SIGKILL ended while the number rose was killed for its memory.
    """
    return sum(_count(path) for path in _counters())


def _counters() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        below = path.lstrip("/")
        if controllers == "":
            found += [_CGROUPS / below / "memory.events", _CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            found += [_CGROUPS / "memory" / below / "memory.oom_control", _CGROUPS / "memory" / "memory.oom_control"]
    return list(dict.fromkeys(found))


def _count(path: Path) -> int:
    try:
        match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


def available_bytes() -> int:
    """What this process and its children may still take: of the machine, and of its memory cgroup."""
    return min([_machine_bytes(), *_cgroup_bytes()])


def _machine_bytes() -> int:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def _cgroup_bytes() -> list[int]:
    found = []
    for events in _counters():
        v2 = events.name == "memory.events"
        limit = _number(events.with_name("memory.max" if v2 else "memory.limit_in_bytes"))
        used = _number(events.with_name("memory.current" if v2 else "memory.usage_in_bytes"))
        if limit is not None and used is not None:
            found.append(max(0, limit - used))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None
