"""A whole batch of JSON records that are all alike, without a Python call per value."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from streams.codecs import Array, Spec
from streams.codecs.json.record import MAX_RECORD_BYTES, may_become
from streams.codecs.json.text import loads
from streams.codecs.layout import Layout
from streams.codecs.records import Records, sizes_of


class Unlike(Exception):
    """Some record is not like the others: look at each."""


def columns_of(layout: Layout, records: Records) -> list[Array]:
    """The columns `(len(records), *shape)`. Raises Unlike, unless every record is as the layout says."""
    sizes = sizes_of(records)
    if not len(sizes) or sizes.min() < 0 or sizes.max() > MAX_RECORD_BYTES:
        raise Unlike
    try:
        values = list(map(loads, records))
        if not layout.is_named:
            return [numbers(values, layout.columns[0].spec)]
        _check_names(layout, records)
        return _tree(layout).columns(values, layout)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unlike from None


def _check_names(layout: Layout, records: Records) -> None:
    """That no name is there twice, which parsers do not tell: every name has its colon, and no others are there.

    That each object has all of its names, and no more, is checked when they are taken.
    """
    names = {name[:stop] for name in _names(layout) for stop in _stops(name)}
    colons = len(names) + sum(name.rpartition(".")[2].count(":") for name in names)
    if set(map(bytes.count, records, itertools.repeat(b":"))) != {colons}:  # type: ignore[arg-type]
        raise Unlike
    if any(map(bytes.count, records, itertools.repeat(b"\\"))):  # type: ignore[arg-type]  # a colon may be escaped
        raise Unlike


def _names(layout: Layout) -> list[str]:
    return [column.name for column in layout.columns]


def _stops(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "."] + [len(name)]


@dataclass
class _Node:
    """An object: which of its names are columns, and which are objects."""

    leaves: dict[str, int] = field(default_factory=dict)
    inner: dict[str, _Node] = field(default_factory=dict)

    def columns(self, objects: Sequence[Any], layout: Layout) -> list[Array]:
        found: dict[int, Array] = {}
        self._take(objects, layout, found)
        return [found[index] for index in range(len(layout.columns))]

    def _take(self, objects: Sequence[Any], layout: Layout, found: dict[int, Array]) -> None:
        if set(map(type, objects)) != {dict} or set(map(len, objects)) != {len(self.leaves) + len(self.inner)}:
            raise Unlike
        specs = [layout.columns[index].spec for index in self.leaves.values()]
        if len(specs) > 1 and not any(spec.shape for spec in specs):
            matrix = numbers(list(map(itemgetter(*self.leaves), objects)), Spec(specs[0].dtype, (len(specs),)))
            found.update(zip(self.leaves.values(), matrix.T, strict=True))
        else:
            for (name, index), spec in zip(self.leaves.items(), specs, strict=True):
                found[index] = numbers(list(map(itemgetter(name), objects)), spec)
        for name, node in self.inner.items():
            node._take(list(map(itemgetter(name), objects)), layout, found)


def _tree(layout: Layout) -> _Node:
    root = _Node()
    for index, name in enumerate(_names(layout)):
        *path, last = name.split(".")
        node = root
        for key in path:
            node = node.inner.setdefault(key, _Node())
        node.leaves[last] = index
    return root


def numbers(values: list[Any], spec: Spec) -> Array:
    """`(n, *shape)` in the spec's type. Raises Unlike where that is not plainly so."""
    array = np.array(values)
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "b" and spec.dtype.kind != "b")
    if not may_become(array.shape[1:], spec.shape):
        raise Unlike
    array = array.reshape(len(array), *spec.shape)
    if spec.dtype.kind == "f" and (whole or array.dtype.kind == "f"):
        with np.errstate(over="ignore"):
            converted = array.astype(spec.dtype)
        if np.isfinite(converted).all():
            return converted
    if spec.dtype.kind in "iu" and whole:
        limits = np.iinfo(spec.dtype)
        if array.dtype.kind == "b" or (array.min() >= limits.min and array.max() <= limits.max):
            return array.astype(spec.dtype)
    if spec.dtype.kind == array.dtype.kind == "b":
        return array
    raise Unlike
