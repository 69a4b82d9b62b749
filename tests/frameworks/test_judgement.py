"""ROC curves and residuals: against scikit-learn, and of models that were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score, roc_auc_score, roc_curve

from frameworks.residuals import LEVELS, SAMPLE, residuals
from frameworks.roc import MOST_POINTS, curve, roc_curves
from sandbox.session import WorkerSession
from tests.frameworks.data import job, three_classes
from tests.frameworks.models import Models
from tests.frameworks.test_training import fit


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300), st.integers(1, 50))
def test_a_curve_is_scikit_learns(seed: int, rows: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random(rows) < 0.4
    truth[:2] = [True, False]
    scores = random.integers(0, levels, rows).astype(np.float32)
    false_positive, true_positive, _ = roc_curve(truth, scores, drop_intermediate=False)
    found = curve(truth, scores)
    np.testing.assert_allclose(found[0], false_positive)
    np.testing.assert_allclose(found[1], true_positive)


def test_areas_are_those_of_all_scores_although_few_points_are_kept() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 20_000)
    scores = random.random((20_000, 3)) + np.eye(3)[labels] * 0.4
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    curves = roc_curves(labels, scores, logits=False)
    assert curves is not None
    assert [one["label"] for one in curves] == ["0", "1", "2"]
    for number, one in enumerate(curves):
        assert one["auc"] == pytest.approx(roc_auc_score(labels == number, scores[:, number]), abs=1e-9)
        assert 50 < len(one["false_positive_rates"]) == len(one["true_positive_rates"]) <= MOST_POINTS
        assert np.trapezoid(one["true_positive_rates"], one["false_positive_rates"]) == pytest.approx(
            one["auc"], abs=1e-3
        )


def test_logits_are_judged_as_probabilities() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(size=(500, 3)).astype(np.float32) + random.normal(size=(500, 1)).astype(np.float32) * 5
    labels = random.integers(0, 3, 500)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    curves = roc_curves(labels, logits, logits=False)
    assert curves is not None
    assert curves[0]["auc"] == pytest.approx(roc_auc_score(labels == 0, probabilities[:, 0]), abs=1e-3)


def test_several_labels_of_a_row_have_a_curve_each() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, (200, 4)).astype(np.float32)
    curves = roc_curves(labels, random.random((200, 4), np.float32), logits=False)
    assert curves is not None
    assert len(curves) == 4


def test_a_class_without_rows_has_no_curve_and_a_regression_none() -> None:
    scores = np.full((10, 3), 1 / 3, np.float32)
    curves = roc_curves(np.array([0, 1] * 5), scores, logits=False)
    assert curves is not None
    assert [one["label"] for one in curves] == ["0", "1"]
    assert roc_curves(np.linspace(0, 9, 10), np.ones((10, 1), np.float32), logits=False) is None
    assert roc_curves(np.array([0, 1] * 5), np.full((10, 2), np.nan, np.float32), logits=False) is None


def test_residuals_add_up() -> None:
    random = np.random.default_rng(4)
    truths = random.normal(size=1000)
    answers = (truths + random.normal(0.5, 0.1, 1000)).astype(np.float32)[:, np.newaxis]
    found = residuals(truths, answers)
    assert found is not None
    (output,) = found["outputs"]
    off = answers[:, 0] - truths
    assert output["mean"] == pytest.approx(off.mean())
    assert output["mean_absolute"] == pytest.approx(np.abs(off).mean())
    assert output["r_squared"] == pytest.approx(r2_score(truths, answers[:, 0]))
    assert output["quantiles"][found["quantile_levels"].index(0.5)] == pytest.approx(np.median(off))
    assert len(output["quantiles"]) == len(LEVELS)
    assert sum(output["bin_counts"]) == 1000
    assert len(output["bin_edges"]) == len(output["bin_counts"]) + 1
    assert len(output["true_sample"]) == len(output["answered_sample"]) == SAMPLE


def test_a_constant_truth_has_no_part_that_is_explained() -> None:
    found = residuals(np.ones(5), np.zeros((5, 1), np.float32))
    assert found is not None
    assert found["outputs"][0]["r_squared"] is None


def test_a_trained_classifier_has_curves(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    what = job(tmp_path, *three_classes(), validation=60, batch_size=16, fit_args=f"{models.epochs}=10")
    fit(worker, models.classifier, what)
    found = worker.evaluate(what.samples, what.labels, what.validation_rows)
    assert found.residuals is None
    assert found.confusion is None
    assert found.roc is not None
    assert found.roc.row_count == 60
    assert [one.label for one in found.roc.curves] == ["0", "1", "2"]
    assert all(one.auc > 0.9 for one in found.roc.curves)


def test_a_trained_regression_has_residuals(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, _ = three_classes()
    what = job(tmp_path, samples, samples.sum(axis=1), validation=60, fit_args=f"{models.epochs}=20")
    epochs = fit(worker, models.regression, what)
    found = worker.evaluate(what.samples, what.labels, what.validation_rows)
    assert found.roc is None
    assert found.residuals is not None
    (output,) = found.residuals.outputs
    assert found.residuals.row_count == sum(output.bin_counts) == 60
    assert output.mean_absolute == pytest.approx(epochs[-1].metrics["validation"]["mae"], rel=1e-3)
