"""Avro container files: records with a schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cli.files.record_file import ROWS_AT_ONCE, UNNAMED, Array, Columns, bad_file
from streams.avro_files import NotAvro, read_records, schema_of

_NUMBERS = {"boolean": np.bool_, "int": np.int32, "long": np.int64, "float": np.float32, "double": np.float64}


class AvroFile:
    """The fields of the schema's record are the columns: numbers, and arrays of numbers of one shape."""

    typed = True
    has_fields = True
    kind = "field"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            schema = schema_of(path)
        except NotAvro as error:
            raise bad_file(f"{path} is no Avro container file: {error}") from error
        self._types = _fields(schema)
        self.names = tuple(self._types)

    def place(self, number: int) -> str:
        return f"record {number}"

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.names, ()

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        types = {name: self._number_type(name) for name in names}
        shapes: dict[str, tuple[int, ...]] = {}
        records, first = self._records(), 1
        while chunk := list(islice(records, ROWS_AT_ONCE)):
            yield {name: self._column(name, types[name], chunk, first, shapes) for name in names}
            first += len(chunk)

    def _records(self) -> Iterator[Any]:
        try:
            yield from read_records(self.path)
        except NotAvro as error:
            raise bad_file(f"{self.path} is damaged: {error}") from error

    def _number_type(self, name: str) -> np.dtype[Any]:
        schema = self._types[name]
        found = _element(schema)
        if found not in _NUMBERS:
            hint = f"; --without {name!r} leaves it out" if name else ""
            raise bad_file(
                f"{self.path}, field {name!r}: of the type {schema!r}; numbers and arrays of numbers can be read{hint}"
            )
        return np.dtype(_NUMBERS[found])

    def _column(
        self, name: str, dtype: np.dtype[Any], records: Sequence[Any], first: int, shapes: dict[str, tuple[int, ...]]
    ) -> Array:
        values = [record if name == UNNAMED else record[name] for record in records]
        try:
            column = np.array(values, dtype)
        except (ValueError, TypeError):
            column = np.empty(0, dtype)
        shape = shapes.setdefault(name, np.shape(values[0]))
        if column.shape != (len(values), *shape) or (_may_hide_nulls(column) and any(map(_has_null, values))):
            raise self._odd_one(name, values, first, shape)
        return column

    def _odd_one(self, name: str, values: Sequence[Any], first: int, shape: tuple[int, ...]) -> Exception:
        place, value = next((place, one) for place, one in enumerate(values) if _has_null(one) or _shape(one) != shape)
        where = f"{self.path}, record {first + place}, field {name!r}"
        if _has_null(value):
            return bad_file(f"{where}: {'it is null' if value is None else 'a number of the array is null'}")
        return bad_file(f"{where}: an array of another shape than {shape}, which others have")


def _fields(schema: Any) -> dict[str, Any]:
    if isinstance(schema, Mapping) and schema["type"] == "record":
        return {field["name"]: field["type"] for field in schema["fields"]}
    return {UNNAMED: schema}


def _element(schema: Any) -> str:
    """The type of a number, or of the numbers of an array; what may be null is what it otherwise is."""
    if isinstance(schema, list):
        others = [one for one in schema if one != "null"]
        return _element(others[0]) if len(others) == 1 else "union"
    if isinstance(schema, Mapping):
        if "logicalType" in schema:
            return str(schema["logicalType"])
        return _element(schema["items"] if schema["type"] == "array" else schema["type"])
    return str(schema)


def _may_hide_nulls(column: Array) -> bool:
    """numpy takes null for NaN, and for false."""
    return column.dtype.kind == "b" or (column.dtype.kind == "f" and bool(np.isnan(column).any()))


def _has_null(value: Any) -> bool:
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(value))
    except ValueError:
        return None
