"""What a home's platform left behind is found and ended; what only looks like it is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli.leftovers import sweep

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with a module `trainer` and a module `editor` that both just sleep, the first with a child."""
    (tmp_path / "editor.py").write_text(SLEEP)
    (tmp_path / "trainer.py").write_text(
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True); {SLEEP}"
    )
    return tmp_path


def _start(folder: Path, module: str, home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", module], cwd=folder, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )


def test_only_our_modules_of_this_home_are_ended_with_their_children(modules: Path) -> None:
    home, other = modules / "home", modules / "other"
    with (
        _start(modules, "trainer", home) as ours,
        _start(modules, "trainer", other) as of_another_home,
        _start(modules, "editor", home) as somebodys,
    ):
        try:
            assert ours.stdout is not None
            child = int(ours.stdout.readline())
            assert sweep(home, workloads=False) == 0
            assert sweep(home) == 1
            assert ours.wait(10) == -signal.SIGTERM
            assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
            assert of_another_home.poll() is None
            assert somebodys.poll() is None
        finally:
            sweep(other)
            for process in (ours, of_another_home, somebodys):
                process.kill()


def test_an_empty_home_has_nothing_to_end(tmp_path: Path) -> None:
    assert sweep(tmp_path) == 0
