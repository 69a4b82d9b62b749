"""The supervisor of a platform: starts its services, starts those again that die, and stops them in their order."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from cli.broker import Broker, free_port
from cli.home import PlatformState, ServiceState, taken, write_state
from cli.leftovers import sweep
from cli.service import BrokerService, Service, Supervised, grpc_serves, http_ready, last_lines
from headrace.errors import DeadlineExceeded, FailedPrecondition, HeadraceError, Unavailable
from headrace.v1 import error_pb2

HOST = "127.0.0.1"
TURN_S = 0.1
READY_DEADLINE_S = 180.0
KAFKA_TIMEOUT_S = 5.0
# A service that never was ready and dies this often is not started any more.
EARLY_DEATHS = 3
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.2, 10.0
# They record and answer what they find there: only once it is known that the broker on the port is ours.
CLIENTS_OF_KAFKA = frozenset({"control plane", "logger"})
# Alive so long: the next death is a new story.
STEADY_S = 30.0
BROKER_GRACE_S = 20.0
# Seconds that each service has to stop. The control plane stops trainers and inferencers first.
GRACE_S = {"gateway": 10.0, "logger": 10.0, "control plane": 30.0, "broker": BROKER_GRACE_S}
EXECUTOR_GRACE_S = 10.0


@dataclass(frozen=True)
class Ports:
    """Where the services listen on the loopback. 0: any free port."""

    control_plane: int = 8070
    tensorflow: int = 8071
    pytorch: int = 8072
    logger: int = 8073
    gateway: int = 8080
    broker: int = 9092


# The option of `headrace up` for each port.
PORT_OPTIONS = {
    "control_plane": "--port",
    "tensorflow": "--tensorflow-port",
    "pytorch": "--pytorch-port",
    "logger": "--logger-port",
    "gateway": "--gateway-port",
    "broker": "--broker-port",
}


@dataclass(frozen=True)
class Framework:
    """An executor that is started where its library is installed."""

    name: str
    title: str
    libraries: tuple[str, ...]
    extra: str

    def is_installed(self) -> bool:
        return all(importlib.util.find_spec(library) is not None for library in self.libraries)

    def note(self) -> str:
        return (
            f"{self.title} is not installed, so models for it cannot be created or trained here; "
            f"install it with: pip install 'headrace[{self.extra}]'"
        )


FRAMEWORKS = (
    Framework("tensorflow", "TensorFlow", ("tensorflow", "keras"), "tensorflow"),
    Framework("pytorch", "PyTorch", ("torch", "ignite"), "torch"),
)

OnChange = Callable[[PlatformState], None]


def supervise(home: Path, ports: Ports, *, kafka: str = "", on_change: OnChange | None = None) -> bool:
    """Run the platform of this home until SIGTERM or SIGINT; a second signal stops it without grace.

    Whether it was ready before it was stopped.

    Call it on the main thread: the services end with that thread. kafka: bootstrap servers in place of the
    embedded broker. on_change: told whatever `state.json` is told.

    Raises FailedPrecondition (home or port in use), Unavailable (Kafka does not answer, a service does not start).
    """
    with taken(home), Signals() as signals:
        sweep(home, workloads=False)
        return Supervisor(home, _usable(ports, kafka), kafka, on_change).run(signals)


class Supervisor:
    """Keeps the services of one platform alive. Use `supervise`."""

    def __init__(self, home: Path, ports: Ports, kafka: str, on_change: OnChange | None) -> None:
        self._home = home
        self._on_change = on_change
        self._frameworks = [framework for framework in FRAMEWORKS if framework.is_installed()]
        broker = None if kafka else Keeper(BrokerService(self._embedded_broker(ports.broker)))
        self._keepers = [] if broker is None else [broker]
        for service in _services(home, ports, kafka or f"{HOST}:{ports.broker}", self._frameworks):
            self._keepers.append(Keeper(service, after=broker if service.name in CLIENTS_OF_KAFKA else None))
        self._state = PlatformState(
            supervisor_pid=os.getpid(),
            start_time=time.time(),
            address=f"{HOST}:{ports.control_plane}",
            gateway=f"{HOST}:{ports.gateway}",
            kafka=kafka or f"{HOST}:{ports.broker}",
            notes=[framework.note() for framework in FRAMEWORKS if framework not in self._frameworks],
        )

    def run(self, signals: Signals) -> bool:
        """Start everything, then turn after turn until a signal; whatever happens, nothing is left."""
        try:
            deadline = time.monotonic() + READY_DEADLINE_S
            while not signals.stop():
                self.step()
                self._check_start(deadline)
                time.sleep(TURN_S)
        finally:
            self._stop_all(signals.hurry if self._state.ready else lambda: True)
        return self._state.ready

    def step(self) -> None:
        """One turn: start who may start, and again who died; ask who is not ready yet."""
        for keeper in self._keepers:
            keeper.step()
            self._tell()

    def _tell(self) -> None:
        services = [keeper.state for keeper in self._keepers]
        ready = self._state.ready or all(service.state == "ready" for service in services)
        state = replace(self._state, services=services, ready=ready)
        if state != self._state:
            self._state = state
            write_state(self._home, state)
            if self._on_change is not None:
                self._on_change(state)

    def _check_start(self, deadline: float) -> None:
        """Before the platform was ready once, a service that cannot start ends it all with the reason."""
        if self._state.ready:
            return
        for keeper in self._keepers:
            if keeper.early_deaths >= EARLY_DEATHS:
                raise Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, keeper.why_not(), service=keeper.state.name)
        if time.monotonic() > deadline:
            late = ", ".join(keeper.state.name for keeper in self._keepers if keeper.state.state != "ready")
            raise DeadlineExceeded(
                error_pb2.REASON_DEADLINE,
                f"not ready after {READY_DEADLINE_S:g} s: {late}; the logs are in {self._home / 'logs'}",
            )

    def _stop_all(self, hurry: Callable[[], bool]) -> None:
        """Those who ask first, those who are asked last: answers and offsets still commit while the broker lives."""
        order = {"gateway": 0, "logger": 0, "control plane": 1, "broker": 3}
        for keeper in sorted(self._keepers, key=lambda each: order.get(each.state.name, 2)):
            keeper.stop(GRACE_S.get(keeper.state.name, EXECUTOR_GRACE_S), hurry)
            self._tell()
        sweep(self._home, grace_s=0.0 if hurry() else BROKER_GRACE_S)

    def _embedded_broker(self, port: int) -> Broker:
        return Broker(self._home, port, stop_with_parent=True, on_progress=self._tell_download)

    def _tell_download(self, done: int, total: int, name: str) -> None:
        broker = next(keeper for keeper in self._keepers if keeper.state.name == "broker")
        broker.message = f"downloading Kafka, {done} of {total} files" if total else "downloading Kafka"
        self._tell()


class Keeper:
    """Keeps one service alive: started again after a pause that grows with every death in a row.

    after: it is first started when this one is ready.
    """

    def __init__(self, service: Supervised, after: Keeper | None = None) -> None:
        self._service = service
        self._after = after
        self._was_started = False
        self._state = "starting"
        self._was_ready = False
        self._restarts = 0
        self._deaths_in_a_row = 0
        self._start_time = 0.0
        self._next_start = 0.0
        self.early_deaths = 0
        self.message = ""

    @property
    def state(self) -> ServiceState:
        service = self._service
        return ServiceState(
            service.name, service.address, str(service.log_path), service.pid, self._state, self._restarts,
            self._start_time, self.message,
        )  # fmt: skip

    def start(self) -> None:
        self._was_started = True
        self._state = "starting"
        self._start_time = time.time()
        self._service.start()

    def step(self) -> None:
        if not self._was_started:
            self._start_first()
        elif not self._service.pid:
            self._bring_back()
        elif self._state != "ready" and self._service.is_ready():
            self._state, self._was_ready, self.message = "ready", True, ""

    def stop(self, grace_s: float, hurry: Callable[[], bool]) -> None:
        self._state = "stopping"
        self._service.stop(grace_s, hurry)
        self._state = "stopped"

    def _start_first(self) -> None:
        """What keeps it from starting at all ends the platform's start."""
        if self._after is None or self._after._was_ready:
            self.message = ""
            self.start()
        else:
            self.message = f"waits for the {self._after.state.name}"

    def why_not(self) -> str:
        if self.message:
            return f"the {self._service.name} does not start: {self.message}"
        lines = "\n".join(f"  {line}" for line in last_lines(self._service.log_path))
        return (
            f"the {self._service.name} ends as soon as it starts; its log {self._service.log_path} ends with:\n{lines}"
        )

    def _bring_back(self) -> None:
        if self._state != "restarting":
            self._note_death()
        if time.monotonic() >= self._next_start:
            self._restarts += 1
            try:
                self.start()
            except HeadraceError as error:  # the broker's port was taken meanwhile, for instance
                self._note_death()
                self.message = error.message

    def _note_death(self) -> None:
        steady = time.time() - self._start_time > STEADY_S
        self._deaths_in_a_row = 1 if steady else self._deaths_in_a_row + 1
        self.early_deaths += 0 if self._was_ready else 1
        pause_s = min(FIRST_BACKOFF_S * 2 ** (self._deaths_in_a_row - 1), LAST_BACKOFF_S)
        self._next_start = time.monotonic() + pause_s
        self._state = "restarting"


