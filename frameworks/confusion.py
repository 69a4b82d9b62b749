"""Counts of true against answered classes."""

from __future__ import annotations

import numpy as np


def classes_of_labels(labels: np.ndarray, class_count: int) -> np.ndarray | None:
    """int64 class per row from numbers (rows,), (rows, 1) or parts of one (rows, classes); None for anything else."""
    if labels.ndim == 2 and labels.shape[1] == class_count and class_count > 1:
        adds_up = len(labels) == 0 or (labels.min() >= 0 and np.allclose(labels.sum(axis=1), 1, atol=1e-3))
        return np.asarray(np.argmax(labels, axis=1)) if adds_up else None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        return None
    classes = labels.astype(np.int64)
    fits = len(classes) == 0 or (classes.min() >= 0 and classes.max() < max(class_count, 2))
    return classes if fits and np.array_equal(classes, labels) else None


def classes_of_outputs(outputs: np.ndarray, *, logits: bool) -> np.ndarray | None:
    """int64 class per row: the highest score, or for a single score whether it says yes. None for no scores.

    `logits`: a single score is a logit, which says yes above 0; otherwise it is a probability.
    """
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return np.asarray(np.argmax(outputs, axis=1))
    scores = outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
    if scores.ndim != 1:
        return None
    if logits:
        return (scores > 0).astype(np.int64)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        return None
    return (scores > 0.5).astype(np.int64)


def count_confusion(labels: np.ndarray, outputs: np.ndarray, *, logits: bool) -> np.ndarray | None:
    """int64 counts (classes, classes): true class i, answered class j. None when this is no classification."""
    class_count = max(outputs.shape[1] if outputs.ndim == 2 else 1, 2)
    given = classes_of_labels(labels, outputs.shape[1] if outputs.ndim == 2 else 1)
    answered = classes_of_outputs(outputs, logits=logits)
    if given is None or answered is None:
        return None
    pairs = np.bincount(given * class_count + answered, minlength=class_count * class_count)
    return pairs.reshape(class_count, class_count).astype(np.int64)
