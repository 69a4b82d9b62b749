"""The samples of AVRO records or their labels, by a schema in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from headrace.errors import FieldViolation
from streams.codecs import BadRecord, Decoded, Rows
from streams.codecs.avro import nulls
from streams.codecs.avro.reader import AvroReader
from streams.codecs.avro.schema import Leaf, SchemaError, parse
from streams.codecs.layout import Layout, checked, shapes_config, shapes_key, shapes_of_config
from streams.codecs.records import Records

REGISTRY_HINT = (
    "; it begins with a zero byte: records of a schema registry need wire_format=registry in the input_config"
)
WHAT = {"data": "value", "label": "key (the label)"}


class AvroPart:
    """Records of one schema."""

    def __init__(self, prefix: str, text: str, leaves: tuple[Leaf, ...], layout: Layout) -> None:
        self._prefix = prefix
        self._text = text
        self.leaves = leaves
        self.reader = AvroReader(leaves, layout)

    @classmethod
    def from_config(cls, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> AvroPart | None:
        """Of `<prefix>_scheme`. None where it is wrong; then `bad` says why."""
        text = config.get(f"{prefix}_scheme", "")
        try:
            leaves = parse(text)
        except SchemaError as error:
            bad.append(FieldViolation(f"{prefix}_scheme", str(error)))
            return None
        try:
            return cls(prefix, text, leaves, configured(leaves, config, prefix))
        except ValueError as error:
            columns = [leaf.column for leaf in leaves]
            bad.append(FieldViolation(shapes_key(prefix, columns), str(error)))
            return None

    @property
    def layout(self) -> Layout:
        return self.reader.layout

    @property
    def config(self) -> dict[str, str]:
        return {f"{self._prefix}_scheme": self._text} | shapes_config(self.layout, self._prefix)

    def settle(self, rows: Rows) -> None:
        if not self.layout.is_known:
            self.reader.layout = self.layout.settled(nulls.without_nulls(self.leaves, rows)[0])

    def decode(self, records: Records) -> Decoded:
        decoded = self.reader.decode(records, WHAT[self._prefix])
        return replace(decoded, bad=[_with_hint(one, records) for one in decoded.bad]) if decoded.bad else decoded

    def encode(self, rows: Rows) -> list[bytes]:
        numbers, absent = nulls.without_nulls(self.leaves, rows)
        self.settle(numbers)
        return nulls.encode(self.leaves, self.layout.split(numbers), absent)


def _with_hint(bad: BadRecord, records: Records) -> BadRecord:
    record = records[bad.index]
    return BadRecord(bad.index, bad.reason + REGISTRY_HINT) if record and record[0] == 0 else bad


def configured(leaves: tuple[Leaf, ...], config: Mapping[str, str], prefix: str) -> Layout:
    """The layout with the shapes that the configuration has. Raises ValueError."""
    columns = [leaf.column for leaf in leaves]
    shapes = shapes_of_config(config, prefix, columns)
    if shapes is None:
        return Layout(tuple(columns))
    for leaf, column, shape in zip(leaves, columns, shapes, strict=True):
        dimensions = len(column.spec.shape)
        fits = dimensions == len(shape) or (dimensions == 1 and len(shape) > 0)
        if not fits or (column.spec.is_known and np.prod(shape) != np.prod(column.spec.shape)):
            raise ValueError(f"{shape} is no shape of {leaf.name or 'the schema'}, which is {column.spec}")
    return checked(Layout(tuple(column.settled(shape) for column, shape in zip(columns, shapes, strict=True))))
