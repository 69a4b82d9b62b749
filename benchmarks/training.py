"""The training phase in a worker over spooled files, against `fit` on arrays in memory in one process."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.baselines import KERAS_MODEL, TORCH_MODEL
from benchmarks.report import Ratio, paired
from sandbox.session import FitEpoch, FitJob, FrameworkName, WorkerSession

ROWS = 24_900
EPOCHS = 5
PAIRS = 3
MODELS: dict[FrameworkName, tuple[str, str, str]] = {
    "tensorflow": (KERAS_MODEL, "fit_keras", f"epochs={EPOCHS}, verbose=0"),
    "pytorch": (TORCH_MODEL, "fit_torch", f"max_epochs={EPOCHS}"),
}


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
        return [_ratio(framework, size, folder) for framework in MODELS for size in (32, 256)]


def _ratio(framework: FrameworkName, batch_size: int, folder: Path) -> Ratio:
    _, baseline, _ = MODELS[framework]
    pairs = paired(
        lambda: _worker_seconds(framework, batch_size, folder),
        lambda: _baseline_seconds(baseline, batch_size, folder),
        PAIRS,
    )
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(
        f"training phase, {ROWS:,} rows of 28×28, {EPOCHS} epochs, batch {batch_size}, {framework},"
        " against the same on arrays in memory in one process",
        f"{ours:.2f} s",
        f"{theirs:.2f} s",
        tuple(mine / other for mine, other in pairs),
        "≤ 1.03 ×",
    )


def _worker_seconds(framework: FrameworkName, batch_size: int, folder: Path) -> float:
    code, _, fit_args = MODELS[framework]
    with tempfile.TemporaryDirectory() as home, WorkerSession.start(framework, folder=Path(home)) as session:
        session.wait_ready(120)
        session.build("", code, trainable=True)
        job = FitJob(folder / "samples.npy", folder / "labels.npy", batch_size=batch_size, fit_args=fit_args)
        started = time.perf_counter()
        epochs = [event for event in session.fit(job) if isinstance(event, FitEpoch)]
        seconds = time.perf_counter() - started
        assert len(epochs) == EPOCHS
        return seconds


def _baseline_seconds(name: str, batch_size: int, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.baselines", name, str(folder), str(batch_size), str(EPOCHS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))
