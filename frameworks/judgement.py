"""What a model's answers show beside its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frameworks.confusion import count_confusion
from frameworks.framework import Scores
from frameworks.residuals import residuals
from frameworks.roc import MOST_CURVES, roc_curves

# Curves and quantiles of so many rows are those of all, as far as anybody sees.
SCORED_ROWS = 50_000
# Nobody looks at the curves of more outputs.
MOST_OUTPUTS = MOST_CURVES


@dataclass(frozen=True)
class Judgement:
    """Parts of an answer to `evaluate`."""

    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def judge(labels: np.ndarray, scores: Scores, *, confusion_matrix: bool) -> Judgement:
    """Of a classifier ROC curves, and the confusion matrix where it is asked for; of a regression the residuals."""
    fields: dict[str, Any] = {"scored_rows": len(labels)}
    arrays = {}
    counts = count_confusion(labels, scores.outputs, logits=scores.logits) if confusion_matrix else None
    if counts is not None:
        fields["classes"] = [str(number) for number in range(len(counts))]
        arrays["confusion"] = counts
    curves = roc_curves(labels, scores.outputs, logits=scores.logits)
    if curves is not None:
        fields["roc"] = curves
    elif counts is None and scores.outputs[:1].size <= MOST_OUTPUTS:
        fields["residuals"] = residuals(labels, scores.outputs)
    return Judgement(fields, arrays)
