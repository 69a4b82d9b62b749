"""matplotlib as a server uses it: without a screen, without anybody's settings, one picture at a time."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
LONGEST_LABEL = 24

# matplotlib's settings and font caches are one per process.
_one_at_a_time = threading.Lock()


@contextmanager
def drawing() -> Iterator[None]:
    """A block that makes one picture."""
    with _one_at_a_time:
        # Here and not at the top: importing it costs the control plane's start half a second.
        import matplotlib as mpl

        # Not as the matplotlibrc of the user who started the server says. The backend is ours anyway, and asking which
        # one is set would import pyplot.
        defaults: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
        with mpl.rc_context(defaults):
            yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """The same figure gives the same bytes: no version and no time in the file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return file.getvalue()


def short(label: str) -> str:
    """One line of a bearable length."""
    line = " ".join(label.split())
    return line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"
