"""Pictures of ROC curves and residuals."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from control_plane.curve_pictures import residuals_png, roc_png
from headrace.v1.result_pb2 import OutputResiduals, Residuals, Roc, RocCurve


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def curves(count: int) -> Roc:
    return Roc(
        curves=[
            RocCurve(label=f"$class {n}$", auc=n / 100, false_positive_rates=[0, 1], true_positive_rates=[0, 1])
            for n in range(count)
        ]
    )


def residuals(count: int) -> Residuals:
    one = OutputResiduals(
        label="$0", bin_edges=[0, 1, 2], bin_counts=[1, 2], true_sample=[1, 2], answered_sample=[2, 1]
    )
    return Residuals(outputs=[one] * count)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_any_number_of_curves_gives_a_picture_of_sensible_size(count: int) -> None:
    for length in size(roc_png("a $title", curves(count))):
        assert 500 < length < 1000


@pytest.mark.parametrize("count", [1, 100])
def test_any_number_of_outputs_gives_a_picture_of_sensible_size(count: int) -> None:
    width, height = size(residuals_png("a $title", residuals(count)))
    assert 800 < width < 1400
    assert 400 < height < 3500


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert roc_png("t", curves(2)) == roc_png("t", curves(2)) != roc_png("t", curves(3))
    assert residuals_png("t", residuals(1)) == residuals_png("t", residuals(1))


def test_a_truth_without_a_spread_is_drawn() -> None:
    flat = OutputResiduals(label="0", bin_edges=[0, 0], bin_counts=[3], true_sample=[1, 1], answered_sample=[1, 1])
    assert residuals_png("t", Residuals(outputs=[flat])).startswith(b"\x89PNG")
