"""AVRO: records in Avro's binary encoding, with their schema in the configuration or in a schema registry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, Rows
from streams.codecs.avro import wire
from streams.codecs.avro.nulls import nulls_of
from streams.codecs.layout import wrong_config
from streams.codecs.parts import Part, PartsCodec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def codec(config: Mapping[str, str]) -> PartsCodec:
    """Of `data_scheme` and `label_scheme`; without a label_scheme the records have no labels.

    `wire_format` `registry`, or a `registry_url`: the records begin with the id of their schema.
    """
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
    wrong = [name for name in rows if not all(map(_NAME.fullmatch, name.split(".")))]
    if wrong:
        raise wrong_config(
            "AVRO", [FieldViolation(key, f"Avro has no fields named {', '.join(map(repr, wrong[:10]))}")]
        )
    return json.dumps(_record("Sample" if key == "data_scheme" else "Label", rows, key))


def _record(name: str, columns: Mapping[str, Array], key: str, path: str = "") -> dict[str, Any]:
    """Names with dots are fields of records in it."""
    inner: dict[str, dict[str, Array]] = {}
    for field, array in columns.items():
        head, _, rest = field.partition(".")
        inner.setdefault(head, {})[rest] = array
    return {"type": "record", "name": name, "fields": [_field(name, head, inner[head], key, path) for head in inner]}


def _field(record: str, name: str, inner: Mapping[str, Array], key: str, path: str) -> dict[str, Any]:
    if "" not in inner:
        return {"name": name, "type": _record(f"{record}_{name}", inner, key, f"{path}{name}.")}
    if len(inner) > 1:
        raise wrong_config(
            "AVRO", [FieldViolation(key, f"{path}{name} is a number in some place and a record in another")]
        )
    return {"name": name, "type": _type(inner[""], f"{path}{name}")}


def _type(array: Array, name: str) -> Any:
    """Bytes for vectors of them, whatever their shape; nested arrays else."""
    array = np.asarray(array)
    if array.dtype == np.uint8 and array.ndim > 1:
        return "bytes"
    kinds = {"b1": "boolean", "i1": "int", "i2": "int", "i4": "int", "i8": "long", "u1": "int", "u2": "int"}
    kinds |= {"u4": "long", "u8": "long", "f2": "float", "f4": "float", "f8": "double"}
    kind: Any = kinds.get(array.dtype.str[1:])
    what = f"the field {name}" if name else "a row"
    if nulls_of(array).any():
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"{what} is null: give a data_scheme in which it is a union with null and has a default",
        )
    if kind is None:
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH, f"{what} is {array.dtype.name}, which Avro does not have"
        )
    for _ in array.shape[1:]:
        kind = {"type": "array", "items": kind}
    return kind
