"""What a worker may use, and what ended it."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """What a worker and everything that it starts may use together. None or 0: no limit."""

    memory_bytes: int = 4 * GIB
    """Resident private memory of the whole tree; files mapped read-only do not count. Over it: OUT_OF_MEMORY."""
    cpu_s: int | None = None
    """Processor seconds of the worker. Over it: DEADLINE."""
    file_bytes: int = 16 * GIB
    """Size of one written file. Over it, writing fails with EFBIG inside the worker."""
    open_files: int = 4096
    """Open file descriptors of one process."""
    processes: int = 256
    """Processes in the tree. Over it: WORKER_CRASHED."""
    output_bytes: int | None = None
    """Bytes printed in all. Over it: OUTPUT_LIMIT."""
    output_bytes_per_s: int = 256 * 1024
    """Printed bytes passed on per second; the rest of that second is left out, and the gap is marked."""
    output_kept_bytes: int = 64 * 1024
    """Printed bytes that the session remembers: the first ones."""


def limits_of(memory_bytes: int) -> Limits:
    """The usual ones, but for the memory; 0: that too."""
    return Limits(memory_bytes=memory_bytes) if memory_bytes else Limits()


@dataclass(frozen=True)
class Ending:
    """How a worker ended. Exactly one of `exit_code` and `signal` is set, unless nobody could see it."""

    exit_code: int | None = None
    signal: int | None = None
    verdict: str | None = None
    """Why we killed it: `memory`, `processes`, `output`, `asked`; None: we did not."""
    peak_bytes: int = 0
    """The most memory that was resident at once; 0 where not known."""
