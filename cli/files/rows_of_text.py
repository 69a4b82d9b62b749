"""CSV files of numbers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from cli.files.record_file import (
    COMMAS,
    EXACT_BELOW,
    ROWS_AT_ONCE,
    TOO_LARGE,
    TOO_LONG,
    Array,
    Columns,
    Layout,
    bad_file,
)

_WHOLE = re.compile(r"[+-]?[0-9]+")

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# A line with its number in the file.
Line = tuple[int, str]


class CsvFile:
    """Numbers between delimiters, under a line with the columns' names."""

    typed = False
    has_fields = True
    kind = "column"

    def __init__(self, path: Path, layout: Layout = COMMAS) -> None:
        self.path = path
        self._delimiter = layout.delimiter
        with self._text() as file:
            reader = csv.reader(file, delimiter=layout.delimiter)
            first = next(reader, [])
            self._header_lines = reader.line_num if layout.header else 0
        self._check_first(first, layout)
        # pandas writes its index under no name.
        names = first if layout.header else [f"c{place}" for place in range(1, len(first) + 1)]
        self.names = tuple(name.strip() or f"column_{place}" for place, name in enumerate(names, 1))
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

    def _check_first(self, first: Sequence[str], layout: Layout) -> None:
        """Raise InvalidArgument where the first line says that the file has another layout."""
        others = [one for one in ";\t" if len(first) == 1 and one in first[0]]
        if others:
            name = "tab" if others[0] == "\t" else repr(others[0])
            raise bad_file(f"{self.path}: its first line is one column, {first[0][:100]!r}; try --delimiter {name}")
        if layout.header and first and all(map(_is_number, first)):
            raise bad_file(
                f"{self.path}: its header is made of numbers, as {first[0][:100]!r}; if there is no header, "
                "--no-header names the columns c1, c2, …"
            )

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        """The file. Raises InvalidArgument where it is no UTF-8."""
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            try:
                yield file
            except UnicodeDecodeError as error:
                found = "UTF-16" if error.object[:2] in _UTF16_MARKS else "of another encoding, as Latin-1"
                raise bad_file(f"{self.path} is {found}; save it as UTF-8") from error

    @contextmanager
    def _rows(self) -> Iterator[Iterator[Line]]:
        """The lines under the header, but for blank ones."""
        with self._text() as file:
            lines = islice(zip(count(1), file, strict=False), self._header_lines, None)
            yield ((number, line) for number, line in lines if line.strip())

    def _numbers(self, lines: Sequence[Line], places: Sequence[int]) -> Array:
        """`(n, len(places))`, float64. What numpy cannot read as a table is looked at value by value."""
        try:
            table = np.loadtxt(
                [line for _, line in lines],
                np.float64,
                comments=None,
                delimiter=self._delimiter,
                quotechar='"',
                ndmin=2,
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
        row = next(csv.reader([line], delimiter=self._delimiter))
        if len(row) != len(self.names):
            raise bad_file(f"{self.path}, line {number}: {len(row)} values under a header of {len(self.names)} columns")
        return [self._number(number, self.names[place], row[place]) for place in places]

    def _number(self, line: int, name: str, text: str) -> float:
        where = f"{self.path}, line {line}, column {name!r}: {text[:100]!r}"
        try:
            value = _parsed(text)
        except ValueError as error:
            raise bad_file(f"{where} is no number; --without {name!r} leaves the column out") from error
        if math.isinf(value) and "inf" not in text.lower():
            raise bad_file(f"{where} {TOO_LARGE}; --without {name!r} leaves the column out")
        if _WHOLE.fullmatch(text.strip()) and int(text) != value:
            raise bad_file(f"{where} {TOO_LONG}; --without {name!r} leaves the column out")
        return value


def _parsed(text: str) -> float:
    """Raises ValueError, also for the `1_000` and the digits of other scripts that Python takes."""
    if "_" in text or not text.strip().isascii():
        raise ValueError(text)
    return float(text)


def _is_number(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True
