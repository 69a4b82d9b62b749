"""What people have at hand (arrays, lists, dictionaries, structured arrays) as rows for a codec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, Rows


def rows_of(samples: Any) -> Rows:
    """Of anything that numpy makes an array `(n, ...)` of; arrays by name of a mapping name → column, of a structured
    array and of a list of dictionaries. A dictionary in a dictionary gives names with dots.

    Raises InvalidArgument (SCHEMA_MISMATCH) where the columns are not alike.
    """
    if isinstance(samples, Mapping):
        return _columns({name: array_of(column) for name, column in _flat(samples)})
    if isinstance(samples, Sequence) and len(samples) and isinstance(samples[0], Mapping):
        return _columns(_turned(samples))
    array = array_of(samples)
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    return array


def row_of(sample: Any) -> Rows:
    """One sample as rows, of which there is one. Raises InvalidArgument (SCHEMA_MISMATCH) for one without fields."""
    if isinstance(sample, Mapping):
        return _some({name: array_of(value)[np.newaxis] for name, value in _flat(sample)})
    return rows_of(array_of(sample)[np.newaxis])


def array_of(value: Any) -> Array:
    """Raises InvalidArgument (SCHEMA_MISMATCH) for lists whose parts are of different lengths."""
    try:
        return np.asarray(value)
    except ValueError as error:
        if isinstance(value, Sequence) and any(part is None for part in value):
            return _objects(value)
        raise mismatch(f"the values make no array: their lists are not equally long ({error})") from None


def _objects(values: Sequence[Any]) -> Array:
    """Lists with nulls between them: `(n,)`, for a format that takes nulls."""
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def count(rows: Rows) -> int:
    """How many rows there are."""
    if isinstance(rows, Mapping):
        return len(next(iter(rows.values()))) if rows else 0
    if not rows.ndim:
        raise mismatch(f"{rows[()]!r} is one value, where rows are needed; `send` takes one sample")
    return len(rows)


def cut(rows: Rows, start: int, stop: int) -> Rows:
    """The rows `[start, stop)`."""
    if isinstance(rows, Mapping):
        return {name: column[start:stop] for name, column in rows.items()}
    return rows[start:stop]


def mismatch(message: str, **facts: Any) -> InvalidArgument:
    """A sample or label that is not like the others of its stream."""
    return InvalidArgument(error_pb2.REASON_SCHEMA_MISMATCH, message, **facts)


def _columns(columns: Mapping[str, Array]) -> Mapping[str, Array]:
    lengths = {name: len(column) if column.ndim else -1 for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        told = ", ".join(f"{name}: {length if length >= 0 else 'a single value'}" for name, length in lengths.items())
        raise mismatch(f"every column must have as many rows as the others, not {told}")
    return _some(columns)


def _some(columns: Mapping[str, Array]) -> Mapping[str, Array]:
    """Without any, nobody could tell how many rows there are, and none would be sent."""
    if not columns:
        raise mismatch("there are no fields; a record needs one at least")
    return columns


def _turned(samples: Sequence[Mapping[Any, Any]]) -> Mapping[str, Array]:
    """Columns of dictionaries that all have the names of the first one."""
    flat = [dict(_flat(sample)) for sample in samples]
    names = flat[0]
    for number, sample in enumerate(flat):
        if sample.keys() != names.keys():
            raise mismatch(f"sample {number} has the fields {', '.join(sample)}, where others have {', '.join(names)}")
    return {name: array_of([sample[name] for sample in flat]) for name in names}


def _flat(fields: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