def _services(home: Path, ports: Ports, kafka: str, frameworks: Sequence[Framework]) -> list[Supervised]:
    """Our services, those first that take longest to start."""
    address = f"{HOST}:{ports.control_plane}"
    executors = {
        framework.name: f"{HOST}:{ports.tensorflow if framework.name == 'tensorflow' else ports.pytorch}"
        for framework in frameworks
    }
    logs = home / "logs"
    services: list[Supervised] = [
        Service(
            f"{name} executor", "executors", address=listen, log_path=logs / f"executor-{name}.log",
            environment=_environment(
                home, LISTEN=listen, FRAMEWORK=name, ADDRESS=address, KAFKA=kafka, METRICS_LISTEN=_any_port()
            ),
            ready=lambda listen=listen: grpc_serves(listen),  # type: ignore[misc]
        )
        for name, listen in executors.items()
    ]  # fmt: skip
    services += [
        Service(
            "control plane", "control_plane", address=address, log_path=logs / "control-plane.log",
            environment=_environment(
                home, LISTEN=address, KAFKA=kafka, STOP_WORKLOADS="true", METRICS_LISTEN=_any_port(),
                TENSORFLOW_EXECUTOR=executors.get("tensorflow", ""), PYTORCH_EXECUTOR=executors.get("pytorch", ""),
            ),
            ready=lambda: grpc_serves(address),
        ),
        Service(
            "gateway", "gateway", address=f"{HOST}:{ports.gateway}", log_path=logs / "gateway.log",
            environment=_environment(home, LISTEN=f"{HOST}:{ports.gateway}", ADDRESS=address),
            ready=lambda: http_ready(f"{HOST}:{ports.gateway}", "/readyz"),
        ),
        Service(
            "logger", "logger", address=f"{HOST}:{ports.logger}", log_path=logs / "logger.log",
            environment=_environment(home, ADDRESS=address, KAFKA=kafka, METRICS_LISTEN=f"{HOST}:{ports.logger}"),
            ready=lambda: http_ready(f"{HOST}:{ports.logger}", "/readyz"),
        ),
    ]  # fmt: skip
    return services


