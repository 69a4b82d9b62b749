"""What a regression gets wrong: the answers minus the truths."""

from __future__ import annotations

from typing import Any

import numpy as np

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 41
SAMPLE = 500


def residuals(labels: np.ndarray, outputs: np.ndarray) -> dict[str, Any] | None:
    """The fields of headrace.v1.Residuals; None where labels are no numbers of the outputs' shape."""
    told = _matrices(labels, outputs)
    if told is None:
        return None
    truths, answers = told
    per_output = [_output(str(column), truths[:, column], answers[:, column]) for column in range(truths.shape[1])]
    return {"quantile_levels": list(LEVELS), "outputs": per_output}


def _matrices(labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Both as float64 (rows, outputs)."""
    if labels.dtype.kind not in "iuf" or not len(labels) or labels.size != outputs.size:
        return None
    truths = labels.reshape(len(labels), -1).astype(np.float64)
    answers = outputs.reshape(len(outputs), -1).astype(np.float64)
    if truths.shape != answers.shape:
        return None
    return (truths, answers) if np.isfinite(truths).all() and np.isfinite(answers).all() else None


def _output(label: str, truths: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    off = answers - truths
    counts, edges = np.histogram(off, BINS)
    some = np.linspace(0, len(truths) - 1, min(SAMPLE, len(truths))).astype(int)
    variance = float(truths.var())
    return {
        "label": label,
        "mean": float(off.mean()),
        "standard_deviation": float(off.std()),
        "mean_absolute": float(np.abs(off).mean()),
        "r_squared": 1 - float((off**2).mean()) / variance if variance > 0 else None,
        "quantiles": np.quantile(off, LEVELS).tolist(),
        "bin_edges": edges.tolist(),
        "bin_counts": counts.tolist(),
        "true_sample": truths[some].tolist(),
        "answered_sample": answers[some].tolist(),
    }
