"""Starting workers for tests, and looking for what they leave behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sandbox.limits import Limits
from sandbox.process import WorkerProcess
from sandbox.session import WorkerSession

PLAIN_WORKER = Path(__file__).with_name("plain_worker.py")


def start_plain(
    framework: str = "plain", *, limits: Limits | None = None, folder: Path, **options: Any
) -> WorkerSession:
    """A session with tests/sandbox/plain_worker.py; the framework `missing` is not installed."""
    process = WorkerProcess.start(plain_command(framework), limits=limits or Limits(), folder=folder, **options)
    return WorkerSession(process, limits or Limits(), folder)


def plain_command(framework: str = "plain") -> list[str]:
    """What runs it."""
    return [sys.executable, "-P", str(PLAIN_WORKER), framework]


def processes_with(marker: str) -> list[int]:
    """Living processes whose command line holds a text, this one left out."""
    return [pid for pid in _processes() if pid != os.getpid() and marker in _command_line(pid)]


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_line(pid: int) -> str:
    try:
        # Empty for a process that has ended and waits for its parent.
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
