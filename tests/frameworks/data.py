"""Small data sets on disk, as a feeder spools them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sandbox.session import FitJob


def write(folder: Path, **arrays: Any) -> dict[str, Path]:
    """Writes arrays as .npy files; returns their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: folder / f"{name}.npy" for name in arrays}


def three_classes(rows: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four numbers of which the highest of the first three gives the class: easy to learn."""
    samples = np.random.default_rng(seed).random((rows, 4), np.float32)
    return samples, np.argmax(samples[:, :3], axis=1)


def job(folder: Path, samples: Any, labels: Any, *, validation: int = 0, **settings: Any) -> FitJob:
    """A job on the rows in a mixed order, the last `validation` of them for validation."""
    order = np.random.default_rng(1).permutation(len(samples))
    split = len(order) - validation
    paths = write(folder, samples=samples, labels=labels, training=order[:split], validation=order[split:])
    return FitJob(paths["samples"], paths["labels"], paths["training"], paths["validation"], **settings)
