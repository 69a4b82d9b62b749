"""The settings of a code executor: `HEADRACE_` and the field's name in capitals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headrace.settings import HostPort
from headrace.v1 import model_pb2
from sandbox.limits import MIB, Limits

FRAMEWORKS = {"tensorflow": model_pb2.FRAMEWORK_TENSORFLOW, "pytorch": model_pb2.FRAMEWORK_PYTORCH}


def _framework(text: str) -> None:
    if text not in FRAMEWORKS:
        raise ValueError(" or ".join(FRAMEWORKS))


def _positive(value: float) -> None:
    if value <= 0:
        raise ValueError("more than 0")


@dataclass(frozen=True)
class Settings:
    """Of one executor."""

    listen: HostPort
    """Where CodeExecutor is served."""
    framework: Annotated[str, _framework]
    """`tensorflow` or `pytorch`."""
    home: Path | None = None
    """Workers get folders in `validations` below it. None: the system's folder for temporary files."""
    validation_s: Annotated[float, _positive] = 20.0
    """Code that has not built its model after so long is ended."""
    validations: Annotated[int, _positive] = 2
    """Validations at once: one endless piece of code leaves room for others."""
    queue: int = 16
    """Calls that may wait; more are answered RESOURCE_EXHAUSTED."""
    memory_bytes: Annotated[int, _positive] = 4096 * MIB
    """Memory of one worker."""
    import_s: Annotated[float, _positive] = 180.0
    """A worker that has not imported its framework after so long is given up."""
    address: HostPort = ""
    """The control plane, which exports fetch results from and bring files to. Empty: nothing is exported here."""
    kafka: str = ""
    """Bootstrap servers of the streams, for exports that are calibrated with records."""
    export_s: Annotated[float, _positive] = 300.0
    """A conversion that has not ended after so long is ended."""
    export_bytes: Annotated[int, _positive] = 2048 * MIB
    """Size of one exported file."""
    metrics_listen: HostPort = ""
    """HOST:PORT of Prometheus metrics; empty: none."""

    @property
    def limits(self) -> Limits:
        """What code may use while it builds a model: it has nothing to write and little to say."""
        return Limits(
            memory_bytes=self.memory_bytes,
            file_bytes=256 * MIB,
            processes=64,
            output_bytes=8 * MIB,
            output_kept_bytes=64 * 1024,
        )

    @property
    def export_limits(self) -> Limits:
        """What a conversion may use: it writes files, and converters start threads and say a lot."""
        # Converters write the model in between, too; what is larger than it may be is told apart from what has no end.
        return Limits(memory_bytes=self.memory_bytes, file_bytes=2 * self.export_bytes, processes=64)
