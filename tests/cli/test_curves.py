"""ROC curves and residuals, as the terminal shows them."""

from __future__ import annotations

import pytest

from cli.curves import print_residuals, print_roc, residual_lines, roc_line
from headrace.v1.result_pb2 import OutputResiduals, Residuals, Roc, RocCurve

ROC = Roc(curves=[RocCurve(label="cat", auc=0.99), RocCurve(label="dog", auc=0.5)], split="test")
OUTPUT = OutputResiduals(label="0", mean=0.25, standard_deviation=2.5, mean_absolute=1.5, quantiles=[-3, 0.5, 4])
RESIDUALS = Residuals(quantile_levels=[0, 0.5, 1], outputs=[OUTPUT], split="validation")


def test_a_line_has_the_mean_area_and_its_extremes() -> None:
    assert roc_line(ROC) == "0.745 (0.5 for the class dog to 0.99 for cat), on the test split"
    assert roc_line(Roc(curves=ROC.curves[:1], split="test")) == "0.99, on the test split"
    assert roc_line(Roc()) == ""


def test_classes_that_are_told_apart_worst_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_roc(ROC)
    _, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["dog", "0.5000"], ["cat", "0.9900"]]


def test_of_many_classes_the_rest_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_roc(Roc(curves=[RocCurve(label=str(number), auc=0.9) for number in range(30)]))
    assert "and 10 classes with larger areas" in capsys.readouterr().out


def test_residuals_are_summed_up_and_shown_by_quantile(capsys: pytest.CaptureFixture[str]) -> None:
    line = residual_lines(RESIDUALS)
    assert line == "mean 0.25, standard deviation 2.5, absolute 1.5, on the validation split"
    explained = Residuals(outputs=[OutputResiduals(label="0", r_squared=0.75)] * 2, split="test")
    first, second = residual_lines(explained).splitlines()
    assert first == second == "output 0: mean 0, standard deviation 0, absolute 0, R² 0.75, on the test split"
    print_residuals(RESIDUALS)
    _, header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["output", "0%", "50%", "100%"]
    assert [float(number) for number in row.split()] == [0, -3, 0.5, 4]
