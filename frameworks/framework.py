"""The protocol that Keras and PyTorch stand behind, and what it speaks of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from frameworks.arguments import Known
from frameworks.checkpoints import Checkpoint, Checkpoints, Position
from frameworks.exports.job import ExportJob
from frameworks.fields import Columns, Inputs
from frameworks.rows import Rows


class Events(Protocol):
    """Where a training tells how far it is. Called once per step and per epoch, so both are cheap."""

    @property
    def stop_requested(self) -> bool:
        """Whether somebody wants the end."""

    def stop(self) -> None:
        """Raises CANCELLED."""

    def begun(self, checkpoint: Checkpoint | None) -> None:
        """Comes first: the training goes on from there, or begins at its start."""

    def step(self, loss: float, count: int = 1) -> None:
        """Steps are done. Raises NAN_LOSS when the loss is no number."""

    def epoch(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """An epoch is done; metrics by split."""

    def kept(self, position: Position) -> None:
        """There is a checkpoint of this position."""


@dataclass(frozen=True)
class Training:
    """Everything that a training needs besides the model."""

    rows: Rows
    validation: Rows | None
    batch_size: int
    arguments: Mapping[str, Any]
    seed: int
    keep_integers: bool
    checkpoints: Checkpoints | None = None
    """Where it goes on, and is written down. None: it begins at its start, and is not."""


@dataclass(frozen=True)
class Plan:
    """How long a training is: what its progress is measured against."""

    epochs: int
    steps: int
    batch_size: int


@dataclass
class Described:
    """A model as the API shows it: the fields of headrace.v1.Signature."""

    parameter_count: int
    trainable_parameter_count: int
    summary: str
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """Outputs of the model, to be compared with the labels."""

    outputs: np.ndarray
    logits: bool
    """Whether a single score is a logit and not a probability."""


class Framework(Protocol):
    """One library. A model is whatever that library calls one."""

    version: str
    """Such as `tensorflow 2.21.0, keras 3.15.1`."""
    fit_arguments: Known
    evaluate_arguments: Known

    def warm_up(self, *, trains: bool) -> None:
        """Makes a tiny model, so that the first real one does not pay for what the library loads late.

        trains: also what only a training needs.
        """

    def begin(self) -> None:
        """Forgets what earlier models left: generated names count from the start again."""

    def seed(self, seed: int) -> None:
        """Seeds Python's, numpy's and the library's random numbers."""

    def names(self) -> dict[str, Any]:
        """What code finds without importing it."""

    def find_model(self, variables: Mapping[str, Any]) -> Any:
        """The model among the code's variables. Raises NO_MODEL."""

    def check_trainable(self, model: Any) -> None:
        """Raises NO_MODEL when something is missing that a training needs."""

    def describe(self, model: Any) -> Described:
        """What the model takes and gives."""

    def describe_fed(self, model: Any, columns: Columns, *, keep_integers: bool, declares: bool) -> Described:
        """The same of a model that was trained on such rows: inputs and outputs are known, all of them.

        `declares`: the code itself said what the model takes; a library may have noted some batch for it since.
        """

    def inputs(self, model: Any) -> Inputs:
        """The names of the model's inputs, if it has several."""

    def fit(self, model: Any, training: Training, begin: Callable[[Plan], Events]) -> None:
        """Trains, from the newest checkpoint on. Calls `begin` once, after all checks and before the first step."""

    def evaluate(
        self, model: Any, rows: Rows, arguments: Mapping[str, Any], batch_size: int, *, keep_integers: bool
    ) -> dict[str, float]:
        """Metrics over the rows."""

    def scores(self, model: Any, rows: Rows, batch_size: int, *, keep_integers: bool) -> Scores | None:
        """The first output for all rows, (rows, …) float32; None when the model does not give one array."""

    def predict(self, model: Any, columns: Columns, *, keep_integers: bool) -> dict[str, np.ndarray]:
        """float32 outputs by name."""

    def warm(self, model: Any, max_rows: int, *, keep_integers: bool) -> None:
        """Prepares `predict` where the inputs are known."""

    def save(self, model: Any, folder: Path) -> list[dict[str, str]]:
        """Writes the model; returns name and media_type of each file."""

    def load_weights(self, model: Any, path: Path) -> Any:
        """The model with the weights of a saved file. Raises CHECKPOINT_CORRUPT."""

    def export(self, model: Any, job: ExportJob) -> None:
        """Writes the model in another format. Raises EXPORT_FAILED, NOT_INSTALLED, INVALID_FIELD."""
