"""PROTOBUF: messages of numbers, with their descriptors in the configuration."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError, Message

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, BadRecord, Decoded, Rows
from streams.codecs.layout import (
    Column,
    Layout,
    checked,
    object_of,
    shapes_config,
    shapes_key,
    shapes_of_config,
    wrong_config,
)
from streams.codecs.parts import PartsCodec
from streams.codecs.protobuf.schema import Leaf, Schema, SchemaError, pool_of, schema_of
from streams.codecs.records import Records, flat

WHAT = {"data": "value", "label": "key (the label)"}
PACKAGE = "headrace.rows"
_Type = descriptor_pb2.FieldDescriptorProto


class ProtobufPart:
    """Records of one message. What the message lacks has its default; fields that the descriptor lacks are left."""

    def __init__(self, prefix: str, message: str, schema: Schema, layout: Layout) -> None:
        self._prefix = prefix
        self._message = message
        self._schema = schema
        self._layout = layout

    @property
    def layout(self) -> Layout:
        return self._layout

    @property
    def config(self) -> dict[str, str]:
        return {f"{self._prefix}_message": self._message} | shapes_config(self._layout, self._prefix)

    def settle(self, rows: Rows) -> None:
        self._layout = self._layout.settled(rows)

    def decode(self, records: Records) -> Decoded:
        messages, reasons = self._messages(records)
        vectors = self._vectors(messages, reasons)
        good = [index for index, message in enumerate(messages) if message is not None and index not in reasons]
        what = WHAT[self._prefix]
        bad = [
            BadRecord(index, f"it has no {what}" if records[index] is None else f"its {what} {reasons[index]}")
            for index in sorted(reasons)
        ]
        if not good:
            return Decoded(self._layout.empty(), np.empty(0, np.int64), bad)
        arrays = self._arrays([messages[index] for index in good], good, vectors)
        return Decoded(self._layout.rows(arrays), np.array(good, np.int64), bad)

    def _messages(self, records: Records) -> tuple[Sequence[Message | None], dict[int, str]]:
        """The messages, None where the record is none; and why."""
        reasons: dict[int, str] = {}
        try:
            messages: list[Message | None] = list(map(self._schema.parse, records))  # type: ignore[arg-type]
        except (DecodeError, TypeError):
            messages = [self._parsed(index, record, reasons) for index, record in enumerate(records)]
        if self._schema.has_required:
            for index, message in enumerate(messages):
                if message is not None and not message.IsInitialized():
                    reasons[index] = f"lacks the required fields {', '.join(message.FindInitializationErrors())}"  # type: ignore[attr-defined]
        return messages, reasons

    def _parsed(self, index: int, record: bytes | None, reasons: dict[int, str]) -> Message | None:
        try:
            return self._schema.parse(record if record is not None else b"\xff")
        except DecodeError:
            reasons[index] = f"is no message {self._message}"
            return None

    def _vectors(self, messages: Sequence[Message | None], reasons: dict[int, str]) -> dict[str, list[Any]]:
        """The values of the vectors by name; the lengths that are open are decided, and other ones are bad."""
        found = {}
        for index, leaf in enumerate(self._schema.leaves):
            if leaf.is_vector:
                get = attrgetter(leaf.name)
                values = [None if message is None else get(message) for message in messages]
                self._check_lengths(index, leaf, values, reasons)
                found[leaf.name] = values
        return found

    def _check_lengths(self, index: int, leaf: Leaf, values: list[Any], reasons: dict[int, str]) -> None:
        lengths = [-1 if value is None else len(value) for value in values]
        column = self._layout.columns[index]
        if not column.spec.is_known:
            column = _settled(column, lengths)
            self._layout = Layout((*self._layout.columns[:index], column, *self._layout.columns[index + 1 :]))
        wanted = int(np.prod(column.spec.shape, dtype=np.int64)) if column.spec.is_known else None
        if all(length == wanted for length in lengths):
            return
        others = f"others have {wanted}" if wanted is not None else "some are needed"
        for record, length in enumerate(lengths):
            if length not in (-1, wanted):
                reasons.setdefault(record, f"has {length} numbers in the field {leaf.name}, where {others}")

    def _arrays(self, messages: Sequence[Any], good: list[int], vectors: dict[str, list[Any]]) -> list[Array]:
        """The columns `(len(messages), *shape)`."""
        scalars = [leaf.name for leaf in self._schema.leaves if not leaf.is_vector]
        values = dict(zip(scalars, _attributes(scalars, messages, self._layout.spec.dtype), strict=True))
        arrays = []
        for leaf, column in zip(self._schema.leaves, self._layout.columns, strict=True):
            if not leaf.is_vector:
                array = values[leaf.name]
            else:
                every = vectors[leaf.name]
                chosen = every if len(good) == len(every) else [every[index] for index in good]
                array = _joined(chosen, leaf).reshape(len(messages), *column.spec.shape)
            arrays.append(array)
        return arrays

    def encode(self, rows: Rows) -> list[bytes]:
        self._layout = self._layout.settled(rows)
        arrays = self._layout.split(rows)
        lists = [_values(leaf, array) for leaf, array in zip(self._schema.leaves, arrays, strict=True)]
        form = object_of([leaf.name for leaf in self._schema.leaves])
        make = self._schema.make
        return [make(**form(row)).SerializeToString() for row in zip(*lists, strict=True)]


def _attributes(names: list[str], messages: Sequence[Message], dtype: np.dtype[Any]) -> Array:
    """The values `(len(names), len(messages))` in the type of the row; one call per message for all of them."""
    if not names:
        return np.empty((0, len(messages)), dtype)
    found = map(attrgetter(*names), messages)
    values = found if len(names) == 1 else itertools.chain.from_iterable(found)
    return np.fromiter(values, dtype, len(names) * len(messages)).reshape(len(messages), len(names)).T


def _joined(vectors: list[Any], leaf: Leaf) -> Array:
    if leaf.is_bytes:
        return np.frombuffer(b"".join(vectors), np.uint8)
    return np.fromiter(itertools.chain.from_iterable(vectors), leaf.dtype)


def _values(leaf: Leaf, array: Array) -> list[Any]:
    """As the message's constructor takes them, one per row."""
    if not leaf.is_vector:
        values: list[Any] = array.tolist()
        return values
    vectors = flat(array)
    return list(map(bytes, vectors)) if leaf.is_bytes else vectors.tolist()


