"""What a replica is told by the process that starts it."""

from dataclasses import dataclass
from pathlib import Path

from streams.output_watch import PATIENCE_S

# More than all deadlines in a turn together: send, commit, abort, a new producer, the committed offsets.
STALL_S = 300.0


@dataclass(frozen=True)
class Settings:
    """Read once, in `__main__`, from the environment (`HEADRACE_` + the name in capitals)."""

    address: str
    """The control plane, HOST:PORT."""
    kafka: str
    """Bootstrap servers of the input and the output."""
    inference_id: int
    slot: int
    """This replica's number, from 0. Its transactional id and its group instance id are made of it."""
    attempt: int
    """The running number of this slot's process; an older one is fenced."""
    work_dir: Path
    """For the model's artifact and the worker. Survives attempts."""
    worker_memory_bytes: int = 0
    """Limit of the worker; 0: none beyond the machine's."""
    spare_worker: bool = True
    """Whether a worker that has imported the framework waits for the end of another, if there is memory for it."""
    spares: str = ""
    """Where that one waits (sandbox.spares), so that it is there when this process was killed; empty: in this one."""
    metrics_listen: str = ""
    """HOST:PORT of the Prometheus endpoint; empty: none."""
    hidden_after_s: float = PATIENCE_S
    """A replica is not ready once readers with read_committed have got nothing of the output for so long, though it
    wrote there."""
    stall_s: float = STALL_S
    """A process whose loop has not turned for so long ends, to be started again."""
