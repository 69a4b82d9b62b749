"""What a trainer reads from its environment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainerSettings:
    """One attempt at one result."""

    address: str
    """The control plane, HOST:PORT."""

    kafka: str
    """The Kafka cluster of the data, HOST:PORT joined by commas."""

    result_id: int
    """The result to compute."""

    attempt: int
    """The running number of this process, from 1; a higher one fences this one."""

    work_dir: Path
    """A folder that later attempts find again: records and reports are kept here."""

    shared_dir: Path | None = None
    """A folder of all trainings of the deployment on this machine, for its records; None: each keeps its own."""

    worker_memory_bytes: int = 0
    """Memory of the process that runs the model's code; 0 is the sandbox's default."""

    patience_s: float = 3600.0
    """How long a control plane may be away before this attempt gives up, worth another one."""

    kafka_wait_s: float = 60.0
    """How long announced records may be missing from the log (not yet written, broker away)."""

    spool_limit_bytes: int = 0
    """How much of the disk the stream's records may take; 0 is no limit but the disk."""

    metrics_listen: str = ""
    """HOST:PORT of the Prometheus endpoint; empty is none."""
