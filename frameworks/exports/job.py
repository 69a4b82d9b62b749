"""What a conversion is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from frameworks.code import unless_theirs
from frameworks.failure import Failure
from frameworks.rows import Rows


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the signature; the batch is the first dimension, −1 stands for any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TensorSpec:
        """As it comes with a request."""
        return cls(str(given["name"]), str(given["dtype"]), tuple(int(length) for length in given["shape"]))

    def zeros(self, batch: int) -> np.ndarray:
        """An example of `(batch, …)`; a free length is 1."""
        return np.zeros((batch, *(max(length, 1) for length in self.shape[1:])), self.dtype)


@dataclass(frozen=True)
class ExportJob:
    """One conversion of the model that was loaded."""

    format: str
    path: Path
    """The file to write."""
    inputs: tuple[TensorSpec, ...]
    """What the model was fed with when it was trained."""
    outputs: tuple[TensorSpec, ...]
    calibration: Rows | None = None
    """Samples of the stream, for a format that is calibrated."""

    @contextmanager
    def converting(self) -> Iterator[None]:
        """A block that converts: what a converter raises says that it cannot; what the person's code raises, where."""
        try:
            yield
        except Failure:
            raise
        except Exception as error:
            raise unless_theirs(error, self._failed(error)) from error

    def _failed(self, error: Exception) -> Failure:
        said = f"{type(error).__name__}: {error}".strip()[:2000]
        message = f"the model cannot be converted to {self.format}: {said}"
        return Failure("EXPORT_FAILED", message, format=self.format)


def writer_of(job: ExportJob, writers: Mapping[str, Any]) -> Any:
    """The one for the job's format. Raises INVALID_FIELD with those that there are."""
    if job.format not in writers:
        message = f"the format {job.format!r} is unknown; it has to be one of {', '.join(writers)}"
        raise Failure("INVALID_FIELD", message, format=job.format)
    return writers[job.format]


def need(*libraries: str) -> None:
    """Raises NOT_INSTALLED when one is missing."""
    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        command = "pip install 'headrace[export]'"
        message = f"{' and '.join(missing)} not installed, so nothing is converted to ONNX here; run: {command}"
        raise Failure("NOT_INSTALLED", message, libraries=", ".join(missing), command=command)
