"""ROC curves and residuals as PNGs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from control_plane.drawing import drawing, new_figure, png_of, short
from headrace.v1.result_pb2 import OutputResiduals, Residuals, Roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE_IN = 5.5
# More than these cannot be told apart: those with the smallest area are drawn, for they are what is looked for.
MOST_CURVES = 10
MOST_OUTPUTS = 5
FONT = 9.0


def roc_png(title: str, roc: Roc) -> bytes:
    """Every class in a colour, its area in the legend; blocks for some tenths of a second."""
    with drawing():
        figure = new_figure(SIDE_IN, SIDE_IN)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        for curve in sorted(roc.curves, key=lambda one: one.auc)[:MOST_CURVES]:
            label = f"{short(curve.label)}: {curve.auc:.4f}"
            axes.plot(curve.false_positive_rates, curve.true_positive_rates, label=label, linewidth=1.2)
        left_out = len(roc.curves) - MOST_CURVES
        more = f" (lowest {MOST_CURVES} of {len(roc.curves)})" if left_out > 0 else ""
        axes.legend(title=f"class: area{more}", loc="lower right", fontsize=FONT, title_fontsize=FONT)
        _label(axes, "others taken for the class", "part of the class found")
        axes.set_title(title, parse_math=False, fontsize=FONT + 2)
        return png_of(figure)


def residuals_png(title: str, residuals: Residuals) -> bytes:
    """A row per output: the histogram of its residuals, and answers over truths; blocks for some tenths of a second."""
    shown = residuals.outputs[:MOST_OUTPUTS]
    with drawing():
        figure = new_figure(2 * SIDE_IN, SIDE_IN * len(shown))
        for row, output in enumerate(shown):
            _draw_histogram(figure.add_subplot(len(shown), 2, 2 * row + 1), output)
            _draw_answers(figure.add_subplot(len(shown), 2, 2 * row + 2), output)
        figure.suptitle(title, parse_math=False, fontsize=FONT + 2, y=0.95)
        return png_of(figure)


def _draw_histogram(axes: Axes, output: OutputResiduals) -> None:
    edges = np.asarray(output.bin_edges)
    axes.bar(edges[:-1], list(output.bin_counts), width=np.diff(edges), align="edge", color="tab:blue")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(output.mean, color="tab:red", linewidth=1, label=f"mean {output.mean:.4g}")
    axes.legend(fontsize=FONT)
    _label(axes, f"output {short(output.label)}: answer minus truth", "rows")


def _draw_answers(axes: Axes, output: OutputResiduals) -> None:
    truths, answers = np.asarray(output.true_sample), np.asarray(output.answered_sample)
    ends = [min(truths.min(), answers.min()), max(truths.max(), answers.max())] if len(truths) else [0, 1]
    axes.plot(ends, ends, color="grey", linestyle=":", linewidth=1)
    axes.scatter(truths, answers, s=8, alpha=0.5)
    _label(axes, "truth", "answer")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=FONT, parse_math=False)
    axes.set_ylabel(y, fontsize=FONT, parse_math=False)
