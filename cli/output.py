"""What the commands print: tables, JSON, units, curves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.options import count_option
from headrace.v1 import deployment_pb2, inference_pb2, result_pb2, stream_pb2

Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Limit = Annotated[int, count_option("--limit", "-n", help="At most so many.", min=1)]

# Wide enough for our tables where the output is a file or a pipe.
PIPE_WIDTH = 160
# Characters of a text that anybody may have written, such as an error of a model.
MAX_CELL = 80
COLORS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_STATE_STYLES = {
    "finished": "green", "running": "green", "ready": "green", "failed": "bold red", "degraded": "yellow",
    "cancelled": "dim", "stopped": "dim", "restarting": "bold yellow",
}  # fmt: skip

console = Console(highlight=False, soft_wrap=False)
if not console.is_terminal:
    console = Console(highlight=False, width=PIPE_WIDTH)
errors = Console(stderr=True, highlight=False)


def to_dict(message: Message) -> dict[str, Any]:
    """The message as the REST API has it: lowerCamelCase, int64 as text, unset fields present."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def print_json(message: Message | Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    document = to_dict(message) if isinstance(message, Message) else message
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(message: Message) -> None:
    """One JSON object in one line, for streams."""
    print(json.dumps(to_dict(message), ensure_ascii=False), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; a column whose title begins with `#` is of numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    more: bool = False,
    option: str = "--limit",
) -> None:
    """The table, or the sentence `empty`. more: say that there is more than is shown, and which option shows it."""
    listed = list(rows)
    if not listed:
        console.print(empty)
        return
    console.print(table(columns, listed))
    if more:
        errors.print(f"There are more; {option} N shows more than {len(listed)}.")


def print_fields(fields: Mapping[str, object]) -> None:
    """One `name  value` line per field; empty values are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in ("", None):
            grid.add_row(name, value if isinstance(value, Text | Table) else Text(str(value)))
    console.print(grid)


def state_name(value: int) -> str:
    """`finished` for STATE_FINISHED."""
    return deployment_pb2.State.Name(value).removeprefix("STATE_").lower()


def inference_state_name(value: int) -> str:
    """`running` for INFERENCE_STATE_RUNNING."""
    return inference_pb2.InferenceState.Name(value).removeprefix("INFERENCE_STATE_").lower()


def styled_state(name: str) -> Text:
    return Text(name, style=_STATE_STYLES.get(name, "cyan"))


def framework_name(value: int) -> str:
    """`tensorflow` for FRAMEWORK_TENSORFLOW."""
    from headrace.v1 import model_pb2

    return model_pb2.Framework.Name(value).removeprefix("FRAMEWORK_").lower()


def ago(time_stamp: Timestamp) -> str:
    """`3 min ago`; empty for a time that is not set."""
    if not time_stamp.seconds:
        return ""
    return f"{span(max(0.0, time.time() - time_stamp.seconds))} ago"


def span(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 5 s`, `3 h 20 min`, `12 d`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def duration(value: Duration) -> str:
    return span(value.ToNanoseconds() / 1e9) if value.ByteSize() else ""


def size(count_bytes: int) -> str:
    """`12 B`, `3.4 KiB`, `1.2 GiB`."""
    amount = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def number(value: float) -> str:
    """Four significant digits, as people compare metrics."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def count(value: float) -> str:
    """Thousands apart: `12,345`."""
    return f"{value:,.0f}"


def settings_lines(settings: deployment_pb2.TrainingSettings) -> str:
    """Every setting that is not empty, `name = value`, one a line, in the words of the API."""
    return "\n".join(f"{name} = {value}" for name, value in _leaves("", to_dict(settings)) if value not in ("", {}))


