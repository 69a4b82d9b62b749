"""`headrace up`, `down`, `status` and `broker`: the platform on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from cli import output
from cli.home import PlatformState, ServiceState, home_folder, prepared, read_state, running_state, supervisor_pid
from cli.leftovers import sweep
from cli.options import MAX_PORT, BrokerPort, GatewayPort, LoggerPort, PlatformKafka, Port, PytorchPort, TensorflowPort
from cli.service import readable
from cli.supervisor import PORT_OPTIONS, Ports, supervise
from headrace.errors import DeadlineExceeded, FailedPrecondition, HeadraceError, Unavailable
from headrace.v1 import error_pb2

EXIT_NOT_READY = 1
EXIT_NOT_UP = 4
EXIT_INTERRUPTED = 130
DOWN_DEADLINE_S = 120.0
UP_DEADLINE_S = 600.0
POLL_S = 0.1


def up(
    kafka: PlatformKafka = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready; it goes on.")] = False,
    port: Port = 8070,
    gateway_port: GatewayPort = 8080,
    tensorflow_port: TensorflowPort = 8071,
    pytorch_port: PytorchPort = 8072,
    logger_port: LoggerPort = 8073,
    broker_port: BrokerPort = 9092,
) -> None:
    """Start the platform on this machine: embedded broker, control plane, executors, logger, gateway.

    It prints the addresses when all of it is ready. Ctrl-C ends everything that it started; a second Ctrl-C does so
    without waiting.
    """
    ports = Ports(port, tensorflow_port, pytorch_port, logger_port, gateway_port, broker_port)
    check_ports(ports, kafka)
    if detach:
        start_platform(home_folder(), ports, kafka=kafka)
        output.console.print("It goes on by itself; stop it with: headrace down")
        return
    with StartView() as view:
        was_ready = supervise(prepared(home_folder()), ports, kafka=kafka, on_change=view.show)
    output.console.print("Stopped." if was_ready else "Stopped before it was ready.")
    if not was_ready:
        raise typer.Exit(EXIT_INTERRUPTED)


def check_ports(ports: Ports, kafka: str) -> None:
    """Refuse a port that two services would have."""
    options: dict[int, str] = {}
    for name, option in PORT_OPTIONS.items():
        port = getattr(ports, name)
        if port == 0 or (kafka and name == "broker"):
            continue
        if port in options:
            raise typer.BadParameter(f"{options[port]} and {option} are the same port twice, {port}; choose two")
        options[port] = option


def down() -> None:
    """Stop the platform of this home folder and wait until nothing of it is left."""
    home = home_folder()
    pid = supervisor_pid(home)
    if pid > 0:
        os.kill(pid, signal.SIGTERM)
        with output.errors.status("Stopping: open transactions end, models stop, then the broker"):
            # It lets go of the home's lock a moment before it ends.
            _wait_until(lambda: not _lives(pid), DOWN_DEADLINE_S, f"the supervisor (process {pid}) still runs")
    left = sweep(home)
    output.console.print("Stopped." if pid or left else f"No platform is running in {home}.")


def _lives(pid: int) -> bool:
    """Whether the process runs. One whose parent has not asked for its end does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def status(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """Show the platform's services: address, process, state, restarts. Exit code 4: it is not up; 1: not all ready."""
    state = running_state(home_folder())
    if state is None:
        if as_json:
            output.print_json({"up": False, "home": str(home_folder())})
        raise Unavailable(
            error_pb2.REASON_SERVICE_UNAVAILABLE,
            f"no platform is running in {home_folder()}; start it with `headrace up`",
        )
    if as_json:
        output.print_json({"up": True, "home": str(home_folder()), **asdict(state)})
    else:
        output.console.print(status_table(state))
    if any(service.state != "ready" for service in state.services):
        raise typer.Exit(EXIT_NOT_READY)


def broker(
    port: Annotated[int, typer.Option(min=0, max=MAX_PORT, help="Where clients connect.")] = 9092,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only download it, and make its starts quicker.")] = False,
) -> None:
    """Run the embedded Kafka broker alone, until Ctrl-C. Its data stays in the home folder."""
    from cli.broker import Broker
    from cli.kafka_archive import record_archive
    from headrace.process import stop_on_signals

    if prepare:
        record_archive()
        return
    with stop_on_signals() as stop, Broker(prepared(home_folder()), port, stop_with_parent=True) as running:
        output.console.print(f"Kafka is ready on {running.bootstrap_servers}. Stop it with Ctrl-C.")
        while not stop.wait(POLL_S):
            if not running.pid:
                raise Unavailable(
                    error_pb2.REASON_KAFKA_UNAVAILABLE, f"the broker ended; its log is {running.log_path}"
                )


def start_platform(home: Path, ports: Ports, *, kafka: str = "", end_with_us: bool = False) -> PlatformState:
    """Start a platform in a process of its own and return when it is ready.

    end_with_us: it stops when this process ends, however that happens; else it goes on until `headrace down`.

    Raises what kept it from starting, in its own words.
    """
    logs = prepared(home) / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / "up.log").open("a") as log:
        said_before = log.tell()
        process = subprocess.Popen(
            _up_command(ports, kafka, end_with_us),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HEADRACE_HOME": str(home)},
            start_new_session=True,
        )
    with StartView() as view:
        try:
            return _await_ready(home, process, view, said_before)
        except BaseException:
            process.terminate()
            process.wait()
            raise


