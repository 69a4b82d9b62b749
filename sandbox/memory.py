"""Whether the kernel killed for memory: the counter of this process's memory cgroup, where it has one."""

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
