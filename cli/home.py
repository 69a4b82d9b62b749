"""The home folder: where a platform keeps its data, and what it says about itself there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2

DEFAULT_ADDRESS = "127.0.0.1:8070"
DEFAULT_GATEWAY = "127.0.0.1:8080"
DEFAULT_KAFKA = "127.0.0.1:9092"


@dataclass(frozen=True)
class ServiceState:
    """One service as the supervisor sees it. `start_time` is in seconds since 1970, of its present process."""

    name: str
    address: str
    log: str
    pid: int = 0
    state: str = "starting"
    restarts: int = 0
    start_time: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class PlatformState:
    """What `HOME/state.json` holds while a platform runs there."""

    supervisor_pid: int
    start_time: float
    address: str
    gateway: str
    kafka: str
    ready: bool = False
    services: list[ServiceState] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> PlatformState:
        fields = json.loads(text)
        services = [ServiceState(**service) for service in fields.pop("services")]
        return cls(services=services, **fields)


def home_folder() -> Path:
    """`HEADRACE_HOME`, or `.headrace` in the current folder. It need not exist yet; what does is a folder."""
    home = Path(os.environ.get("HEADRACE_HOME") or ".headrace").absolute()
    in_the_way = next((path for path in (home, *home.parents) if path.exists()), home)
    if in_the_way.exists() and not in_the_way.is_dir():
        raise _unusable(home, f"{in_the_way} is not a folder")
    return home


def prepared(home: Path) -> Path:
    """The folder, which exists now and can be written in. Raises FailedPrecondition."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        _lock_path(home).touch()
    except OSError as error:
        raise _unusable(home, f"{error.filename} cannot be written ({error.strerror})") from error
    return home


def _unusable(home: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE,
        f"the home folder {home} cannot be used: {why}; set HEADRACE_HOME to a folder in which you may write",
        home=home,
    )


def state_path(home: Path) -> Path:
    return home / "state.json"


def read_state(home: Path) -> PlatformState | None:
    """What the home's platform last said; None where none ever did or an other version wrote it."""
    try:
        return PlatformState.from_json(state_path(home).read_text())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_state(home: Path, state: PlatformState) -> None:
    """Replace the file as a whole: a reader never sees half of it."""
    partial = state_path(home).with_suffix(".partial")
    partial.write_text(state.to_json())
    partial.rename(state_path(home))


def running_state(home: Path) -> PlatformState | None:
    """The state of the platform that runs in this home; None where none does."""
    return read_state(home) if supervisor_pid(home) else None


@contextmanager
def taken(home: Path) -> Iterator[None]:
    """Hold the home for one supervisor. Raises FailedPrecondition naming the other one."""
    home.mkdir(parents=True, exist_ok=True)
    with _lock_path(home).open("a+") as file:
        if not _locked_soon(file.fileno()):
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE,
                f"a platform is already running in {home} (process {supervisor_pid(home)}); use it, "
                "stop it with `headrace down`, or set HEADRACE_HOME to another folder",
                home=home,
                pid=supervisor_pid(home),
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def supervisor_pid(home: Path) -> int:
    """The process that holds the home; 0 where none does."""
    try:
        with _lock_path(home).open() as file:
            if _locked(file.fileno(), fcntl.LOCK_SH):
                return 0
            return int(file.read() or 0) or -1
    except FileNotFoundError:
        return 0


def _lock_path(home: Path) -> Path:
    return home / "up.lock"


def _locked_soon(handle: int) -> bool:
    """Somebody who only asks who holds the lock has it for an instant."""
    for _ in range(5):
        if _locked(handle):
            return True
        time.sleep(0.05)
    return False


def _locked(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def control_plane_address() -> str:
    """HEADRACE_ADDRESS, else that of the platform of this home, else the default."""
    if address := os.environ.get("HEADRACE_ADDRESS"):
        return address
    state = running_state(home_folder())
    return state.address if state is not None else DEFAULT_ADDRESS


def gateway_url() -> str:
    """Where the pages are: HEADRACE_GATEWAY, else those of the platform of this home, else the default."""
    if address := os.environ.get("HEADRACE_GATEWAY"):
        return address if "://" in address else f"http://{address}"
    state = running_state(home_folder())
    return f"http://{state.gateway if state is not None else DEFAULT_GATEWAY}"


def kafka_address(chosen: str = "") -> str:
    """The one chosen, else HEADRACE_KAFKA, else that of the platform of this home, else the default."""
    if address := chosen or os.environ.get("HEADRACE_KAFKA", ""):
        return address
    state = running_state(home_folder())
    return state.kafka if state is not None else DEFAULT_KAFKA
