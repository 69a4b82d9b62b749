"""Avro schemas whose values are numbers: a flat list of what stands in a record, in its order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from streams.codecs import Array, Spec
from streams.codecs.layout import MAX_FIELDS, MAX_ROW_BYTES, Column

MAX_SCHEMA_BYTES = 2**20
MAX_DEPTH = 16
MAX_PROBLEMS = 10
SUPPORTED = (
    "records, boolean, int, long, float, double, bytes, fixed, enum, (nested) arrays of boolean, int, long, float or"
    " double, and unions of null and one of these"
)
TYPES = {
    "boolean": np.dtype(np.bool_),
    "int": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "enum": np.dtype(np.int32),
    "bytes": np.dtype(np.uint8),
    "fixed": np.dtype(np.uint8),
}
PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
ITEMS = {"boolean", "int", "long", "float", "double"}
VARINTS = {"int", "long", "enum"}


class SchemaError(ValueError):
    """No schema, or one of other things than numbers."""


class _Unsupported(Exception):
    """One value of the schema cannot be read."""


@dataclass(frozen=True)
class Leaf:
    """One value of a record.

    name: the path, joined by dots; empty where the schema is no record.
    kind: of its numbers: `int` for an array of them too.
    depth: how many arrays are around it.
    size: of a `fixed`. symbols: of an `enum`.
    null_branch: the index of null in the union, if it is one.
    default: in place of a null, and where a writer's schema lacks the field; None: there is none.
    """

    name: str
    kind: str
    depth: int = 0
    size: int = 0
    symbols: tuple[str, ...] = ()
    null_branch: int | None = None
    default: Array | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return TYPES[self.kind]

    @property
    def is_varint(self) -> bool:
        return self.kind in VARINTS

    @property
    def column(self) -> Column:
        """Open where only the records know the lengths."""
        if self.kind == "fixed":
            shape: tuple[int, ...] = (self.size,)
        elif self.kind == "bytes":
            shape = (-1,)
        else:
            shape = (-1,) * self.depth
        return Column(self.name, Spec(self.dtype, shape))


def parse(text: str) -> tuple[Leaf, ...]:
    """The values of a record of this schema. Raises SchemaError with everything that is wrong."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the schema has {len(text)} characters; at most {MAX_SCHEMA_BYTES} are read")
    if not text.strip():
        raise SchemaError("it is missing: give the JSON text of a schema")
    if text.strip() in PRIMITIVES:
        raise SchemaError(f'a schema is JSON: write "{text.strip()}" in quotes')
    try:
        schema = json.loads(text)
        # Kafka-ML's users put the text of a schema into JSON once more.
        schema = json.loads(schema) if isinstance(schema, str) and schema.lstrip()[:1] in ("{", "[") else schema
        compiler = _Compiler()
        compiler.add(schema, "", "", None)
    except RecursionError:
        raise SchemaError("the schema is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"it is no schema: {error}") from None
    if not compiler.leaves and not compiler.problems:
        compiler.problems.append("the schema has no fields, so its records have no numbers")
    if sum(leaf.size for leaf in compiler.leaves) > MAX_ROW_BYTES:
        compiler.problems.append(f"its fixed fields have more than {MAX_ROW_BYTES} bytes")
    if compiler.problems:
        raise SchemaError("; ".join(compiler.problems))
    return tuple(compiler.leaves)


@dataclass
class _Compiler:
    leaves: list[Leaf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _named: dict[str, tuple[Any, str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def add(self, schema: Any, path: str, namespace: str, default: Any) -> None:
        """Append the leaves of a schema; `default` is a one-element tuple, or None where there is none."""
        if len(self.problems) >= MAX_PROBLEMS or self._is_full:
            return
        try:
            self._add(schema, path, namespace, default)
        except _Unsupported as error:
            self.problems.append(f"{path[:200] or 'the schema'}: {error} (supported are {SUPPORTED})")

    @property
    def _is_full(self) -> bool:
        if len(self.leaves) <= MAX_FIELDS:
            return False
        self.problems = [f"the schema has more than {MAX_FIELDS} fields"]
        return True

    def _add(self, schema: Any, path: str, namespace: str, default: Any) -> None:
        schema, namespace = self._resolved(schema, namespace)
        if isinstance(schema, list):
            self._append(self._union(schema, path, namespace), default)
        elif _is_record(schema):
            self._add_record(schema, path, namespace)
        else:
            self._append(self._leaf(schema, path, namespace), default)

    def _resolved(self, schema: Any, namespace: str) -> tuple[Any, str]:
        """A named type by its definition; a type in an object of its own without the object."""
        if isinstance(schema, str) and schema not in PRIMITIVES:
            known = self._named.get(_full_name(schema, namespace)) or self._named.get(schema)
            return known if known is not None else (schema, namespace)
        if isinstance(schema, dict) and isinstance(schema.get("type"), (dict, list)):
            return self._resolved(schema["type"], namespace)
        if isinstance(schema, dict) and isinstance(schema.get("name"), str):
            given = schema.get("namespace")
            full = _full_name(schema["name"], given if isinstance(given, str) else namespace)
            namespace = full.rpartition(".")[0]
            self._named.setdefault(full, (schema, namespace))
        return schema, namespace

    def _add_record(self, schema: Mapping[str, Any], path: str, namespace: str) -> None:
        fields = schema.get("fields")
        name = _full_name(str(schema.get("name", "")), namespace)
        if name in self._open:
            raise _Unsupported(f"the record {name} in itself is not supported")
        if not isinstance(fields, list) or not all(map(_is_field, fields)):
            raise _Unsupported("a record's fields must be a list of objects with a name and a type")
        if len({one["name"] for one in fields}) < len(fields):
            raise _Unsupported("two of the record's fields have the same name")
        self._open.append(name)
        for one in fields:
            default = (one["default"],) if "default" in one else None
            self.add(one["type"], f"{path}.{one['name']}" if path else one["name"], namespace, default)
        self._open.pop()

    def _union(self, branches: list[Any], path: str, namespace: str) -> Leaf:
        nulls = [branch in ("null", {"type": "null"}) for branch in branches]
        if sorted(nulls) != [False, True]:
            raise _Unsupported("a union of other types than null and one more is not supported")
        schema, namespace = self._resolved(branches[nulls.index(False)], namespace)
        if isinstance(schema, list) or _is_record(schema):
            raise _Unsupported("a record or a union in a union is not supported")
        return replace(self._leaf(schema, path, namespace), null_branch=nulls.index(True))

    def _leaf(self, schema: Any, path: str, namespace: str) -> Leaf:
        depth = 0
        while isinstance(schema, dict) and schema.get("type") == "array":
            schema, namespace = self._resolved(schema.get("items"), namespace)
            depth += 1
            if depth > MAX_DEPTH:
                raise _Unsupported(f"arrays nested more than {MAX_DEPTH} deep are not supported")
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if isinstance(kind, str) and (kind in ITEMS or (kind == "bytes" and not depth)):
            return Leaf(path, kind, depth)
        if isinstance(schema, dict) and kind in ("fixed", "enum") and not depth:
            return _fixed(schema, path) if kind == "fixed" else _enum(schema, path)
        text = "a union" if isinstance(kind, list) else str(kind)[:100]
        raise _Unsupported(f"{'an array of' if depth else 'the type'} {text} is not supported")

    def _append(self, leaf: Leaf, default: Any) -> None:
        if default is not None and default[0] is not None:
            try:
                leaf = replace(leaf, default=_default(leaf, default[0]))
            except (ValueError, TypeError, OverflowError, AttributeError):
                raise _Unsupported(f"its default is no {leaf.kind}") from None
        self.leaves.append(leaf)


def _is_record(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") in ("record", "error")


def _is_field(one: Any) -> bool:
    """A dot would look like a record in a record."""
    name = one.get("name") if isinstance(one, dict) else None
    return isinstance(name, str) and name != "" and "." not in name and "type" in one


def _fixed(schema: Mapping[str, Any], path: str) -> Leaf:
    size = schema.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 2**31:
        raise _Unsupported(f"a fixed of size {str(size)[:100]} is not supported")
    return Leaf(path, "fixed", size=size)


def _enum(schema: Mapping[str, Any], path: str) -> Leaf:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(one, str) for one in symbols):
        raise _Unsupported("an enum without symbols is not supported")
    return Leaf(path, "enum", symbols=tuple(symbols))


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _default(leaf: Leaf, value: Any) -> Array:
    """Raises ValueError where the value is not of the leaf's kind."""
    if leaf.kind in ("bytes", "fixed"):
        array: Array = np.frombuffer(value.encode("latin-1"), np.uint8)
        if leaf.kind == "fixed" and len(array) != leaf.size:
            raise ValueError
        return array
    if leaf.kind == "enum":
        return np.array(leaf.symbols.index(value), np.int32)
    given = np.array(value)
    allowed = {"boolean": "b", "int": "i", "long": "i"}.get(leaf.kind, "if")
    if given.ndim != leaf.depth or (given.size and given.dtype.kind not in allowed):
        raise ValueError
    default = given.astype(leaf.dtype)
    if leaf.kind in ("int", "long") and not np.array_equal(default, given):
        raise ValueError
    return default
