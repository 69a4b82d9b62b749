"""A platform that is stopped or killed while it starts leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.home import read_state, supervisor_pid
from tests.e2e.conftest import ANY_PORTS, Platform
from tests.support import eventually


@contextmanager
def _starting(platform: Platform) -> Iterator[subprocess.Popen[str]]:
    """`headrace up` in the foreground, once it has started its services (they are not ready yet)."""
    environment = {**os.environ, "HEADRACE_HOME": str(platform.home)}
    command = [sys.executable, "-P", "-m", "cli", "up", *ANY_PORTS]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as up:
        try:
            eventually(lambda: _services(platform.home) >= 5, timeout_s=60)
            yield up
        finally:
            up.kill()


def _services(home: Path) -> int:
    state = read_state(home)
    return sum(service.pid > 0 for service in state.services) if state is not None else 0


def test_ctrl_c_while_it_starts_stops_everything(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    with _starting(platform) as up:
        up.send_signal(signal.SIGINT)
        said, complained = up.communicate(timeout=90)
    assert up.returncode == 130, complained
    assert "Stopped before it was ready." in said
    assert not platform.processes()
    assert supervisor_pid(platform.home) == 0


def test_a_second_ctrl_c_does_not_wait_and_leaves_no_orphan(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    with _starting(platform) as up:
        up.send_signal(signal.SIGINT)
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=30)
    assert not platform.processes()


def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    with _starting(platform) as up:
        up.kill()
        up.communicate(timeout=30)
    eventually(lambda: not platform.processes(), timeout_s=60)
    assert platform.headrace("down").returncode == 0
