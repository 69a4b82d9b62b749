"""AVRO: records in Avro's binary encoding, with their schema in the configuration or in a schema registry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, BadRecord, Decoded, Rows
from streams.codecs import avro_writer as writer
from streams.codecs.avro_reader import AvroReader
from streams.codecs.avro_schema import Leaf, SchemaError, parse
from streams.codecs.layout import Layout, checked, shapes_config, shapes_key, shapes_of_config, wrong_config
from streams.codecs.parts import Part, PartsCodec
from streams.codecs.records import Records

REGISTRY_HINT = (
    "; it begins with a zero byte: records of a schema registry need wire_format=registry in the input_config"
)
WHAT = {"data": "value", "label": "key (the label)"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
            self.reader.layout = self.layout.settled(rows)

    def decode(self, records: Records) -> Decoded:
        decoded = self.reader.decode(records, WHAT[self._prefix])
        return replace(decoded, bad=[_with_hint(one, records) for one in decoded.bad]) if decoded.bad else decoded

    def encode(self, rows: Rows) -> list[bytes]:
        self.settle(rows)
        return writer.encode(self.leaves, self.layout.split(rows))


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


def codec(config: Mapping[str, str]) -> PartsCodec:
    """Of `data_scheme` and `label_scheme`; without a label_scheme the records have no labels.

    `wire_format` `registry`, or a `registry_url`: the records begin with the id of their schema.
    """
    from streams.codecs import wire

    bad: list[FieldViolation] = []
    shared = {key: config[key] for key in wire.KEYS if config.get(key, "").strip()}
    settings = wire.Wire.of(config, bad)
    parts: dict[str, Part | None] = {}
    for prefix in ("data", "label"):
        if prefix == "data" or wire.has_labels(config):
            parts[prefix] = wire.part(settings, config, prefix, bad)
    samples = parts["data"]
    if bad or samples is None:
        raise wrong_config("AVRO", bad)
    return PartsCodec(samples, parts.get("label"), shared)


def inferred(samples: Rows, labels: Rows | None, config: Mapping[str, str]) -> dict[str, str]:
    """The schemas of such rows, where the configuration has none."""
    given = {"data_scheme": samples, "label_scheme": labels}
    return {
        key: _schema_text(rows, key)
        for key, rows in given.items()
        if rows is not None and not config.get(key) and not config.get(key.replace("scheme", "subject"))
    }


def _schema_text(rows: Rows, key: str) -> str:
    if not isinstance(rows, Mapping):
        return json.dumps(_type(rows, ""))
    wrong = [name for name in rows if not _NAME.fullmatch(name)]
    if wrong:
        raise wrong_config(
            "AVRO", [FieldViolation(key, f"Avro has no fields named {', '.join(map(repr, wrong[:10]))}")]
        )
    fields = [{"name": name, "type": _type(array, name)} for name, array in rows.items()]
    return json.dumps({"type": "record", "name": "Sample" if key == "data_scheme" else "Label", "fields": fields})


def _type(array: Array, name: str) -> Any:
    """Bytes for vectors of them, whatever their shape; nested arrays else."""
    array = np.asarray(array)
    if array.dtype == np.uint8 and array.ndim > 1:
        return "bytes"
    kinds = {"b1": "boolean", "i1": "int", "i2": "int", "i4": "int", "i8": "long", "u1": "int", "u2": "int"}
    kinds |= {"u4": "long", "u8": "long", "f2": "float", "f4": "float", "f8": "double"}
    kind: Any = kinds.get(array.dtype.str[1:])
    if kind is None:
        what = f"the field {name}" if name else "a row"
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH, f"{what} is {array.dtype.name}, which Avro does not have"
        )
    for _ in array.shape[1:]:
        kind = {"type": "array", "items": kind}
    return kind
