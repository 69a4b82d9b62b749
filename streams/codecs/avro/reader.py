"""Reads a whole batch of Avro records at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.codecs import Array, BadRecord, Decoded
from streams.codecs.avro.fixed import FixedForm
from streams.codecs.avro.schema import Leaf
from streams.codecs.avro.steps import in_steps
from streams.codecs.layout import Layout
from streams.codecs.records import Records, sizes_of


class AvroReader:
    """Reads records of one schema; lengths that are open are those of most records of the first batch."""

    def __init__(self, leaves: Sequence[Leaf], layout: Layout) -> None:
        self._leaves = leaves
        self.layout = layout

    @property
    def layout(self) -> Layout:
        return self._layout

    @layout.setter
    def layout(self, layout: Layout) -> None:
        self._layout = layout
        self._fixed = FixedForm.of(self._leaves, layout)

    def decode(self, records: Records, what: str) -> Decoded:
        rows = self._fixed.rows(records) if self._fixed is not None else None
        if rows is not None:
            return Decoded(rows, np.arange(len(records)), [])
        arrays, good, bad = self.columns(records, what)
        return Decoded(self._layout.rows(arrays) if len(good) else self._layout.empty(), good, bad)

    def columns(self, records: Records, what: str) -> tuple[list[Array], Array, list[BadRecord]]:
        """The columns of the good records, in types that hold theirs; which records these are; and the bad ones."""
        sizes = sizes_of(records)
        columns, quick = self._fixed.read(records, sizes) if self._fixed is not None else ([], np.empty(0, np.int64))
        if len(quick) == len(records):
            return columns, quick, []
        rest = np.setdiff1d(np.flatnonzero(sizes >= 0), quick, assume_unique=True)
        steps = in_steps(self._leaves, self._layout, records, rest)
        others = steps.read()
        if steps.layout is not self._layout:
            self.layout = steps.layout
        reasons = dict.fromkeys(np.flatnonzero(sizes < 0).tolist(), f"it has no {what}")
        reasons |= {index: f"its {what} is no record of the schema: {text}" for index, text in steps.reasons.items()}
        columns, good = _merged(columns, quick, others, steps.rows)
        return columns, good, [BadRecord(index, reasons[index]) for index in sorted(reasons)]


def _merged(first: list[Array], quick: Array, others: list[Array], rest: Array) -> tuple[list[Array], Array]:
    """The columns of both, in the order of the records."""
    if not len(quick):
        return others, rest
    every = np.concatenate([quick, rest])
    order = np.argsort(every)
    return [np.concatenate(pair)[order] for pair in zip(first, others, strict=True)], every[order]
