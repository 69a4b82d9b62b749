"""ROC curves: how well the scores of each class tell its rows from the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from frameworks.confusion import classes_of_labels, classes_of_outputs

MOST_CURVES = 100
# A curve is drawn with so many points; its area is that of all of them.
MOST_POINTS = 201


def roc_curves(labels: np.ndarray, outputs: np.ndarray, *, logits: bool) -> list[dict[str, Any]] | None:
    """The fields of headrace.v1.RocCurve by class; None for what is no classifier, or has too many classes.

    A class that no row has, or every row, has no curve. A single score is that of the class 1.
    """
    told = _truths_and_scores(labels, outputs, logits=logits)
    if told is None or told[1].shape[1] > MOST_CURVES or not np.isfinite(told[1]).all():
        return None
    truths, scores = told
    names = ["1"] if scores.shape[1] == 1 else [str(number) for number in range(scores.shape[1])]
    return list(_curves(names, truths, scores))


def _curves(names: list[str], truths: np.ndarray, scores: np.ndarray) -> Iterator[dict[str, Any]]:
    for column, name in enumerate(names):
        truth = truths[:, column]
        if truth.any() and not truth.all():
            false_positive, true_positive = curve(truth, scores[:, column])
            shown = _few(false_positive, true_positive)
            yield {
                "label": name,
                "auc": float(np.trapezoid(true_positive, false_positive)),
                "false_positive_rates": false_positive[shown].tolist(),
                "true_positive_rates": true_positive[shown].tolist(),
            }


def curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, from (0, 0) to (1, 1), at every threshold; equal scores share one."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(truth[order])
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_positives, taken = found[last_of_equals], last_of_equals + 1
    positives, others = found[-1], len(truth) - found[-1]
    return np.append(0, (taken - true_positives) / others), np.append(0, true_positives / positives)


def _few(false_positive: np.ndarray, true_positive: np.ndarray) -> np.ndarray:
    """The points to keep: corners, and of many of them some that are evenly far from each other along the curve."""
    steps = np.diff(false_positive), np.diff(true_positive)
    turns = steps[0][1:] * steps[1][:-1] != steps[0][:-1] * steps[1][1:]
    corners = np.concatenate([[0], np.flatnonzero(turns) + 1, [len(false_positive) - 1]])
    if len(corners) <= MOST_POINTS:
        return corners
    along = false_positive[corners] + true_positive[corners]
    wanted = np.linspace(0, along[-1], MOST_POINTS)
    return np.asarray(corners[np.unique(np.minimum(np.searchsorted(along, wanted), len(corners) - 1))])


def _truths_and_scores(
    labels: np.ndarray, outputs: np.ndarray, *, logits: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Whether a row is of a class (rows, classes), and its scores (rows, classes)."""
    if outputs.ndim == 1:
        outputs = outputs[:, np.newaxis]
    if outputs.ndim != 2 or not len(outputs):
        return None
    classes = classes_of_labels(labels, outputs.shape[1])
    if classes is None:
        return _of_several_labels(labels, outputs)
    if classes_of_outputs(outputs, logits=logits) is None:
        return None
    if outputs.shape[1] == 1:
        return np.equal(classes, 1)[:, np.newaxis], outputs
    return np.equal(classes[:, np.newaxis], np.arange(outputs.shape[1])), _probabilities(outputs)


def _of_several_labels(labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels that say yes or no to each of several classes."""
    if labels.shape != outputs.shape or outputs.shape[1] < 2 or not np.isin(labels, (0, 1)).all():
        return None
    return np.equal(labels, 1), outputs


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """Scores of one row are compared with those of others, so they have to add up to the same: logits do not."""
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
