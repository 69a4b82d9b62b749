"""Reads Avro records whose values stand at different places: value by value, each for all records at once.

Whatever the bytes are, time and memory stay in the order of their number.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from streams.codecs import Array
from streams.codecs.avro.blocks import BrokenBlocks, Walk
from streams.codecs.avro.cursor import Cursor
from streams.codecs.avro.fixed import everywhere, opened, together, wire_shape, wire_type
from streams.codecs.avro.schema import Leaf
from streams.codecs.layout import Layout
from streams.codecs.records import Records


def in_steps(leaves: Sequence[Leaf], layout: Layout, records: Records, rest: Array) -> StepReader:
    """A reader of the records with these numbers."""
    return StepReader(leaves, layout, Cursor.over([records[index] or b"" for index in rest.tolist()], rest))


class StepReader:
    """Follows the records. Every value of theirs is read for all of them before the next value is."""

    def __init__(self, leaves: Sequence[Leaf], layout: Layout, cursor: Cursor) -> None:
        self._leaves = leaves
        self.layout = layout
        self._cursor = cursor
        self._columns: list[tuple[Array, Array]] = []

    @property
    def rows(self) -> Array:
        return self._cursor.rows

    @property
    def reasons(self) -> dict[int, str]:
        return self._cursor.reasons

    def read(self) -> list[Array]:
        """The columns of the records that are good to the end, in types that hold theirs."""
        for kind, group in itertools.groupby(self._leaves, _read_together):
            together = list(group)
            if kind == "varints":
                self._add_varints(together)
            elif kind == "fixed":
                self._add_fixed(together)
            else:
                for leaf in together:
                    self._add(self._value(self._cursor, leaf))
        left = self._cursor.ends - self._cursor.at
        self._cursor.fail(left > 0, lambda place: f"{left[place]} bytes are left after its last field")
        return [
            values if len(rows) == len(self.rows) else values[np.searchsorted(rows, self.rows)]
            for rows, values in self._columns
        ]

    def _add(self, values: Array) -> None:
        self._columns.append((self.rows, values))

    def _add_varints(self, leaves: list[Leaf]) -> None:
        numbers = self._cursor.varints(len(leaves), _names(leaves))
        limits = np.array([_limits(leaf) for leaf in leaves])
        if ((numbers < limits[:, 0]) | (numbers > limits[:, 1])).any():
            for index, leaf in enumerate(leaves):
                numbers = _in_range(self._cursor, numbers, numbers[:, index], leaf)
        for index in range(len(leaves)):
            self._add(numbers[:, index])

    def _add_fixed(self, leaves: list[Leaf]) -> None:
        shapes = [(leaf.size,) if leaf.kind == "fixed" else () for leaf in leaves]
        wire = together(leaves, shapes)
        view = self._cursor.bytes(wire.itemsize, _names(leaves)).view(wire).reshape(-1)
        for index, leaf in enumerate(leaves):
            if leaf.kind == "boolean":
                view = _booleans(self._cursor, view, view[str(index)], leaf)
        for index in range(len(leaves)):
            self._add(view[str(index)])

    def _value(self, cursor: Cursor, leaf: Leaf, *, in_union: bool = False) -> Array:
        """The values `(len(cursor.rows), …)` of one leaf."""
        if leaf.null_branch is not None and not in_union:
            return self._nullable(cursor, leaf)
        if leaf.depth:
            return self._array(cursor, leaf)
        if leaf.kind == "bytes":
            return self._bytes(cursor, leaf)
        if leaf.is_varint:
            numbers = cursor.varints(1, _names([leaf]))
            return _in_range(cursor, numbers, numbers[:, 0], leaf)[:, 0]
        shape = (leaf.size,) if leaf.kind == "fixed" else ()
        wire = together([leaf], [shape])
        view: Array = cursor.bytes(wire.itemsize, _names([leaf])).view(wire).reshape(-1)["0"]
        if leaf.kind == "boolean":
            view = _booleans(cursor, view, view, leaf)
        return view

    def _nullable(self, cursor: Cursor, leaf: Leaf) -> Array:
        name = _names([leaf])
        branch = cursor.varints(1, name)[:, 0]
        unknown = (branch < 0) | (branch > 1)
        branch = cursor.without(unknown, lambda place: f"{name} is of the union's type {branch[place]}", branch)
        null = branch == leaf.null_branch
        if leaf.default is None:
            cursor.fail(null, lambda _: f"{name} is null, and the schema has no other default for it")
            return self._value(cursor, leaf, in_union=True)
        if not null.any():
            return self._value(cursor, leaf, in_union=True)
        some = cursor.where(~null)
        found = self._value(some, leaf, in_union=True)
        null = null[cursor.join(~null, some)]
        return self._with_default(cursor, leaf, null, found)

    def _with_default(self, cursor: Cursor, leaf: Leaf, null: Array, found: Array) -> Array:
        """The values that were found, and the default where the record has null."""
        assert leaf.default is not None
        shape = self._shape(leaf)
        if shape is None:
            shape = self._settle(leaf, leaf.default.shape) if leaf.default.size else None
        if shape is None or shape != leaf.default.shape:
            reason = f"{_names([leaf])} is null, and its default is {leaf.default.shape} where others are {shape}"
            cursor.fail(null, lambda _: reason)
            return found
        values = np.empty((len(null), *shape), leaf.dtype)
        values[null] = leaf.default
        if len(found):  # where none is found, its shape may still be open
            values[~null] = found
        return values

    def _bytes(self, cursor: Cursor, leaf: Leaf) -> Array:
        name = _names([leaf])
        lengths = cursor.varints(1, name)[:, 0]
        left = cursor.ends - cursor.at
        wrong = (lengths < 0) | (lengths > left)
        lengths = cursor.without(
            wrong, lambda place: f"{name} is of {lengths[place]} bytes, where {left[place]} are left", lengths
        )
        shape = self._shape(leaf) or self._settle(leaf, _most_common((length,) for length in lengths.tolist()))
        if shape is None:
            cursor.fail(np.ones(len(lengths), np.bool_), lambda _: f"{name} has no bytes")
            return np.empty((0, 0), np.uint8)
        cursor.fail(
            lengths != shape[0], lambda place: f"{name} has {lengths[place]} bytes, where others have {shape[0]}"
        )
        return cursor.bytes(shape[0], name)

    def _array(self, cursor: Cursor, leaf: Leaf) -> Array:
        shape = self._shape(leaf) or self._settle(leaf, _most_common(_walked_shapes(cursor, leaf)))
        if shape is None:
            cursor.fail(np.ones(len(cursor.rows), np.bool_), lambda _: f"{_names([leaf])} is empty or no array")
            return np.empty((0,) * (1 + leaf.depth), leaf.dtype)
        peek = _peek_varint_items if leaf.is_varint else _peek_fixed_items
        items, stops, usual = peek(cursor, leaf, shape)
        if usual.all():
            cursor.at = stops
        else:
            items = _with_unusual(cursor, leaf, shape, items, stops, usual)
        return _in_range(cursor, items, items, leaf) if leaf.is_varint else items

    def _shape(self, leaf: Leaf) -> tuple[int, ...] | None:
        """As it stands in the records; None while open."""
        spec = self.layout.columns[self._index(leaf)].spec
        return wire_shape(leaf, spec) if spec.is_known else None

    def _settle(self, leaf: Leaf, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if shape is not None:
            columns = list(self.layout.columns)
            index = self._index(leaf)
            columns[index] = columns[index].settled(shape)
            self.layout = Layout(tuple(columns))
        return shape

    def _index(self, leaf: Leaf) -> int:
        return next(index for index, column in enumerate(self.layout.columns) if column.name == leaf.name)


def _read_together(leaf: Leaf) -> str:
    """Neighbours of one such kind take one operation."""
    if leaf.null_branch is not None or leaf.depth or leaf.kind == "bytes":
        return "alone"
    return "varints" if leaf.is_varint else "fixed"


def _names(leaves: Sequence[Leaf]) -> str:
    if len(leaves) == 1:
        return f"the field {leaves[0].name}" if leaves[0].name else "the value"
    return f"one of the fields {leaves[0].name} to {leaves[-1].name}"


def _in_range(cursor: Cursor, values: Array, numbers: Array, leaf: Leaf) -> Array:
    """The values of the records whose numbers `(n,)` or `(n, k)` are of the leaf's kind."""
    low, high = _limits(leaf)
    wrong = ~everywhere((numbers >= low) & (numbers <= high))
    return cursor.without(wrong, lambda _: f"{_names([leaf])} is not from {low} to {high}", values)


