"""An environment for each of the others, made by uv in a cache folder and kept for the next time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-bench"
INSTALL_TIMEOUT_S = 900
# The framework as our own worker has it.
FRAMEWORK = ("tensorflow-cpu", "keras", "orjson")


class NotInstallableError(Exception):
    """It cannot be had for this Python on this machine; the message says why, in a line."""


def python_of(requirements: Sequence[str]) -> Path:
    """An interpreter that has them, and the framework in our own version. Raises NotInstallableError."""
    wanted = [*requirements, *(f"{name}=={version(name)}" for name in FRAMEWORK)]
    folder = CACHE / f"{requirements[0]}-{sys.version_info.major}.{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists() or done.read_text() != " ".join(wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), *wanted)
        done.write_text(" ".join(wanted))
    return python


def _uv(*words: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    command = str(beside) if beside.exists() else "uv"
    try:
        done = subprocess.run(
            [command, "--quiet", *words], capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallableError(f"uv {words[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["uv said nothing"]
        raise NotInstallableError(f"uv {words[0]}: {said[0]}")
