"""What the logger is told."""

from dataclasses import dataclass

from headrace.settings import HostPort


@dataclass(frozen=True)
class Settings:
    """Read once, in `__main__`, from the environment (`HEADRACE_` + the name in capitals)."""

    address: HostPort
    """The control plane, HOST:PORT."""
    kafka: str
    """Bootstrap servers of the control topic."""
    control_topic: str = "KAFKA_ML_CONTROL_TOPIC"
    metrics_listen: HostPort = ""
    """HOST:PORT of /metrics, /healthz and /readyz; empty: none."""
