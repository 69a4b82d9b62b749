"""CSV files of numbers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import numpy as np

from cli.files.record_file import ROWS_AT_ONCE, TOO_LARGE, TOO_LONG, Array, Columns, bad_file

# From here on a float64 does not hold every whole number.
EXACT_BELOW = 2**53
_WHOLE = re.compile(r"[+-]?[0-9]+")

# A line with its number in the file.
Line = tuple[int, str]


class CsvFile:
    """Numbers separated by commas, under a line with the columns' names."""

    typed = False
    has_fields = True
    kind = "column"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            header = enumerate(next(reader, []), 1)
            # pandas writes its index under no name.
            self.names = tuple(name.strip() or f"column_{place}" for place, name in header)
            self._header_lines = reader.line_num
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise bad_file(f"{path} has several columns {twice[0]!r}; give each a name of its own")

    def place(self, number: int) -> str:
        with self._rows() as rows:
            return f"line {next(islice(rows, number - 1, None))[0]}"

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.names, ()

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        places = [self.names.index(name) for name in names]
        with self._rows() as rows:
            while chunk := list(islice(rows, ROWS_AT_ONCE)):
                values = self._numbers(chunk, places)
                yield {name: values[:, place] for place, name in enumerate(names)}

    @contextmanager
    def _rows(self) -> Iterator[Iterator[Line]]:
        """The lines under the header, but for blank ones."""
        with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            lines = islice(zip(count(1), file, strict=False), self._header_lines, None)
            yield ((number, line) for number, line in lines if line.strip())

    def _numbers(self, lines: Sequence[Line], places: Sequence[int]) -> Array:
        """`(n, len(places))`, float64. What numpy cannot read as a table is looked at value by value."""
        try:
            table = np.loadtxt(
                [line for _, line in lines], np.float64, comments=None, delimiter=",", quotechar='"', ndmin=2
            )
        except ValueError:
            return self._one_by_one(lines, places)
        if table.shape != (len(lines), len(self.names)):
            return self._one_by_one(lines, places)
        values: Array = table[:, places]
        return self._one_by_one(lines, places) if (np.abs(values) >= EXACT_BELOW).any() else values

    def _one_by_one(self, lines: Sequence[Line], places: Sequence[int]) -> Array:
        return np.array([self._row(number, line, places) for number, line in lines], np.float64)

    def _row(self, number: int, line: str, places: Sequence[int]) -> list[float]:
        row = next(csv.reader([line]))
        if len(row) != len(self.names):
            raise bad_file(f"{self.path}, line {number}: {len(row)} values under a header of {len(self.names)} columns")
        return [self._number(number, self.names[place], row[place]) for place in places]

    def _number(self, line: int, name: str, text: str) -> float:
        where = f"{self.path}, line {line}, column {name!r}: {text[:100]!r}"
        try:
            value = float(text)
        except ValueError as error:
            raise bad_file(f"{where} is no number; --without {name!r} leaves the column out") from error
        if math.isinf(value) and "inf" not in text.lower():
            raise bad_file(f"{where} {TOO_LARGE}; --without {name!r} leaves the column out")
        if _WHOLE.fullmatch(text.strip()) and int(text) != value:
            raise bad_file(f"{where} {TOO_LONG}; --without {name!r} leaves the column out")
        return value
