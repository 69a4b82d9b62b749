"""Records as tables: a column a field, or a line a field where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cli import output
from cli.files.record_file import EXACT_BELOW

# More columns than this are read better as lines.
MAX_COLUMNS = 12
MAX_WIDTH = 30
SHOWN_VALUES = 16


@dataclass(frozen=True)
class Values:
    """The numbers of one field, or of all a record is.

    whole: of a type without fractions.
    """

    name: str
    start: int
    stop: int
    whole: bool


@dataclass(frozen=True)
class Shown:
    """One record as a table has it.

    about: cells before its values, such as where it is.
    values: the numbers of the sample in one row; a text where the sample is one.
    problem: why it has no values.
    """

    about: Sequence[str]
    values: Sequence[float] | str
    label: str
    problem: str = ""


def print_records(about: Sequence[str], fields: Sequence[Values], records: Sequence[Shown], *, labelled: bool) -> None:
    """The records as a table on the console."""
    titles = [*about, *(field.name for field in fields), *(["label"] if labelled else [])]
    rows: list[list[str | Text]] = [
        [*record.about, *_cells(fields, record), *([record.label] if labelled else [])] for record in records
    ]
    if len(titles) <= MAX_COLUMNS:
        output.console.print(output.table(titles, rows))
        return
    for some in _that_fit(output.console, rows):
        lines = [[title.lstrip("#"), *(row[place] for row in some)] for place, title in enumerate(titles)]
        sideways = output.table([""] * (1 + len(some)), lines)
        sideways.show_header = False
        output.console.print(sideways)
        output.console.print()


def numbers(values: Sequence[float], *, whole: bool) -> str:
    """`0 5 13 …`"""
    more = " …" if len(values) > SHOWN_VALUES else ""
    return " ".join(_number(value, whole=whole) for value in values[:SHOWN_VALUES]) + more


def _number(value: float, *, whole: bool) -> str:
    """Whole numbers in full, unless the API has rounded them to a float: its last digits are none of the record's."""
    is_exact = isinstance(value, int) or abs(value) < EXACT_BELOW
    return str(int(value)) if whole and is_exact else f"{value:.6g}"


def _cells(fields: Sequence[Values], record: Shown) -> list[str | Text]:
    if record.problem:
        return [Text(record.problem, style="bold red"), *([""] * (len(fields) - 1))]
    values = record.values
    if isinstance(values, str):
        return [values, *([""] * (len(fields) - 1))]
    return [numbers(values[field.start : field.stop], whole=field.whole) for field in fields]


def _that_fit(console: Console, rows: Sequence[list[str | Text]]) -> Sequence[Sequence[list[str | Text]]]:
    """Groups of records that stand side by side."""
    width = min(MAX_WIDTH, max(len(str(cell)) for row in rows for cell in row)) + 2
    count = max(1, (console.width - MAX_WIDTH) // width)
    return [rows[start : start + count] for start in range(0, len(rows), count)]
