"""Memory of a worker that trains on more than it may have in memory, shuffled."""

import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.report import Ratio
from benchmarks.training import CODE
from sandbox.session import FitJob, FrameworkName, WorkerSession

ROW_SHAPE = (28, 28)
DATA_BYTES = 4_000_000_000
BATCH_SIZE = 4096
LIMIT_MB = 1500


def measure() -> list[Ratio]:
    """One epoch over 4 GB, for both frameworks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _write_rows(folder)
        return [_memory(framework, folder, rows) for framework in CODE]


def _write_rows(folder: Path) -> int:
    rows = DATA_BYTES // int(np.prod(ROW_SHAPE))
    samples = np.lib.format.open_memmap(folder / "samples.npy", "w+", np.uint8, (rows, *ROW_SHAPE))
    some = np.random.default_rng(1).integers(0, 255, (100_000, *ROW_SHAPE), np.uint8)
    for start in range(0, rows, len(some)):
        samples[start : start + len(some)] = some[: rows - start]
    samples.flush()
    np.save(folder / "labels.npy", (np.arange(rows) % 10).astype(np.uint8))
    return rows


def _memory(framework: FrameworkName, folder: Path, rows: int) -> Ratio:
    """The peak of what worker and feeder have allocated together while the worker trains."""
    epochs = "epochs" if framework == "tensorflow" else "max_epochs"
    job = FitJob(folder / "samples.npy", folder / "labels.npy", batch_size=BATCH_SIZE, fit_args=f"{epochs}=1")
    peak_mb = 0.0
    with tempfile.TemporaryDirectory() as home, WorkerSession.start(framework, folder=Path(home)) as session:
        session.wait_ready(120)
        session.build("", CODE[framework], trainable=True)
        # Twice a second the worker tells of its progress.
        for _ in session.fit(job):
            peak_mb = max(peak_mb, sum(map(_anonymous_mb, (session.pid, psutil.Process().pid))))
    return Ratio(
        f"peak memory (RssAnon) of worker and feeder while {rows:,} rows, {DATA_BYTES / 1e9:.0f} GB, are trained on"
        f" shuffled, {framework}, against {LIMIT_MB / 1000:g} GB",
        f"{peak_mb:.0f} MB",
        f"{LIMIT_MB} MB",
        (peak_mb / LIMIT_MB,),
        "≤ 1 ×",
    )


def _anonymous_mb(pid: int) -> float:
    memory = psutil.Process(pid).memory_info()
    return float(memory.rss - memory.shared) / 1e6