def _settled(column: Column, lengths: list[int]) -> Column:
    """With the length that most have; open where none has any."""
    counts = Counter(length for length in lengths if length > 0)
    return column.settled((max(counts, key=counts.__getitem__),)) if counts else column


def codec(config: Mapping[str, str]) -> PartsCodec:
    """Of `descriptor_set`, `data_message`, `label_message`; without a label_message the records have no labels."""
    bad: list[FieldViolation] = []
    text = config.get("descriptor_set", "")
    parts: dict[str, ProtobufPart] = {}
    try:
        pool, names = pool_of(text)
    except SchemaError as error:
        raise wrong_config("PROTOBUF", [FieldViolation("descriptor_set", str(error))]) from None
    for prefix in ("data", "label"):
        message = config.get(f"{prefix}_message", "").strip()
        if prefix == "label" and not message:
            continue
        try:
            schema = schema_of(pool, names, message)
            parts[prefix] = ProtobufPart(prefix, message, schema, _layout(schema, config, prefix, bad))
        except SchemaError as error:
            bad.append(FieldViolation(f"{prefix}_message", str(error)))
    if bad:
        raise wrong_config("PROTOBUF", bad)
    return PartsCodec(parts["data"], parts.get("label"), {"descriptor_set": text})


def _layout(schema: Schema, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> Layout:
    columns = [leaf.column for leaf in schema.leaves]
    layout = Layout(tuple(columns))
    try:
        shapes = shapes_of_config(config, prefix, columns)
        for leaf, shape in zip(schema.leaves, shapes or (), strict=shapes is not None):
            if leaf.is_vector is not bool(shape):
                raise ValueError(f"{shape} is no shape of {leaf.name}")
        if shapes is not None:
            every = zip(columns, shapes, strict=True)
            layout = checked(Layout(tuple(column.settled(shape) for column, shape in every)))
    except ValueError as error:
        bad.append(FieldViolation(shapes_key(prefix, columns), str(error)))
    return layout


def inferred(samples: Rows, labels: Rows | None, config: Mapping[str, str]) -> dict[str, str]:
    """Descriptors of messages with a field per column, where the configuration has none."""
    if config.get("descriptor_set", "").strip():
        return {}
    file = descriptor_pb2.FileDescriptorProto(name="headrace/rows.proto", package=PACKAGE, syntax="proto3")
    found = {}
    for prefix, rows in {"data": samples, "label": labels}.items():
        if rows is not None:
            name = {"data": "Sample", "label": "Label"}[prefix]
            _add_message(file, name, rows if isinstance(rows, Mapping) else {"value": rows})
            found[f"{prefix}_message"] = f"{PACKAGE}.{name}"
    files = descriptor_pb2.FileDescriptorSet(file=[file])
    return found | {"descriptor_set": base64.b64encode(files.SerializeToString(deterministic=True)).decode()}


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str, columns: Mapping[str, Array]) -> None:
    message = file.message_type.add(name=name)
    for number, (field, array) in enumerate(columns.items(), start=1):
        if not (field.isascii() and field.isidentifier()):
            bad = FieldViolation(
                "data_message", f"protobuf has no fields named {field!r}; names are letters, digits, _"
            )
            raise wrong_config("PROTOBUF", [bad])
        # The numbers 19000 to 19999 are protobuf's own.
        number = number if number < 19000 else number + 1000
        array = np.asarray(array)
        is_repeated = array.ndim > 1 and array.dtype != np.uint8
        label = _Type.LABEL_REPEATED if is_repeated else _Type.LABEL_OPTIONAL
        message.field.add(name=field, number=number, type=_type(field, array), label=label)


def _type(field: str, array: Array) -> _Type.Type.ValueType:
    if array.dtype == np.uint8 and array.ndim > 1:
        return _Type.TYPE_BYTES
    kinds = {"b1": _Type.TYPE_BOOL, "i1": _Type.TYPE_INT32, "i2": _Type.TYPE_INT32, "i4": _Type.TYPE_INT32}
    kinds |= {"i8": _Type.TYPE_INT64, "u1": _Type.TYPE_UINT32, "u2": _Type.TYPE_UINT32, "u4": _Type.TYPE_UINT32}
    kinds |= {"u8": _Type.TYPE_UINT64, "f2": _Type.TYPE_FLOAT, "f4": _Type.TYPE_FLOAT, "f8": _Type.TYPE_DOUBLE}
    kind = kinds.get(array.dtype.str[1:])
    if kind is None:
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH, f"the field {field} is {array.dtype.name}, which protobuf does not have"
        )
    return kind