def _leaves(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield prefix, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{prefix}.{name}" if prefix else name, inner)


def short(text: str) -> str:
    """On one line, and cut where it is longer than a cell of a table should be."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_CELL else line[: MAX_CELL - 1] + "…"


def metrics_line(splits: result_pb2.SplitMetrics) -> str:
    """`validation accuracy 0.9812, loss 0.0712 · test …`: the splits in the order of the training."""
    known = [name for name in ("training", "validation", "test") if name in splits.splits]
    others = sorted(name for name in splits.splits if name not in known)
    return " · ".join(f"{name} {values_line(splits.splits[name].values)}" for name in [*known, *others])


def values_line(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(values[name])}" for name in sorted(values))


def error_line(error: status_pb2.Status) -> str:
    """`CODE_ERROR: line 3: …`; empty where there is none."""
    if not error.code:
        return ""
    info = error_details_pb2.ErrorInfo()
    reason = next((f"{info.reason}: " for detail in error.details if detail.Unpack(info)), "")
    return f"{reason}{error.message}"


def refused_line(refused: stream_pb2.RefusedAnnouncement) -> str:
    """`INVALID_RANGE: … (KAFKA_ML_CONTROL_TOPIC/0/17, 3 s ago)`; empty where none was refused."""
    if not refused.HasField("error"):
        return ""
    source = refused.source
    place = ", ".join(filter(None, [f"{source.topic}/{source.partition}/{source.offset}", ago(source.time)]))
    return f"{error_line(refused.error)} ({place})"


# Dots of a braille character by column and row.
_BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def curve(series: Mapping[str, Sequence[float]], *, width: int = 60, height: int = 8) -> Text:
    """Curves over the epochs in one chart of braille dots: `height` + 2 lines, the last is the legend.

    series: name → one value per epoch; values that are not finite are left out. Where two curves cross, the later
    one has the character.
    """
    finite = {name: _points(values) for name, values in series.items()}
    values = [value for points in finite.values() for _, value in points]
    if not values:
        return Text("no values yet", style="dim")
    low, high = min(values), max(values)
    last = max(1, *(points[-1][0] for points in finite.values() if points))
    canvas: dict[tuple[int, int], tuple[int, str]] = {}
    for color, points in zip(_colors(), finite.values(), strict=False):
        for x, y in _dots(points, last, low, high, width, height):
            dots, _ = canvas.get((x // 2, y // 4), (0, ""))
            canvas[x // 2, y // 4] = (dots | _BRAILLE[x % 2][y % 4], color)
    return _chart(canvas, low, high, last + 1, width, height, list(finite))


def _points(values: Sequence[float]) -> list[tuple[int, float]]:
    return [(place, value) for place, value in enumerate(values) if value == value and abs(value) != float("inf")]


def _colors() -> Iterable[str]:
    while True:
        yield from COLORS


def _dots(
    points: Sequence[tuple[int, float]], last: int, low: float, high: float, width: int, height: int
) -> Iterable[tuple[int, int]]:
    """Every dot of a line through the points, on a grid of 2 by 4 dots per character, y downwards."""
    scale = (high - low) or 1.0

    def place(point: tuple[int, float]) -> tuple[float, float]:
        return point[0] / last * (2 * width - 1), (high - point[1]) / scale * (4 * height - 1)

    for start, end in zip(points, [*points[1:], points[-1]] if points else [], strict=True):
        (x0, y0), (x1, y1) = place(start), place(end)
        steps = max(1, round(max(abs(x1 - x0), abs(y1 - y0))))
        for step in range(steps + 1):
            yield round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)


def _chart(
    canvas: Mapping[tuple[int, int], tuple[int, str]],
    low: float, high: float, epochs: int, width: int, height: int, names: Sequence[str],
) -> Text:  # fmt: skip
    margin = max(len(number(low)), len(number(high)))
    text = Text()
    for row in range(height):
        label = number(high) if row == 0 else number(low) if row == height - 1 else ""
        text.append(f"{label:>{margin}} │", style="dim")
        for column in range(width):
            dots, color = canvas.get((column, row), (0, ""))
            text.append(chr(0x2800 + dots) if dots else " ", style=color)
        text.append("\n")
    text.append(f"{'':>{margin}} └{'─' * (width - 12)} epoch {epochs}\n", style="dim")
    for color, name in zip(_colors(), names, strict=False):
        text.append("  ━ ", style=color)
        text.append(name)
    return text
