"""A real worker around a framework of a few lines: it is ready at once.

Its models are functions of an array. Whatever is about workers and not about Keras or PyTorch is tested with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from frameworks.arguments import Known, whole
from frameworks.choice import choose_model
from frameworks.course import Course
from frameworks.exports.job import ExportJob
from frameworks.failure import Failure
from frameworks.fields import Columns, Inputs
from frameworks.framework import Described, Events, Plan, Scores, Training
from frameworks.rows import Rows
from frameworks.worker import serve


class Plain:
    """Models are functions from an array to an array."""

    version = "plain 1"
    fit_arguments = Known({"epochs": whole(1)})
    evaluate_arguments = Known({})

    def warm_up(self, *, trains: bool) -> None:
        pass

    def begin(self) -> None:
        pass

    def seed(self, seed: int) -> None:
        np.random.seed(seed)

    def names(self) -> dict[str, Any]:
        return {"np": np}

    def find_model(self, variables: Mapping[str, Any]) -> Any:
        return choose_model(variables, callable, "a function")

    def check_trainable(self, model: Any) -> None:
        pass

    def describe(self, model: Any) -> Described:
        return Described(parameter_count=1, trainable_parameter_count=0, summary="a function")

    def describe_fed(self, model: Any, columns: Columns, *, keep_integers: bool, declares: bool) -> Described:
        spec = {"name": "input", "dtype": str(columns[""].dtype), "shape": [-1, *columns[""].shape[1:]]}
        return Described(parameter_count=1, trainable_parameter_count=0, summary="a function", inputs=[spec])

    def inputs(self, model: Any) -> Inputs:
        return Inputs()

    def fit(self, model: Any, training: Training, begin: Callable[[Plan], Events]) -> None:
        epochs = training.arguments.get("epochs", 1)
        course = Course(Plan(epochs, len(training.rows), 1), begin, training.checkpoints)
        for _ in range(epochs):
            for position in range(len(training.rows)):
                samples, _ = training.rows.take(np.array([position]))
                course.step(float(np.sum(model(samples[""]))), 1, dict)
            course.epoch({"training": {"loss": 0.5, "odd": float("nan")}}, dict)

    def evaluate(
        self, model: Any, rows: Rows, arguments: Mapping[str, Any], batch_size: int, *, keep_integers: bool
    ) -> dict[str, float]:
        return {"loss": 0.25}

    def scores(self, model: Any, rows: Rows, batch_size: int, *, keep_integers: bool) -> Scores | None:
        return None

    def predict(self, model: Any, columns: Columns, *, keep_integers: bool) -> dict[str, np.ndarray]:
        return {"output": model(columns[""])}

    def warm(self, model: Any, max_rows: int, *, keep_integers: bool) -> None:
        pass

    def save(self, model: Any, folder: Path) -> list[dict[str, str]]:
        result = model(np.zeros(1))
        return result if isinstance(result, list) else []

    def load_weights(self, model: Any, path: Path) -> Any:
        return model

    def export(self, model: Any, job: ExportJob) -> None:
        """What the model answers for a row of zeros, or for the calibration's rows."""
        rows = np.zeros(1) if job.calibration is None else job.calibration.first(1000)[0][""]
        job.path.write_bytes(bytes(model(rows)))


def missing() -> Plain:
    raise Failure("NOT_INSTALLED", "it is missing; run: pip install it")


if __name__ == "__main__":
    serve(missing if sys.argv[1] == "missing" else Plain, int(sys.argv[2]), int(sys.argv[3]))