def _limits(leaf: Leaf) -> tuple[int, int]:
    """The smallest and the largest number of the leaf's kind."""
    if leaf.kind == "enum":
        return 0, len(leaf.symbols) - 1
    limits = np.iinfo(leaf.dtype)
    return int(limits.min), int(limits.max)


def _booleans(cursor: Cursor, values: Array, numbers: Array, leaf: Leaf) -> Array:
    return cursor.without(numbers > 1, lambda _: f"{_names([leaf])} is no boolean, which is a byte 0 or 1", values)


def _peek_fixed_items(cursor: Cursor, leaf: Leaf, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The items `(m, *shape)` of arrays in one block, where these end, and which records have them."""
    wire = together([leaf], [shape])
    found, there = cursor.peek_bytes(wire.itemsize)
    usual = np.ones(len(found), np.bool_)
    items = opened(found.view(wire).reshape(-1)["0"], leaf, shape, usual)
    there[there] = usual
    return items[usual], cursor.at[there] + wire.itemsize, there


def _peek_varint_items(cursor: Cursor, leaf: Leaf, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """As `_peek_fixed_items`, where lengths and items are varints alike."""
    count = 1
    for length in reversed(shape):
        count = length * count + 2
    numbers, stops, there = cursor.peek_varints(count)
    usual = np.ones(len(numbers), np.bool_)
    numbers = numbers[:, np.newaxis]
    for length in shape:
        usual &= everywhere((numbers[..., 0] == length) & (numbers[..., -1] == 0))
        numbers = numbers[..., 1:-1].reshape(*numbers.shape[:-1], length, (numbers.shape[-1] - 2) // length)
    there[there] = usual
    return numbers.reshape(len(numbers), *shape)[usual], stops[usual], there


def _with_unusual(
    cursor: Cursor, leaf: Leaf, shape: tuple[int, ...], items: Array, stops: Array, usual: Array
) -> Array:
    """The items of all, those of arrays in several blocks too, which are walked one by one."""
    pieces, ends = [], []
    good, reasons = usual.copy(), {}
    for place in np.flatnonzero(~usual).tolist():
        try:
            walk = _walk(cursor, leaf, place)
            found, end = walk.array(int(cursor.at[place]), leaf.depth)
            if found != shape:
                raise BrokenBlocks(f"its shape is {found}, where others have {shape}")
            others = _plain_items(b"".join(walk.pieces), leaf, math.prod(shape))
            pieces.append(others.reshape(shape))
            ends.append(end)
            good[place] = True
        except BrokenBlocks as error:
            reasons[place] = f"{_names([leaf])}: {error}"
    cursor.at = cursor.at.copy()
    cursor.at[usual] = stops
    cursor.at[good & ~usual] = ends
    values = np.empty((int(good.sum()), *shape), items.dtype)
    values[usual[good]] = items
    values[~usual[good]] = np.array(pieces).reshape(-1, *shape)
    cursor.fail(~good, reasons.__getitem__)
    return values


def _plain_items(data: bytes, leaf: Leaf, count: int) -> Array:
    """The items without their blocks."""
    if leaf.is_varint:
        numbers = Cursor.over([data], np.zeros(1, np.int64)).varints(count, "")
        if not len(numbers):
            raise BrokenBlocks("a number has more than 64 bits")
        return numbers
    items: Array = np.frombuffer(data, wire_type(leaf))
    if leaf.kind == "boolean" and (items > 1).any():
        raise BrokenBlocks("a boolean is a byte 0 or 1")
    return items


def _walk(cursor: Cursor, leaf: Leaf, place: int) -> Walk:
    return Walk(cursor.data, cursor.last, int(cursor.ends[place]), leaf.kind)


def _walked_shapes(cursor: Cursor, leaf: Leaf) -> Iterator[tuple[int, ...]]:
    for place in range(len(cursor.rows)):
        try:
            yield _walk(cursor, leaf, place).array(int(cursor.at[place]), leaf.depth)[0]
        except BrokenBlocks:
            pass


def _most_common(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Of those that hold anything; the first of equally common ones."""
    counts = Counter(shape for shape in shapes if 0 not in shape)
    return max(counts, key=counts.__getitem__) if counts else None
