"""What the supervisor supervises: a service of ours or the embedded broker, as a process that can be started again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cli.broker import Broker
from headrace.errors import HeadraceError

LEASH = Path(__file__).with_name("leash.py")
LOG_LIMIT_BYTES = 10 * 1024 * 1024
PROBE_TIMEOUT_S = 1.0


class Supervised(Protocol):
    """A process with a name. `pid` is 0 while it does not run. Start it on the main thread only: it ends with it."""

    name: str
    log_path: Path

    @property
    def address(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def is_ready(self) -> bool: ...
    def stop(self, grace_s: float, hurry: Callable[[], bool]) -> None: ...


class Service:
    """A module of ours, run with `python -P -m MODULE` in a session of its own, its output in a log file.

    environment: its whole environment.
    ready: asks it, within about a second, whether it serves.
    """

    def __init__(
        self, name: str, module: str, *,
        address: str, environment: Mapping[str, str], log_path: Path, ready: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.name = name
        self._address = address
        self.log_path = log_path
        self.is_ready = ready
        self._module = module
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return self._address

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", self._module]
        _rotate(self.log_path)
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-IS", str(LEASH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C in the terminal is for the supervisor, which then stops the services in their order.
                start_new_session=True,
            )

    def stop(self, grace_s: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM, and SIGKILL after `grace_s` or as soon as there is no time."""
        terminate(self, grace_s, hurry)
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class BrokerService:
    """The embedded broker as a supervised process."""

    name = "broker"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.log_path = broker.log_path

    @property
    def address(self) -> str:
        return self._broker.bootstrap_servers

    @property
    def pid(self) -> int:
        return self._broker.pid

    def start(self) -> None:
        self._broker.kill()  # lets go of a process that ended
        self._broker.start()

    def is_ready(self) -> bool:
        try:
            self._broker.wait_ready(PROBE_TIMEOUT_S)
        except HeadraceError:
            return False
        return True

    def stop(self, grace_s: float, hurry: Callable[[], bool]) -> None:
        terminate(self, grace_s, hurry)
        self._broker.kill()


def terminate(service: Supervised, grace_s: float, hurry: Callable[[], bool]) -> None:
    """Ask it to end and wait for that, at most `grace_s`, and no longer when there is no time."""
    if not (pid := service.pid):
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while service.pid and time.monotonic() < deadline and not hurry():
        time.sleep(0.02)


def grpc_serves(address: str) -> bool:
    """Whether the gRPC server there says that it serves (grpc.health.v1)."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ready(address: str, path: str) -> bool:
    """Whether the HTTP server there answers the path with 200."""
    connection = http.client.HTTPConnection(address, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def last_lines(path: Path, count: int = 5) -> list[str]:
    """The end of a log as people read it, for an error message."""
    if not path.exists():
        return []
    return [readable(line) for line in path.read_text(errors="replace").splitlines()[-count:]]


def readable(line: str) -> str:
    """One of our own log lines in JSON as its message and cause; any other line as it is."""
    try:
        fields = json.loads(line)
        return ": ".join(str(fields[name]) for name in ("message", "cause", "exception") if fields.get(name))
    except (ValueError, TypeError, AttributeError):
        return line


def _rotate(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
