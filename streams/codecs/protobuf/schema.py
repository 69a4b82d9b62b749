"""Protobuf messages whose fields are numbers: their class, and a flat list of what stands in them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from streams.codecs import Spec
from streams.codecs.layout import MAX_FIELDS, Column

MAX_SET_BYTES = 2**20
MAX_FILES = 1000
SUPPORTED = "all numbers, bool, enum, bytes, repeated numbers, and single messages of them"
TYPES: Mapping[int, np.dtype[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: np.dtype(np.int32),
    FieldDescriptor.CPPTYPE_INT64: np.dtype(np.int64),
    FieldDescriptor.CPPTYPE_UINT32: np.dtype(np.uint32),
    FieldDescriptor.CPPTYPE_UINT64: np.dtype(np.uint64),
    FieldDescriptor.CPPTYPE_FLOAT: np.dtype(np.float32),
    FieldDescriptor.CPPTYPE_DOUBLE: np.dtype(np.float64),
    FieldDescriptor.CPPTYPE_BOOL: np.dtype(np.bool_),
    FieldDescriptor.CPPTYPE_ENUM: np.dtype(np.int32),
}


class SchemaError(ValueError):
    """No descriptor set, or messages of other things than numbers."""


@dataclass(frozen=True)
class Leaf:
    """One field. name: its path, joined by dots. is_vector: repeated numbers, or bytes."""

    name: str
    dtype: np.dtype[Any]
    is_vector: bool
    is_bytes: bool

    @property
    def column(self) -> Column:
        return Column(self.name, Spec(self.dtype, (-1,) if self.is_vector else ()))


@dataclass(frozen=True)
class Schema:
    """A message.

    parse: its class's FromString. make: the class.
    has_required: whether a parsed message may be incomplete (proto2).
    """

    parse: Callable[[bytes], Message]
    make: Callable[..., Message]
    has_required: bool
    leaves: tuple[Leaf, ...]


def pool_of(text: str) -> tuple[DescriptorPool, list[str]]:
    """A pool of its own for a FileDescriptorSet in base64, and the names of its messages. Raises SchemaError."""
    if len(text) > MAX_SET_BYTES * 4 // 3 + 4:
        raise SchemaError(f"it has {len(text)} characters; descriptor sets may have {MAX_SET_BYTES} bytes")
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, DecodeError, ValueError):
        raise SchemaError("it is no serialized FileDescriptorSet in base64") from None
    if not 0 < len(files.file) <= MAX_FILES:
        raise SchemaError(f"it has {len(files.file)} files; a set has 1 to {MAX_FILES}")
    pool = DescriptorPool()
    for file in _in_order(files):
        try:
            pool.Add(file)
        except (TypeError, ValueError, KeyError) as error:
            raise SchemaError(
                f"{file.name[:100]} cannot be built ({str(error)[:200]}); does the set have its imports"
                " (protoc --include_imports)?"
            ) from None
    names = [f"{file.package}.{one.name}".lstrip(".") for file in files.file for one in file.message_type]
    return pool, names


def _in_order(files: descriptor_pb2.FileDescriptorSet) -> list[descriptor_pb2.FileDescriptorProto]:
    """Imported ones first."""
    by_name = {file.name: file for file in files.file}
    try:
        order = TopologicalSorter({file.name: list(file.dependency) for file in files.file}).static_order()
        return [by_name[name] for name in order if name in by_name]
    except CycleError:
        raise SchemaError("its files import each other in a circle") from None


def schema_of(pool: DescriptorPool, names: list[str], message: str) -> Schema:
    """Raises SchemaError with every field that is no number."""
    try:
        descriptor = pool.FindMessageTypeByName(message.strip().lstrip("."))
    except KeyError:
        known = ", ".join(names[:20])
        raise SchemaError(f"{message!r} is no message of the descriptor set, which has {known}") from None
    compiler = _Compiler()
    compiler.add(descriptor, "")
    if not compiler.leaves and not compiler.problems:
        compiler.problems.append(f"the message {descriptor.full_name} has no fields, so its records have no numbers")
    if compiler.problems:
        raise SchemaError("; ".join(compiler.problems))
    made: Any = message_factory.GetMessageClass(descriptor)
    return Schema(made.FromString, made, compiler.has_required, tuple(compiler.leaves))


@dataclass
class _Compiler:
    leaves: list[Leaf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    has_required: bool = False
    _open: list[str] = field(default_factory=list)

    def add(self, descriptor: Descriptor, path: str) -> None:
        self._open.append(descriptor.full_name)
        for one in descriptor.fields:
            if len(self.leaves) >= MAX_FIELDS:
                self.problems.append(f"there are more than {MAX_FIELDS} fields")
            if len(self.problems) >= 10 or len(self.leaves) >= MAX_FIELDS:
                break
            self._add_field(one, f"{path}.{one.name}" if path else one.name)
        self._open.pop()

    def _add_field(self, one: FieldDescriptor, path: str) -> None:
        self.has_required |= one.is_required
        inner = one.message_type if one.type == FieldDescriptor.TYPE_MESSAGE else None
        if inner is not None and not one.is_repeated:
            if inner.full_name in self._open:
                self._refuse(path, f"the message {inner.full_name} in itself")
            else:
                self.add(inner, path)
        elif one.type == FieldDescriptor.TYPE_BYTES and not one.is_repeated:
            self.leaves.append(Leaf(path, np.dtype(np.uint8), is_vector=True, is_bytes=True))
        elif one.cpp_type in TYPES:
            self.leaves.append(Leaf(path, TYPES[one.cpp_type], is_vector=one.is_repeated, is_bytes=False))
        else:
            kind = dict(map(reversed, descriptor_pb2.FieldDescriptorProto.Type.items()))[one.type]  # type: ignore
            kind = kind.removeprefix("TYPE_").lower()
            self._refuse(path, f"{'a repeated' if one.is_repeated else 'the type'} {kind}")

    def _refuse(self, path: str, what: str) -> None:
        self.problems.append(f"{path}: {what} is not supported (supported are {SUPPORTED})")
