"""Avro records of which only the bytes between fixed places differ: one view of the bytes of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.codecs import Array, Spec
from streams.codecs.avro.schema import Leaf
from streams.codecs.avro.writer import zigzag_bytes
from streams.codecs.layout import Layout
from streams.codecs.records import Records, flat, joined


class FixedForm:
    """The usual form of a schema that leaves no place open: no varints, no nulls, and every length is known."""

    def __init__(self, leaves: Sequence[Leaf], layout: Layout) -> None:
        self._leaves = leaves
        self._layout = layout
        self._shapes = [wire_shape(leaf, column.spec) for leaf, column in zip(leaves, layout.columns, strict=True)]
        self._wire = together(leaves, self._shapes)
        kinds = {leaf.kind for leaf in leaves}
        self._plain = wire_type(leaves[0]) if len(kinds) == 1 and not any(map(_has_checks, leaves)) else None

    @classmethod
    def of(cls, leaves: Sequence[Leaf], layout: Layout) -> FixedForm | None:
        """None where the records have no such form."""
        if not layout.is_known or any(leaf.null_branch is not None or leaf.is_varint for leaf in leaves):
            return None
        return cls(leaves, layout)

    def read(self, records: Records, sizes: Array) -> tuple[list[Array], Array]:
        """The columns of the records in this form, and which they are."""
        alike = np.flatnonzero(sizes == self._wire.itemsize)
        if not len(alike):
            return [], alike
        chosen = records if len(alike) == len(records) else [records[index] for index in alike.tolist()]
        view = np.frombuffer(b"".join(chosen), self._wire)  # type: ignore[arg-type]  # no None has a size
        usual = np.ones(len(view), np.bool_)
        every = enumerate(zip(self._leaves, self._shapes, strict=True))
        columns = [opened(view[str(index)], leaf, shape, usual) for index, (leaf, shape) in every]
        if usual.all():
            return columns, alike
        return [column[usual] for column in columns], alike[usual]

    def rows(self, records: Records) -> Array | None:
        """The rows, where every record is numbers of one type and nothing else. None: it takes `read`."""
        if self._plain is None or (whole := joined(records, self._wire.itemsize)) is None:
            return None
        numbers: Array = np.frombuffer(whole, self._plain)
        spec = self._layout.spec
        return numbers.reshape(-1, *spec.shape).astype(spec.dtype, copy=False)


def _has_checks(leaf: Leaf) -> bool:
    """Whether there are bytes that have to have certain values."""
    return leaf.depth > 0 or leaf.kind in ("boolean", "bytes")


def wire_shape(leaf: Leaf, spec: Spec) -> tuple[int, ...]:
    """The lengths as they stand in the records: a vector may become a row of several dimensions."""
    dimensions = len(leaf.column.spec.shape)
    return (math.prod(spec.shape),) if dimensions == 1 else spec.shape


def together(leaves: Sequence[Leaf], shapes: Sequence[tuple[int, ...]]) -> np.dtype[Any]:
    """Values one after the other, each in the usual form; their names are "0", "1", …"""
    usual = [_usual(leaf, shape) for leaf, shape in zip(leaves, shapes, strict=True)]
    return np.dtype([(str(index), *form) for index, form in enumerate(usual)])


def _usual(leaf: Leaf, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The numpy type, and its shape, of the value as writers put it: arrays in one block."""
    if leaf.kind == "bytes":
        return (np.dtype([("head", np.uint8, (len(zigzag_bytes(shape[0])),)), ("items", np.uint8, shape)]),)
    if not leaf.depth:
        return (wire_type(leaf), shape)
    inner: Any = wire_type(leaf)
    for length in reversed(shape):
        head = len(zigzag_bytes(length))
        inner = np.dtype([("head", np.uint8, (head,)), ("items", inner, (length,)), ("end", np.uint8)])
    return (inner,)


def wire_type(leaf: Leaf) -> np.dtype[Any]:
    return np.dtype(np.uint8) if leaf.kind == "boolean" else leaf.dtype.newbyteorder("<")


def opened(view: Array, leaf: Leaf, shape: tuple[int, ...], usual: Array) -> Array:
    """The items of the value; `usual` becomes false where there is anything else than them in the usual form."""
    for length in shape if leaf.kind == "bytes" or leaf.depth else ():
        head = np.frombuffer(zigzag_bytes(length), np.uint8)
        usual &= everywhere(view["head"] == head)
        if leaf.depth:
            usual &= everywhere(view["end"] == 0)
        view = view["items"]
    if leaf.kind == "boolean":
        usual &= everywhere(view <= 1)
    return view


def everywhere(true: Array) -> Array:
    every: Array = np.asarray(flat(true).all(axis=1))
    return every
