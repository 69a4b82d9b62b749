"""Nulls among the values of fields that may be null. The rows of a batch are arrays of numbers, which have no null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, Rows
from streams.codecs.avro import writer
from streams.codecs.avro.schema import Leaf

Nulls = Mapping[str, Array]
"""Field to which of its rows are null, bool `(n,)`; only fields that have some."""


def without_nulls(leaves: Sequence[Leaf], rows: Rows) -> tuple[Rows, Nulls]:
    """The rows with some number in place of every None, and where those were.

    Raises InvalidArgument (SCHEMA_MISMATCH) for a null that the schema does not take, or that nobody could read.
    """
    columns = _columns(leaves, rows)
    known = {leaf.name: leaf for leaf in leaves}
    nulls = {}
    for name, column in columns.items():
        where = nulls_of(column)
        if name in known and where.any():
            nulls[name] = where
            columns[name] = _filled(known[name], column, where)
    if not nulls:
        return rows, nulls
    return columns if isinstance(rows, Mapping) else columns[leaves[0].name], nulls


def nulls_of(column: Array) -> Array:
    """Which rows are None, bool `(n,)`."""
    if column.dtype != object or column.ndim != 1:
        return np.zeros(len(column), np.bool_)
    return np.array([value is None for value in column.tolist()], np.bool_)


def encode(leaves: Sequence[Leaf], arrays: Sequence[Array], nulls: Nulls) -> list[bytes]:
    """As the writer does; the rows that are null in the same fields are written together."""
    if not nulls:
        return writer.encode(leaves, arrays)
    patterns, numbers = np.unique(np.stack(list(nulls.values()), axis=1), axis=0, return_inverse=True)
    records = [b""] * len(arrays[0])
    for number, pattern in enumerate(patterns):
        which = np.flatnonzero(numbers.reshape(-1) == number)
        absent = {name for name, is_null in zip(nulls, pattern, strict=True) if is_null}
        written = writer.encode(leaves, [array[which] for array in arrays], absent)
        for index, record in zip(which.tolist(), written, strict=True):
            records[index] = record
    return records


def _columns(leaves: Sequence[Leaf], rows: Rows) -> dict[str, Array]:
    """By field; none where rows of numbers without names stand for several fields."""
    if isinstance(rows, Mapping):
        return {name: np.asarray(column) for name, column in rows.items()}
    return {leaves[0].name: rows} if len(leaves) == 1 else {}


def _filled(leaf: Leaf, column: Array, where: Array) -> Array:
    """The column with a number in place of each null, which is not written."""
    name = f"the field {leaf.name}" if leaf.name else "a row"
    if leaf.null_branch is None:
        raise _mismatch(f"{name} is null, where the schema has {leaf.kind}, and no union of it with null")
    if leaf.default is None:
        raise _mismatch(f"{name} is null, which nobody could read: the schema has no default for it")
    values = [np.asarray(value) for value in column[~where].tolist()]
    # In the type of the others, so that a null makes no float of whole numbers.
    stand_in = np.zeros_like(values[0], shape=leaf.default.shape) if values else leaf.default
    try:
        return np.stack([stand_in if value is None else np.asarray(value) for value in column.tolist()])
    except ValueError:
        raise _mismatch(f"{name} has values of different shapes; that of a null is its default's") from None


def _mismatch(message: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_SCHEMA_MISMATCH, message)
