"""What a feeder asks of its worker and what it gets: plain values, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.v1 import code_executor_pb2, model_pb2, result_pb2

# One array file, or one per named input.
Columns = Path | Mapping[str, Path]


class RowSpec(Protocol):
    """The type and the shape of a field's values, without the batch."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class RowField(Protocol):
    """The elements `[start, stop)` of a row, as the codec that decoded it tells: for models with several inputs."""

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> RowSpec: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


@dataclass(frozen=True)
class BuiltModel:
    """What the code made."""

    signature: model_pb2.Signature
    framework_version: str
    """Such as `tensorflow 2.21.0, keras 3.15.1`."""


@dataclass(frozen=True)
class Arguments:
    """What is right and wrong about arguments of `fit` and `evaluate`. No diagnostics: they can be used."""

    diagnostics: list[code_executor_pb2.Diagnostic]
    known_fit_args: list[str]
    known_evaluate_args: list[str]


@dataclass(frozen=True)
class FitJob:
    """A training of the model that was built. The files stay as they are while it runs; they are mapped, not copied."""

    samples: Columns
    """.npy, shape (rows, …)."""
    labels: Columns | None
    """.npy, shape (rows,) or (rows, …). None: the model needs none."""
    training_rows: Path | None = None
    """.npy of int64: the rows to train on, in any order. None: all."""
    validation_rows: Path | None = None
    """The same for the validation after each epoch. None or empty: none."""
    batch_size: int = 32
    fit_args: str = ""
    evaluate_args: str = ""
    seed: int = 0
    keep_integers: bool = False
    """Integer samples stay integers where the model does not declare its inputs. Otherwise they become float32."""
    in_memory_bytes: int | None = None
    """Rows of this size or less are loaded; larger ones stay in their files. None: a quarter of the worker's limit."""
    fields: Sequence[RowField] = ()
    """What a row of the one array file consists of. A model with several inputs takes them by name."""
    checkpoints: Path | None = None
    """A folder of this training alone: it goes on from what lies there, and is written down there. None: neither."""
    checkpoint_digest: str = ""
    """Names the training; checkpoints with another name are not taken."""
    checkpoint_interval_s: float = 60.0
    """At most so long between checkpoints; 0: one after every step."""


@dataclass(frozen=True)
class FitProgress:
    """Where the training is; at most two of these a second."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps done in this epoch."""
    steps: int
    rows_per_second: float

    def left_s(self, batch_size: int) -> float | None:
        """How long the steps that are left take at this rate, validations not counted."""
        steps = (self.epochs - self.epoch + 1) * self.steps - self.step
        return steps * batch_size / self.rows_per_second if self.rows_per_second > 0 else None


@dataclass(frozen=True)
class FitEpoch:
    """An epoch that has ended."""

    number: int
    """From 1."""
    metrics: dict[str, dict[str, float]]
    """By split (`training`, `validation`), then by the framework's name of the metric."""
    step: int
    """Steps done since the training began."""


@dataclass(frozen=True)
class FitBegun:
    """Where the training begins: at 0, or at a checkpoint. The first event; epochs done before follow as they were."""

    epoch: int
    """Epochs done."""
    step: int
    """Steps done in the next one."""
    steps: int
    """Steps of an epoch."""
    trained_s: float
    """How long was trained before."""


@dataclass(frozen=True)
class FitCheckpoint:
    """A checkpoint is on the disk."""

    epoch: int
    """Epochs done."""
    step: int
    """Steps done in the next one."""
    steps: int
    """Steps of an epoch."""


FitEvent = FitProgress | FitEpoch | FitBegun | FitCheckpoint


class Confusion(NamedTuple):
    """How often class i was answered with class j: counts[i, j]."""

    labels: list[str]
    counts: np.ndarray
    """int64, shape (classes, classes)."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a trained model on some rows."""

    metrics: dict[str, float]
    confusion: Confusion | None
    """None where not asked for, and for what is no classifier."""
    roc: result_pb2.Roc | None = None
    """Of a classifier; without the split's name."""
    residuals: result_pb2.Residuals | None = None
    """Of a regression; without the split's name."""


@dataclass(frozen=True)
class ExportJob:
    """A conversion of the model that was loaded."""

    format: str
    """One of `sandbox.exports`, and not the original."""
    path: Path
    """The file to write."""
    signature: model_pb2.Signature
    """Inputs as the model was fed with when it was trained, and its outputs."""
    samples: Path | None = None
    """.npy, for a format that is calibrated."""
    fields: Sequence[RowField] = ()
    """What a row of the samples consists of."""


@dataclass(frozen=True)
class SavedFile:
    """A file that the worker wrote."""

    name: str
    path: Path
    media_type: str
