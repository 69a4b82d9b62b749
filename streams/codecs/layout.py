"""The columns of records with fields, and the one row that they make together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, Field, Rows, Spec
from streams.codecs.fitting import fits, misfit

# A row of more bytes is a mistake in a shape: no record of Kafka's is so large.
MAX_ROW_BYTES = 2**28
# Above this many fields a schema is a mistake or an attack: nested names can multiply.
MAX_FIELDS = 4096
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Column:
    """One field of the records, or all that a record is (then its name is empty)."""

    name: str
    spec: Spec

    def settled(self, shape: tuple[int, ...]) -> Column:
        return replace(self, spec=Spec(self.spec.dtype, shape))


@dataclass(frozen=True)
class Layout:
    """The columns in the order of the row."""

    columns: tuple[Column, ...]

    @cached_property
    def is_known(self) -> bool:
        return all(column.spec.is_known for column in self.columns)

    @cached_property
    def is_named(self) -> bool:
        return self.columns[0].name != ""

    @cached_property
    def spec(self) -> Spec:
        """Of the row: one column as it is; several flat, one after the other, in a type that holds them all."""
        if len(self.columns) == 1:
            return self.columns[0].spec
        dtype = np.result_type(*(column.spec.dtype for column in self.columns))
        return Spec(dtype, (sum(map(_elements, self.columns)) if self.is_known else -1,))

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Where they are in the row; none while a length is open, and where the records have no named fields."""
        if not self.is_named or not self.is_known:
            return ()
        fields, start = [], 0
        for column in self.columns:
            stop = start + _elements(column)
            fields.append(Field(column.name, column.spec, start, stop))
            start = stop
        return tuple(fields)

    def rows(self, arrays: Sequence[Array]) -> Array:
        """The rows of the columns' arrays `(n, *shape)`."""
        if len(arrays) == 1:
            return arrays[0].reshape(len(arrays[0]), *self.spec.shape).astype(self.spec.dtype, copy=False)
        count = len(arrays[0])
        rows = np.empty((count, *self.spec.shape), self.spec.dtype)
        sizes = list(map(_elements, self.columns))
        stops = list(itertools.accumulate(sizes))
        flat = [array.reshape(count, size) for array, size in zip(arrays, sizes, strict=True)]
        # Some at a time: the columns are often views of the same bytes, which then are still in the processor's cache.
        for first in range(0, count, _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            for array, size, stop in zip(flat, sizes, stops, strict=True):
                rows[some, stop - size : stop] = array[some]
        return rows

    def empty(self) -> Array:
        """No row. Open lengths are 0."""
        spec = self.spec
        return np.empty((0, *(max(0, length) for length in spec.shape)), spec.dtype)

    def split(self, rows: Rows) -> list[Array]:
        """The columns `(n, *shape)` of rows, or of arrays by field name, in their own types. Of a known layout only.

        Raises InvalidArgument (SCHEMA_MISMATCH) where they do not fit.
        """
        named = self._named(rows)
        counts = {len(array) for array in named}
        if len(counts) > 1:
            raise _mismatch(f"the fields have different numbers of rows: {sorted(counts)}")
        return [_fitted(column, array) for column, array in zip(self.columns, named, strict=True)]

    def _named(self, rows: Rows) -> list[Array]:
        if isinstance(rows, Mapping):
            names = [column.name for column in self.columns]
            if set(rows) != set(names):
                raise _mismatch(f"the fields are {', '.join(rows)}, where the records have {', '.join(names)}")
            return [np.asarray(rows[name]) for name in names]
        if len(self.columns) == 1:
            return [rows]
        flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        width = sum(map(_elements, self.columns))
        if flat.shape[1] != width:
            raise _mismatch(f"a row has {flat.shape[1]} numbers, where the fields have {width}")
        stops = np.cumsum([_elements(column) for column in self.columns])
        return np.split(flat, stops[:-1], axis=1)

    def settled(self, rows: Rows) -> Layout:
        """With the open shapes as the rows have them. Raises InvalidArgument (SCHEMA_MISMATCH)."""
        if self.is_known:
            return self
        named = self._named(rows) if isinstance(rows, Mapping) or len(self.columns) == 1 else None
        if named is None:
            raise _mismatch("rows of records with several fields of unknown length must be arrays by field name")
        return Layout(
            tuple(
                column if column.spec.is_known else column.settled(row_shape(column.name, array))
                for column, array in zip(self.columns, named, strict=True)
            )
        )


def checked(layout: Layout) -> Layout:
    """Raises ValueError where a row would be too large."""
    known = [column.spec for column in layout.columns if column.spec.is_known]
    size = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in known)
    if size > MAX_ROW_BYTES:
        raise ValueError(f"a row has {size} bytes; at most {MAX_ROW_BYTES} are read")
    return layout