def _up_command(ports: Ports, kafka: str, end_with_us: bool) -> list[str]:
    from cli.service import LEASH

    command = [sys.executable, "-P", "-m", "cli", "up"]
    for name, option in PORT_OPTIONS.items():
        command += [option, str(getattr(ports, name))]
    command += ["--kafka", kafka] if kafka else []
    return [sys.executable, "-IS", str(LEASH), str(os.getpid()), *command] if end_with_us else command


def _await_ready(home: Path, process: subprocess.Popen[bytes], view: StartView, said_before: int) -> PlatformState:
    deadline = time.monotonic() + UP_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _as_error((home / "logs" / "up.log").read_bytes()[said_before:].decode(errors="replace"), process)
        state = read_state(home)
        if state is not None and state.supervisor_pid == process.pid:
            view.show(state)
            if state.ready:
                return state
        time.sleep(POLL_S)
    raise DeadlineExceeded(error_pb2.REASON_DEADLINE, f"the platform is not ready after {UP_DEADLINE_S:g} s")


def _as_error(said: str, process: subprocess.Popen[bytes]) -> HeadraceError:
    """What the other process said on its end, as the error that it was."""
    found = re.search(r"^headrace: (.*) \[([A-Z_]+)\]$", said, re.MULTILINE | re.DOTALL)
    kind = Unavailable if process.returncode == EXIT_NOT_UP else FailedPrecondition
    if found is None:
        return kind(error_pb2.REASON_SERVICE_UNAVAILABLE, _readable(said) or f"it ended with {process.returncode}")
    return kind(dict(error_pb2.Reason.items()).get(f"REASON_{found[2]}", 0), found[1])


def _readable(said: str) -> str:
    return "\n".join(map(readable, said.strip().splitlines()))


def _wait_until(done: Callable[[], bool], deadline_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > deadline:
            raise DeadlineExceeded(error_pb2.REASON_DEADLINE, f"{otherwise} after {deadline_s:g} s")
        time.sleep(POLL_S)


class StartView:
    """Shows on a terminal how far the services are, and prints the addresses once all are ready."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._since = time.monotonic()
        self._announced = False

    def __enter__(self) -> StartView:
        if output.errors.is_terminal:
            self._live = Live(console=output.errors, transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def show(self, state: PlatformState) -> None:
        if self._live is not None:
            self._live.update(self._view(state))
        if state.ready and not self._announced:
            self._announced = True
            self._end()
            took = output.span(time.monotonic() - self._since)
            output.console.print(Text(f"The platform is ready after {took}.", style="green"))
            output.console.print(addresses(state))

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _view(self, state: PlatformState) -> RenderableType:
        ready = [service for service in state.services if service.state == "ready"]
        waiting = [service for service in state.services if service.state != "ready"]
        lines: Sequence[str] = [f"{each.name}: {each.message or each.state}" for each in waiting]
        head = f"Starting the platform: {len(ready)} of {len(state.services)} services are ready"
        return Group(Spinner("dots", text=head), *(Text(f"    {line}", style="dim") for line in lines))


def addresses(state: PlatformState) -> RenderableType:
    """What a person does with a running platform, and where."""
    rows = [
        ("pages, REST API", f"http://{state.gateway}", "curl, browser"),
        ("gRPC API", state.address, f"grpcurl -plaintext {state.address} list"),
        ("Kafka", state.kafka, "your producers and consumers"),
    ]
    return Group(output.table(["", "address", "for"], rows), *(Text(note, style="yellow") for note in state.notes))


def status_table(state: PlatformState) -> RenderableType:
    return Group(
        output.table(
            ["service", "address", "#process", "state", "#restarts", "since"],
            [_status_row(service) for service in state.services],
        ),
        *(Text(note, style="yellow") for note in state.notes),
    )


def _status_row(service: ServiceState) -> Sequence[object]:
    since = output.span(time.time() - service.start_time) if service.start_time else ""
    state = output.styled_state(service.state)
    if service.message:
        state.append(f" ({service.message})")
    return service.name, service.address, service.pid or "", state, service.restarts, since
