"""The records of a file: which columns are samples and labels, and as what they are sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer

from cli.files import UNNAMED, Array, Columns, Layout, RecordFile, open_file
from cli.files.record_file import COMMAS, bad_file
from cli.files.survey import Column, first_record, survey, unchanged
from streams.codecs import Rows
from streams.codecs.fitting import fits, misfit
from streams.codecs.raw import RawCodec


@dataclass(frozen=True)
class Wishes:
    """What is asked of a part of the records, the samples or the labels.

    columns: their names; none: what the file suggests.
    data_type: one type for all of them, by a name that RAW knows; empty: what fits.
    reshape: makes one array of all columns; numbers separated by blanks.
    by_name: keep columns with names apart, each in its own type.
    plain_names: letters, digits and `_` in their names, whatever the file has: `mean radius` is `mean_radius`.
    """

    columns: Sequence[str] = ()
    data_type: str = ""
    reshape: str = ""
    by_name: bool = False
    plain_names: bool = False


@dataclass(frozen=True)
class Part:
    """The samples or the labels of a file: columns by name, or one array of them all.

    names, dtypes: of each column when it is sent; of one type for one array.
    shape: of a row of one array; None where columns stay apart.
    """

    path: Path
    columns: tuple[Column, ...]
    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]
    shape: tuple[int, ...] | None

    def rows(self, values: Columns) -> Rows:
        """`(n, *shape)`, or an array `(n, ...)` by the name of each column."""
        typed = [
            unchanged(self.path, values[column.name], dtype)
            for column, dtype in zip(self.columns, self.dtypes, strict=True)
        ]
        if self.shape is None:
            return dict(zip(self.names, typed, strict=True))
        if len(typed) == 1:
            return typed[0].reshape(len(typed[0]), *self.shape)
        return np.concatenate([each.reshape(len(each), -1) for each in typed], axis=1).reshape(-1, *self.shape)


@dataclass(frozen=True)
class Batch:
    """Some records. labels: None where the records have none."""

    samples: Rows
    labels: Rows | None

    def __len__(self) -> int:
        return row_count(self.samples)

    def first(self, count: int) -> Batch:
        return Batch(_first(self.samples, count), None if self.labels is None else _first(self.labels, count))


@dataclass(frozen=True)
class FileRecords:
    """The records of a file, known to be numbers from the first to the last. `len` is how many there are."""

    file: RecordFile = field(repr=False)
    samples: Part
    labels: Part | None
    count: int

    def __len__(self) -> int:
        return self.count

    def batches(self) -> Iterator[Batch]:
        """All records, some thousands at a time: the file is read again, never kept."""
        names = [column.name for part in self._parts() for column in part.columns]
        for values in self.file.read(list(dict.fromkeys(names))):
            yield Batch(self.samples.rows(values), None if self.labels is None else self.labels.rows(values))

    def _parts(self) -> list[Part]:
        return [self.samples] if self.labels is None else [self.samples, self.labels]


@dataclass(frozen=True)
class Records:
    """A whole file in memory. samples: (n, …); labels: (n, …) or None."""

    samples: Array
    labels: Array | None

    def __len__(self) -> int:
        return len(self.samples)


def look_at(
    path: Path, samples: Wishes, labels: Wishes, without: Sequence[str] = (), layout: Layout = COMMAS
) -> FileRecords:
    """The records of a file, after all of them were read once.

    without: columns that are neither samples nor labels.
    layout: of a CSV file.
    Raises BadParameter where a label is also something else; InvalidArgument: no such column, no
    number (with its place), a type that does not hold the numbers.
    """
    file = open_file(path, layout)
    sample_names, label_names = _chosen(file, samples.columns, labels.columns, without)
    found = survey(file, [*sample_names, *label_names])
    _check_labels(file, [found.columns[name] for name in label_names])
    return FileRecords(
        file,
        _part(file, [found.columns[name] for name in sample_names], samples, "sample"),
        _part(file, [found.columns[name] for name in label_names], labels, "label") if label_names else None,
        found.count,
    )


def read_records(path: Path, *, label: str = "", samples: str = "", layout: Layout = COMMAS) -> Records:
    """All records of a file as arrays. Raises what `look_at` raises."""
    wanted = Wishes([samples] if samples else []), Wishes([label] if label else [])
    records = look_at(path, *wanted, layout=layout)
    batches = list(records.batches())
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Records(_together([batch.samples for batch in batches]), _together(labels) if labels else None)


def row_count(rows: Rows) -> int:
    return len(rows if isinstance(rows, np.ndarray) else next(iter(rows.values())))


def _chosen(
    file: RecordFile, samples: Sequence[str], labels: Sequence[str], without: Sequence[str]
) -> tuple[list[str], list[str]]:
    if not file.names:
        raise bad_file(f"{file.path} is empty: it has no columns")
    for name in (*samples, *labels, *without):
        if name not in file.names:
            raise bad_file(f"{file.path} has no column {name!r}; it has: {_told(file)}")
    for option, others in (("--samples", samples), ("--without", without)):
        if twice := next((name for name in labels if name in others), None):
            raise typer.BadParameter(f"--label and {option} both name {twice!r}; a column is one of them")
    suggested_samples, suggested_labels = (samples, labels) if samples and labels else file.suggested()
    chosen_labels = [name for name in labels or suggested_labels if name not in (*samples, *without)]
    chosen = list(samples) or [name for name in suggested_samples if name not in (*chosen_labels, *without)]
    if not chosen:
        raise bad_file(f"{file.path}: say with --samples which columns to take; it has: {_told(file)}")
    return chosen, chosen_labels


def _check_labels(file: RecordFile, columns: Sequence[Column]) -> None:
    """A sample may lack a number, a label may not."""
    for column in columns:
        if not column.finite:
            where, value = first_record(file, column.name, lambda value: not np.isfinite(value).all())
            number = value[~np.isfinite(value)].flat[0]
            raise bad_file(f"{where}: {number} is no label; leave the record out")


def _told(file: RecordFile) -> str:
    if file.names == (UNNAMED,):
        return "arrays without names"
    return ", ".join(file.names)


def _part(file: RecordFile, columns: Sequence[Column], wishes: Wishes, what: str) -> Part:
    if wishes.by_name and not wishes.reshape and _are_fields(file, columns, what):
        names = _plain_names(file, columns) if wishes.plain_names else [column.name for column in columns]
        dtypes = [_own_type(file, column, wishes, what) for column in columns]
        return Part(file.path, tuple(columns), tuple(names), tuple(dtypes), None)
    dtypes = [_one_type(file, columns, wishes, what)] * len(columns)
    shape = _row_shape(file, columns, wishes.reshape, what)
    return Part(file.path, tuple(columns), tuple(column.name for column in columns), tuple(dtypes), shape)


def _plain_names(file: RecordFile, columns: Sequence[Column]) -> list[str]:
    """As Avro and protobuf have them. Raises InvalidArgument where two columns would have the same."""
    names = [re.sub(r"[^A-Za-z0-9_]", "_", column.name) for column in columns]
    names = [f"_{name}" if not name or name[0].isdigit() else name for name in names]
    for place, name in enumerate(names):
        if (other := names.index(name)) < place:
            raise bad_file(
                f"{file.path}: the columns {columns[other].name!r} and {columns[place].name!r} would both be the field "
                f"{name}; give them names of letters, digits and _"
            )
    return names


def _are_fields(file: RecordFile, columns: Sequence[Column], what: str) -> bool:
    """One array of an NPZ file is what is sent, and one label is no record of one field."""
    if columns[0].name == UNNAMED:
        return False
    return len(columns) > 1 or (what == "sample" and file.has_fields)


def _own_type(file: RecordFile, column: Column, wishes: Wishes, what: str) -> np.dtype[Any]:
    if wishes.data_type:
        return _wished_type(file, [column], wishes, what)
    return column.dtype if file.typed else column.narrowest(fraction=np.float64)


def _one_type(file: RecordFile, columns: Sequence[Column], wishes: Wishes, what: str) -> np.dtype[Any]:
    if wishes.data_type:
        return _wished_type(file, columns, wishes, what)
    if file.typed:
        return np.result_type(*[column.dtype for column in columns])
    if what == "sample":
        return np.result_type(*[column.exact_float() for column in columns])
    return np.result_type(*[column.narrowest(fraction=np.float32) for column in columns])


def _wished_type(file: RecordFile, columns: Sequence[Column], wishes: Wishes, what: str) -> np.dtype[Any]:
    dtype = RawCodec.from_config({"data_type": wishes.data_type}).sample_spec.dtype
    option = "--data-type" if what == "sample" else "--label-type"
    if dtype.kind == "S":
        raise bad_file(
            f"{file.path}: its columns are numbers, and {wishes.data_type} is for texts; choose another {option}"
        )
    for column in columns:
        if not column.fits(dtype):
            where, value = first_record(file, column.name, lambda value: not fits(value, dtype))
            raise bad_file(f"{where}: {misfit(value, dtype)}; choose another {option}")
    return dtype


def _row_shape(file: RecordFile, columns: Sequence[Column], reshape: str, what: str) -> tuple[int, ...]:
    elements = sum(math.prod(column.shape) for column in columns)
    if not reshape:
        return columns[0].shape if len(columns) == 1 and (what == "label" or columns[0].shape) else (elements,)
    shape = RawCodec.from_config({"data_type": "uint8", "data_reshape": reshape}).sample_spec.shape
    known = math.prod(length for length in shape if length != -1)
    if elements % known or (-1 not in shape and elements != known):
        raise bad_file(f"{file.path}: a {what} has {elements} numbers, which do not make the shape {reshape!r}")
    return tuple(elements // known if length == -1 else length for length in shape)


def _first(rows: Rows, count: int) -> Rows:
    if isinstance(rows, np.ndarray):
        return rows[:count]
    return {name: array[:count] for name, array in rows.items()}


def _together(rows: Sequence[Rows]) -> Array:
    return np.concatenate([each for each in rows if isinstance(each, np.ndarray)])
