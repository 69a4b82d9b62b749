"""A confusion matrix as a PNG: counts as numbers, and colours by the part of each true class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from control_plane.drawing import drawing, new_figure, png_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Counts = npt.NDArray[np.int64]

POINTS_PER_INCH = 72
# The matrix itself is a square with sides of so many inches: half an inch a class, within these.
SMALLEST_IN, LARGEST_IN, CLASS_IN = 3.0, 14.0, 0.5
# Below so many points numbers cannot be read, and a digit is so wide as a part of its size.
SMALLEST_FONT, LARGEST_FONT, DIGIT_WIDTH = 5.0, 11.0, 0.65
# Of more classes only every n-th is named.
MOST_LABELS = 100
# A cell darker than this has white numbers.
DARK = 0.55


def confusion_png(title: str, labels: Sequence[str], counts: Sequence[int]) -> bytes:
    """Draw it; blocks for some tenths of a second. The same matrix gives the same bytes.

    counts: row by row, true class i answered with class j at i × len(labels) + j.
    """
    matrix = np.asarray(counts, np.int64).reshape(len(labels), len(labels))
    with drawing():
        return png_of(_figure(title, [short(label) for label in labels], matrix))


def row_shares(matrix: Counts) -> npt.NDArray[np.float64]:
    """The part of each row's sum, in [0, 1]; 0 in a row without counts."""
    shares = np.zeros(matrix.shape)
    sums = matrix.sum(axis=1, keepdims=True)
    np.divide(matrix, sums, out=shares, where=sums > 0)
    return shares


def _figure(title: str, labels: Sequence[str], matrix: Counts) -> Figure:
    side = min(max(CLASS_IN * len(labels), SMALLEST_IN), LARGEST_IN)
    figure = new_figure(side, side)
    # The matrix fills the figure; what stands around it is added when it is saved, whatever the labels' lengths.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    shares = row_shares(matrix)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    cell = side * POINTS_PER_INCH / len(labels)
    _name_classes(axes, labels, cell)
    _write_counts(axes, matrix, shares, cell)
    _add_scale(figure, image, side)
    axes.set_title(title, parse_math=False, fontsize=LARGEST_FONT, pad=10)
    return figure


def _name_classes(axes: Axes, labels: Sequence[str], cell: float) -> None:
    step = -(-len(labels) // MOST_LABELS)
    places = range(0, len(labels), step)
    size = min(LARGEST_FONT, max(SMALLEST_FONT, cell * step * 0.7))
    shown = [labels[place] for place in places]
    # Upright where they would touch each other.
    is_wide = max(map(len, shown)) * size * DIGIT_WIDTH > cell * step
    axes.set_xticks(places, shown, fontsize=size, rotation=90 if is_wide else 0, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.set_xlabel("answered class", fontsize=LARGEST_FONT)
    axes.set_ylabel("true class", fontsize=LARGEST_FONT)


def _write_counts(axes: Axes, matrix: Counts, shares: npt.NDArray[np.float64], cell: float) -> None:
    """Where the largest fits into a cell; elsewhere the colours have to do."""
    digits = len(str(matrix.max()))
    size = min(LARGEST_FONT, cell * 0.9 / (digits * DIGIT_WIDTH), cell * 0.6)
    if size < SMALLEST_FONT:
        return
    for row, column in np.ndindex(matrix.shape):
        color = "white" if shares[row, column] > DARK else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=size)


def _add_scale(figure: Figure, image: AxesImage, side: float) -> None:
    scale = figure.add_axes((1.0 + 0.15 / side, 0.0, 0.2 / side, 1.0))
    bar = figure.colorbar(image, cax=scale)
    bar.set_label("part of the true class", fontsize=LARGEST_FONT)
