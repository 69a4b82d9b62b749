"""The worker processes of one test."""

from pathlib import Path

import psutil


def workers_in(folder: Path) -> list[psutil.Process]:
    """Those below us at home in this folder: what other tests share, such as a platform, has workers of its own."""
    return [one for one in psutil.Process().children(recursive=True) if _is_at_home(one, folder)]


def _is_at_home(process: psutil.Process, folder: Path) -> bool:
    try:
        return "frameworks.worker" in process.cmdline() and process.cwd().startswith(str(folder))
    except psutil.Error:  # It has just ended.
        return False