def _elements(column: Column) -> int:
    return math.prod(column.spec.shape)


def _fitted(column: Column, array: Array) -> Array:
    """The array in the column's type and shape."""
    if math.prod(array.shape[1:]) != _elements(column):
        name = f"the field {column.name}" if column.name else "a row"
        raise _mismatch(f"{name} is {array.dtype.name} {array.shape[1:]}, where the records have {column.spec}")
    return cast(array, column.spec.dtype, column.name).reshape(len(array), *column.spec.shape)


def row_shape(name: str, array: Array) -> tuple[int, ...]:
    """Of each row. Raises InvalidArgument (SCHEMA_MISMATCH) where a row has no number: nobody could read it back."""
    shape = np.shape(array)[1:]
    if 0 in shape:
        raise _mismatch(f"{_what(name)} is empty: it has the shape {shape}")
    return shape


def cast(array: Array, dtype: np.dtype[Any], name: str = "") -> Array:
    """In that type; nothing but precision may be lost. Raises InvalidArgument (SCHEMA_MISMATCH)."""
    if not fits(array, dtype):
        raise _mismatch(
            f"{_what(name)} is {array.dtype.name}, where the records have {dtype.name}: {misfit(array, dtype)}"
        )
    return array.astype(dtype, copy=False)


def _what(name: str) -> str:
    return f"the field {name}" if name else "a row"


def _mismatch(message: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_SCHEMA_MISMATCH, message)


def shapes_of_config(config: Mapping[str, str], prefix: str, columns: Sequence[Column]) -> list[tuple[int, ...]] | None:
    """The shape of each column by `<prefix>_reshape` (one column) or `<prefix>_shapes` (several); None: not given.

    Raises ValueError saying what is wrong.
    """
    text = config.get(f"{prefix}_reshape", "").strip()
    if text and len(columns) == 1:
        return [parse_shape(text, " ")]
    texts = config.get(f"{prefix}_shapes", "").split()
    if not texts:
        return None
    if len(texts) != len(columns):
        raise ValueError(f"there are {len(texts)} shapes for {len(columns)} fields")
    return [parse_shape(text, "x") for text in texts]


def shapes_key(prefix: str, columns: Sequence[Column]) -> str:
    return f"{prefix}_reshape" if len(columns) == 1 else f"{prefix}_shapes"


def shapes_config(layout: Layout, prefix: str) -> dict[str, str]:
    """What `shapes_of_config` reads; empty while a length is open."""
    if not layout.is_known:
        return {}
    shapes = [column.spec.shape for column in layout.columns]
    if len(shapes) == 1:
        return {f"{prefix}_reshape": " ".join(map(str, shapes[0]))} if shapes[0] else {}
    if not any(shapes):
        return {}
    return {f"{prefix}_shapes": " ".join("x".join(map(str, shape)) or "-" for shape in shapes)}


def parse_shape(text: str, separator: str) -> tuple[int, ...]:
    """`28 28`, or `28x28`, or `-` for a single number. Raises ValueError."""
    if text == "-":
        return ()
    words = text.replace(",", " ").strip("()[] ").replace(separator, " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise ValueError(f"{text!r} is no shape; give numbers such as {separator.join(['28', '28'])}")
    shape = tuple(map(int, words))
    if 0 in shape or math.prod(shape) > MAX_ROW_BYTES or len(shape) > 32:
        raise ValueError(f"{text!r} is no shape of a row: lengths are from 1, their product at most {MAX_ROW_BYTES}")
    return shape


def wrong_config(format_name: str, bad: Sequence[FieldViolation], **facts: str) -> InvalidArgument:
    """The error (INVALID_FORMAT) that names everything that is wrong with an input_config."""
    text = "; ".join(f"{one.field}: {one.description}" for one in bad)
    return InvalidArgument(
        error_pb2.REASON_INVALID_FORMAT,
        f"the input_config of {format_name} is wrong: {text}",
        fields=bad,
        retry_after_s=None,
        **facts,
    )


def object_of(names: Sequence[str]) -> Callable[[tuple[Any, ...]], Any]:
    """Makes the object of a row's values; names with dots are objects in it."""
    if not any("." in name for name in names):
        return lambda row: dict(zip(names, row, strict=True))
    paths = [name.split(".") for name in names]

    def nested(row: tuple[Any, ...]) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for path, value in zip(paths, row, strict=True):
            inner = whole
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
        return whole

    return nested
