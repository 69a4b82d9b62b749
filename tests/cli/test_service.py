"""Services as processes: they are ready, they end, they are started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cli.service import Service, http_ready, last_lines
from cli.supervisor import Keeper
from tests.support import eventually, free_port

ROOT = Path(__file__).parents[2]
Make = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Make]:
    made: list[Service] = []

    def make(kind: str = "") -> Service:
        address = f"127.0.0.1:{free_port()}"
        made.append(
            Service(
                "small", "tests.cli.small_service",
                address=address, log_path=tmp_path / "small.log",
                environment={**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_LISTEN": address, "SMALL_SERVICE": kind},
                ready=lambda: http_ready(address, "/readyz"),
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for service in made:
        service.stop(0.0, lambda: True)


def test_a_service_is_ready_when_it_answers_and_gone_when_it_is_stopped(make_service: Make) -> None:
    service = make_service()
    assert service.pid == 0
    assert not service.is_ready()
    service.start()
    eventually(service.is_ready)
    pid = service.pid
    service.stop(10.0, lambda: False)
    assert service.pid == 0
    assert not psutil.pid_exists(pid)


def test_a_service_runs_in_a_session_of_its_own(make_service: Make) -> None:
    service = make_service()
    service.start()
    assert os.getsid(service.pid) == service.pid


def test_a_stubborn_service_is_killed_when_its_grace_is_over(make_service: Make) -> None:
    service = make_service("stubborn")
    service.start()
    eventually(service.is_ready)
    began = time.monotonic()
    service.stop(0.3, lambda: False)
    assert service.pid == 0
    assert time.monotonic() - began < 5.0


def test_there_is_no_grace_when_somebody_is_in_a_hurry(make_service: Make) -> None:
    service = make_service("stubborn")
    service.start()
    eventually(service.is_ready)
    began = time.monotonic()
    service.stop(60.0, lambda: True)
    assert service.pid == 0
    assert time.monotonic() - began < 10.0


def test_a_killed_service_is_started_again_and_counted(make_service: Make) -> None:
    keeper = Keeper(make_service())
    keeper.start()

    def turn_until(state: str) -> None:
        def turned() -> bool:
            keeper.step()
            return keeper.state.state == state

        eventually(turned)

    turn_until("ready")
    first = keeper.state.pid
    os.kill(first, signal.SIGKILL)
    turn_until("restarting")
    turn_until("ready")
    assert keeper.state.pid not in (0, first)
    assert keeper.state.restarts == 1
    assert keeper.early_deaths == 0


def test_a_service_that_cannot_start_says_why(make_service: Make) -> None:
    keeper = Keeper(make_service("broken"))
    keeper.start()

    def died_three_times() -> bool:
        keeper.step()
        return keeper.early_deaths >= 3

    eventually(died_three_times)
    assert "no settings, no service" in keeper.why_not()


def test_a_service_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    program = f"""
import os, time
from pathlib import Path
from cli.service import Service
service = Service("small", "tests.cli.small_service", address={address!r}, log_path=Path({str(tmp_path / "log")!r}),
                  environment=dict(os.environ, HEADRACE_LISTEN={address!r}), ready=lambda: True)
service.start()
print(service.pid, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as supervisor:
        assert supervisor.stdout is not None
        service_pid = int(supervisor.stdout.readline())
        eventually(lambda: http_ready(address, "/readyz"))
        supervisor.kill()
    eventually(lambda: not psutil.pid_exists(service_pid))


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_text("".join(f"line {number}\n" for number in range(10)))
    assert last_lines(log, 2) == ["line 8", "line 9"]


def test_the_end_of_a_log_is_told_as_people_read_it(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text('plain\n{"time": "…", "level": "ERROR", "message": "stopped", "cause": "no room"}\n[1]\n{"a"\n')
    assert last_lines(log) == ["plain", "stopped: no room", "[1]", '{"a"']
