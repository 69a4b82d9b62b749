"""What a column holds, known after all of it was read once: its type is decided before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.files.record_file import UNNAMED, Array, RecordFile, bad_file
from headrace.errors import InvalidArgument
from streams.codecs.fitting import fits

# From here on a float32 does not hold every whole number.
_FLOAT32_EXACT_BELOW = 2**24


@dataclass(frozen=True)
class Column:
    """One column of a file.

    shape: of one value, without the batch.
    dtype: the type that holds all of its values.
    low, high: of the finite values.
    whole: no value has a fraction, and all are finite.
    finite: no value is NaN or an infinity.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float
    high: float
    whole: bool
    finite: bool

    def fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether the type holds the values; of a float nothing but precision is asked."""
        if dtype.kind != "f" and not self.whole:
            return False
        return all(fits(np.array(limit), dtype) for limit in (self.low, self.high))

    def narrowest(self, *, fraction: type[np.floating[Any]]) -> np.dtype[Any]:
        """A type for numbers that come as text: int32, int64 or uint64 for whole ones, else `fraction`, or float64."""
        if self.dtype.kind == "b":
            return self.dtype
        types = (np.dtype(one) for one in (np.int32, np.int64, np.uint64, fraction))
        return next((one for one in types if self.fits(one)), np.dtype(np.float64))

    def exact_float(self) -> np.dtype[Any]:
        """float32, unless the column has whole numbers that it would round to others, or numbers too large for it."""
        exact = not self.whole or max(-self.low, self.high) <= _FLOAT32_EXACT_BELOW
        return np.dtype(np.float32 if exact and self.fits(np.dtype(np.float32)) else np.float64)


@dataclass(frozen=True)
class Survey:
    """The columns of a file, and how many records it has."""

    columns: dict[str, Column]
    count: int


def survey(file: RecordFile, names: Iterable[str]) -> Survey:
    """Read these columns from start to end. Raises InvalidArgument naming the place of what is no number."""
    wanted = list(dict.fromkeys(names))
    parts: dict[str, list[Column]] = {name: [] for name in wanted}
    count = 0
    for columns in file.read(wanted):
        count += len(next(iter(columns.values())))
        for name in wanted:
            before = parts[name]
            parts[name] = [_joined(file.path, [*before, _column(name, columns[name])])]
    if not count:
        under = "no rows under its header" if not file.typed and file.names != (UNNAMED,) else "no records"
        raise bad_file(f"{file.path} has {under}")
    return Survey({name: columns[0] for name, columns in parts.items()}, count)


def first_record(file: RecordFile, name: str, is_wrong: Callable[[Array], bool]) -> tuple[str, Array]:
    """Where the first record of a column is that is wrong, and its value with a batch of one; there must be one."""
    number = 0
    for columns in file.read([name]):
        for value in columns[name]:
            number += 1
            if is_wrong(value[np.newaxis]):
                of = f", {file.kind} {name!r}" if name else ""
                return f"{file.path}, {file.place(number)}{of}", value[np.newaxis]
    raise changed(file.path)


def changed(path: Path) -> InvalidArgument:
    """What was found in a file is not there any more."""
    return bad_file(f"{path} has changed while it was read; send it again when nobody writes to it")


def unchanged(path: Path, values: Array, dtype: np.dtype[Any]) -> Array:
    """The values in another type. Raises InvalidArgument where it does not hold them: the survey promised that."""
    if not fits(values, dtype):
        raise changed(path)
    return values.astype(dtype, copy=False)


def _column(name: str, values: Array) -> Column:
    finite = values if values.dtype.kind in "biu" else values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    whole = finite.size == values.size and (values.dtype.kind in "biu" or bool((finite == np.floor(finite)).all()))
    return Column(name, values.shape[1:], values.dtype, _exact(low), _exact(high), whole, finite.size == values.size)


def _exact(value: Any) -> float:
    """A Python number: whole ones of 64 bits stay what they are."""
    number: float = int(value) if isinstance(value, np.integer | np.bool_) else float(value)
    return number


def _joined(path: Path, parts: list[Column]) -> Column:
    first, last = parts[0], parts[-1]
    if first.shape != last.shape:
        of = f", column {first.name!r}" if first.name else ""
        raise bad_file(f"{path}{of}: some values have the shape {last.shape}, where others have {first.shape}")
    return Column(
        first.name, first.shape, np.result_type(first.dtype, last.dtype),
        min(first.low, last.low), max(first.high, last.high), first.whole and last.whole,
        first.finite and last.finite,
    )  # fmt: skip
