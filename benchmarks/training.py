"""The training phase in a worker over spooled files, against `fit` on arrays in memory in one process."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.baselines import KERAS_MODEL, TORCH_MODEL
from benchmarks.report import Ratio, paired
from sandbox.session import FitEpoch, FitJob, FrameworkName, WorkerSession

ROWS = 24_900
EPOCHS = 5
PAIRS = 3
CODE: dict[FrameworkName, str] = {"tensorflow": KERAS_MODEL, "pytorch": TORCH_MODEL}


@dataclass(frozen=True)
class Case:
    """A training of what lies in a folder: samples.npy and labels.npy."""

    framework: FrameworkName
    code: str
    batch_size: int
    epochs: int
    steps: int = 0
    """Of an epoch; 0: one pass over the rows."""

    @property
    def fit_args(self) -> str:
        """As a person writes them."""
        if self.framework == "tensorflow":
            return f"epochs={self.epochs}, verbose=0" + (f", steps_per_epoch={self.steps}" if self.steps else "")
        return f"max_epochs={self.epochs}" + (f", epoch_length={self.steps}" if self.steps else "")


def enlarged_digits(folder: Path) -> None:
    """scikit-learn's digits at 28×28 with values 0 to 255, repeated to 24,900 rows."""
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8), np.ones((4, 4)))[:, 2:30, 2:30] * (255 / 16)
    rows = np.arange(ROWS) % len(images)
    np.save(folder / "samples.npy", images[rows].astype(np.uint8))
    np.save(folder / "labels.npy", labels[rows].astype(np.uint8))


def measure() -> list[Ratio]:
    """Seconds of both, for both frameworks and two batch sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enlarged_digits(folder)
        cases = [Case(framework, code, size, EPOCHS) for framework, code in CODE.items() for size in (32, 256)]
        return [against_memory(case, folder, f"{ROWS:,} rows of 28×28", "≤ 1.03 ×") for case in cases]


def against_memory(case: Case, folder: Path, data: str, target: str) -> Ratio:
    """Seconds in a worker over the files against those of the same on arrays in memory in one process."""
    both = paired(lambda: _worker_seconds(case, folder), lambda: baseline_seconds(case, folder), PAIRS)
    ours, theirs = (statistics.median(side) for side in zip(*both, strict=True))
    steps = f" of {case.steps} steps" if case.steps else ""
    return Ratio(
        f"training phase, {data}, {case.epochs} epochs{steps}, batch {case.batch_size}, {case.framework},"
        " against the same on arrays in memory in one process",
        f"{ours:.2f} s",
        f"{theirs:.2f} s",
        tuple(mine / other for mine, other in both),
        target,
    )


def _worker_seconds(case: Case, folder: Path) -> float:
    with tempfile.TemporaryDirectory() as home, WorkerSession.start(case.framework, folder=Path(home)) as session:
        session.wait_ready(120)
        session.build("", case.code, trainable=True)
        job = FitJob(folder / "samples.npy", folder / "labels.npy", batch_size=case.batch_size, fit_args=case.fit_args)
        started = time.perf_counter()
        epochs = [event for event in session.fit(job) if isinstance(event, FitEpoch)]
        seconds = time.perf_counter() - started
        assert len(epochs) == case.epochs
        return seconds


def baseline_seconds(case: Case, folder: Path) -> float:
    """Of the same on arrays in memory, in a process of its own; the import does not count."""
    (folder / f"{case.framework}.code").write_text(case.code)
    name = {"tensorflow": "fit_keras", "pytorch": "fit_torch"}[case.framework]
    arguments = [str(folder), str(case.batch_size), str(case.epochs), str(case.steps)]
    command = [sys.executable, "-m", "benchmarks.baselines", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))
