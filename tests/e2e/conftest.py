"""One whole platform for all end-to-end tests, started and stopped by the command that users call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.home import PlatformState, read_state
from tests.support import heed_interrupts

PORT_OPTIONS = ("--port", "--gateway-port", "--tensorflow-port", "--pytorch-port", "--logger-port", "--broker-port")
ANY_PORTS = [word for option in PORT_OPTIONS for word in (option, "0")]


@dataclass(frozen=True)
class Platform:
    """A home folder, and the command `headrace` in it."""

    home: Path

    def headrace(
        self, *words: str, timeout_s: float = 120, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, as a user would, in a folder of no importance."""
        try:
            return subprocess.run(
                [sys.executable, "-P", "-m", "cli", *words],
                env={**self._environment(), **(environment or {})},
                cwd=self.home.parent, capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"") + (late.stderr or b"")
            text = said.decode(errors="replace") if isinstance(said, bytes) else said
            raise AssertionError(f"headrace {' '.join(words)}: not done, it said:\n{text}\n{self.logs()}") from late

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs, until it is left."""
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", *words], env=self._environment(), cwd=self.home.parent,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
        ) as command:  # fmt: skip
            try:
                yield command
            finally:
                command.kill()

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        return {**clean, "HEADRACE_HOME": str(self.home)}

    def done(self, *words: str, timeout_s: float = 120) -> str:
        """Run a command that has to succeed, and return what it printed."""
        result = self.headrace(*words, timeout_s=timeout_s)
        assert result.returncode == 0, f"headrace {' '.join(words)}: {result.stdout}\n{result.stderr}"
        return result.stdout

    def json(self, *words: str, timeout_s: float = 120) -> Any:
        """What a command prints with --json."""
        return json.loads(self.done(*words, "--json", timeout_s=timeout_s))

    @property
    def state(self) -> PlatformState:
        state = read_state(self.home)
        assert state is not None
        return state

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://{self.state.gateway}"

    def processes(self) -> list[psutil.Process]:
        """Every process of this home that still runs, the supervisor included."""
        return [process for process in psutil.process_iter() if _belongs_to(process, self.home)]

    def logs(self) -> str:
        """The ends of all logs, for a failed test."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(self.home.glob("logs/*.log"))
        )


def _belongs_to(process: psutil.Process, home: Path) -> bool:
    try:
        words: Sequence[str] = process.cmdline()
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return str(home) in " ".join(words) or process.environ().get("HEADRACE_HOME") == str(home)
    except psutil.Error:
        return False


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform on free ports. Tests share it: they name their resources and topics apart."""
    running = Platform(tmp_path_factory.mktemp("platform") / "home")
    running.done("up", "--detach", *ANY_PORTS, timeout_s=180)
    try:
        yield running
    finally:
        stopped = running.headrace("down", timeout_s=120)
    assert stopped.returncode == 0, stopped.stderr
    assert not [process.cmdline() for process in running.processes()]
