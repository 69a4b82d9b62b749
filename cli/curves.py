"""ROC curves and residuals in the terminal."""

from __future__ import annotations

from cli import output
from headrace.v1.result_pb2 import Residuals, Roc

# The lowest are what is looked for.
MOST_SHOWN = 20


def roc_line(roc: Roc) -> str:
    """Such as `0.9987 (0.9951 for the class 8 to 1 for the class 0), on the test split`; empty without curves."""
    if not roc.curves:
        return ""
    ordered = sorted(roc.curves, key=lambda curve: curve.auc)
    worst, best = ordered[0], ordered[-1]
    mean = sum(curve.auc for curve in ordered) / len(ordered)
    spread = f" ({worst.auc:.4g} for the class {worst.label} to {best.auc:.4g} for {best.label})"
    return f"{mean:.4g}{spread if len(ordered) > 1 else ''}, on the {roc.split} split"


def residual_lines(residuals: Residuals) -> str:
    """A line per output: mean, spread, and what half of the answers are off by; empty without any."""
    lines = []
    for one in residuals.outputs[:MOST_SHOWN]:
        name = f"output {one.label}: " if len(residuals.outputs) > 1 else ""
        explained = f", R² {one.r_squared:.4g}" if one.HasField("r_squared") else ""
        off = f"mean {one.mean:.4g}, standard deviation {one.standard_deviation:.4g}, absolute {one.mean_absolute:.4g}"
        lines.append(f"{name}{off}{explained}, on the {residuals.split} split")
    return "\n".join(lines)


def print_roc(roc: Roc) -> None:
    """The area of each class, the lowest first, and the curve of that."""
    ordered = sorted(roc.curves, key=lambda curve: curve.auc)
    shown = ordered[:MOST_SHOWN]
    output.print_table(["class", "#area under the curve"], [(one.label, f"{one.auc:.4f}") for one in shown], empty="")
    if len(ordered) > len(shown):
        output.console.print(f"and {len(ordered) - len(shown)} classes with larger areas")


def print_residuals(residuals: Residuals) -> None:
    """What quantiles of the rows are off by, an output a row."""
    levels = [f"#{level:.0%}" for level in residuals.quantile_levels]
    rows = [[one.label, *map(output.number, one.quantiles)] for one in residuals.outputs[:MOST_SHOWN]]
    output.console.print("Answer minus truth, by quantile:")
    output.print_table(["output", *levels], rows, empty="")
    output.console.print(residual_lines(residuals), markup=False)
