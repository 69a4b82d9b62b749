"""Files of JSON lines: an object of numbers in each line, or an array."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cli.files.record_file import EXACT_BELOW, ROWS_AT_ONCE, TOO_LARGE, TOO_LONG, UNNAMED, Array, Columns, bad_file

# A line with its number in the file.
Line = tuple[int, Any]


class JsonLinesFile:
    """The fields of the first line's object are the columns; every other line has them too.

    A line may have more where not all columns are wanted: then somebody has chosen.
    """

    typed = False
    has_fields = True
    kind = "field"

    def __init__(self, path: Path) -> None:
        self.path = path
        first = next(self._lines(), None)
        if first is None:
            raise bad_file(f"{path} has no lines")
        _, record = first
        self.names = tuple(record) if isinstance(record, dict) else (UNNAMED,)
        if not self.names:
            raise bad_file(f"{path}, line {first[0]}: an object without fields")

    def place(self, number: int) -> str:
        lines = (line for line, _ in self._lines())
        return f"line {next(islice(lines, number - 1, None))}"

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.names, ()

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        lines = self._lines()
        takes_all = UNNAMED not in names and set(names) == set(self.names)
        while chunk := list(islice(lines, ROWS_AT_ONCE)):
            if takes_all:
                self._check_no_more(chunk)
            yield {name: self._column(name, chunk) for name in names}

    def _lines(self) -> Iterator[Line]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, self._parsed(number, line)

    def _parsed(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise bad_file(f"{self.path}, line {number}: no JSON ({error})") from error

    def _column(self, name: str, lines: Sequence[Line]) -> Array:
        values = [self._value(name, number, record) for number, record in lines]
        column = as_numbers(values)
        if column is None:
            return self._odd_one(name, lines, values)
        if column.dtype.kind != "b" and not ((column > -EXACT_BELOW) & (column < EXACT_BELOW)).all():
            self._check_large(name, lines, values)
        return column

    def _value(self, name: str, number: int, record: Any) -> Any:
        if name == UNNAMED:
            if not isinstance(record, Mapping):
                return record
            raise bad_file(f"{self.path}, line {number}: an object, where the lines before are arrays")
        if not isinstance(record, Mapping):
            raise bad_file(f"{self.path}, line {number}: no object, as the lines before are")
        if name not in record:
            raise bad_file(f"{self.path}, line {number}: it has no field {name!r}; the first line has")
        return record[name]

    def _check_no_more(self, lines: Sequence[Line]) -> None:
        """What would not be sent is said before anything is."""
        known = set(self.names)
        for number, record in lines:
            if isinstance(record, Mapping) and record.keys() > known:
                more = min(record.keys() - known)
                raise bad_file(
                    f"{self.path}, line {number}: the first line has no field {more!r}; choose with --samples which"
                    " fields to send"
                )

    def _check_large(self, name: str, lines: Sequence[Line], values: Sequence[Any]) -> None:
        """Whole numbers that no float64 holds are refused, as those of CSV: other values may make it one."""
        for (line, _), value in zip(lines, values, strict=True):
            for number in np.array(value, object).ravel():
                if problem := _problem_of(number):
                    hint = f"; --without {name!r} leaves the {self.kind} out" if name else ""
                    raise bad_file(f"{self.path}, line {line}{_field(name)}: {problem}{hint}")

    def _odd_one(self, name: str, lines: Sequence[Line], values: Sequence[Any]) -> Array:
        """Say which value is no number, or has another shape than the first."""
        field = _field(name)
        for (number, _), value in zip(lines, values, strict=True):
            here = as_numbers([value])
            where = f"{self.path}, line {number}{field}: {str(value)[:100]!r}"
            if here is None:
                hint = f"; --without {name!r} leaves the field out" if name else ""
                raise bad_file(f"{where} is no number of 64 bits and no array of such{hint}")
            first = as_numbers([values[0]])
            if first is not None and here.shape != first.shape:
                raise bad_file(f"{where} has the shape {here.shape[1:]}, where others have {first.shape[1:]}")
        raise bad_file(f"{self.path}, line {lines[0][0]}{field}: numbers that no 64 bits hold")


def as_numbers(values: Sequence[Any]) -> Array | None:
    """`(n, ...)` of bool, int64, uint64 or float64; None where they are none, or of several shapes."""
    try:
        column = np.array(values)
    except (ValueError, OverflowError):
        return None
    return column if column.dtype.kind in "biuf" and column.size else None


def _problem_of(number: float) -> str:
    # JSON has no infinities: each is a number with too large an exponent.
    if isinstance(number, float):
        return f"a number {TOO_LARGE}" if math.isinf(number) else ""
    return "" if int(float(number)) == number else f"{str(number)!r} {TOO_LONG}"


def _field(name: str) -> str:
    return f", field {name!r}" if name else ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