def _environment(home: Path, **settings: str) -> Mapping[str, str]:
    """Ours without the settings that were meant for the command, with those of the service."""
    own = {
        f"HEADRACE_{name}"
        for name in ("ADDRESS", "KAFKA", "GATEWAY", "LISTEN", "METRICS_LISTEN", "FRAMEWORK", "TENSORFLOW_EXECUTOR",
                     "PYTORCH_EXECUTOR", "STOP_WORKLOADS")
    }  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return {**inherited, "HEADRACE_HOME": str(home), **{f"HEADRACE_{name}": value for name, value in settings.items()}}


def _any_port() -> str:
    return f"{HOST}:{free_port()}"


def _usable(ports: Ports, kafka: str) -> Ports:
    """The ports with every 0 replaced by a free one, once Kafka answers and no port is taken."""
    if kafka:
        _check_kafka(kafka)
    chosen = {name: getattr(ports, name) for name in PORT_OPTIONS}
    for name, port in chosen.items():
        if port and not (kafka and name == "broker"):
            _check_port(port, PORT_OPTIONS[name])
    for name, port in chosen.items():
        chosen[name] = port or next(free for free in iter(free_port, None) if free not in chosen.values())
    return Ports(**chosen)


def _check_kafka(kafka: str) -> None:
    from streams.kafka import KafkaSettings, await_kafka

    try:
        await_kafka(KafkaSettings(kafka), timeout_s=KAFKA_TIMEOUT_S)
    except Unavailable as error:
        raise Unavailable(
            error.reason,
            f"{error.message}; check --kafka, or leave it out to use the embedded broker",
            bootstrap_servers=kafka,
        ) from error


def _check_port(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE,
                f"port {port} on {HOST} is in use by another program; stop it, or choose another port with "
                f"{option} (0: any free one)",
                port=port,
                option=option,
            ) from error


class Signals:
    """Counts SIGTERM, SIGINT and SIGHUP while it is entered: the first means stop, the second hurry.

    Plain numbers and not a threading.Event: a handler that runs while the main thread is inside the event's lock
    would wait for itself.
    """

    _numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._count = 0

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._on_signal) for number in self._numbers]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self._numbers, self._before, strict=True):
            signal.signal(number, handler)

    def stop(self) -> bool:
        return self._count > 0

    def hurry(self) -> bool:
        return self._count > 1

    def _on_signal(self, *_: object) -> None:
        self._count += 1
