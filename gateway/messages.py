"""JSON to protobuf messages and back, by the protobuf JSON mapping, with every mistake named by its field.

`google.protobuf.json_format` stops at the first mistake and lets some kinds of nonsense pass ("" for a message), so
objects are walked here and only their leaves are left to it.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # noqa: F401  makes the details of errors known to the JSON printer

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2

# Deeper JSON is refused. The deepest thing that means something is a sample of some dimensions.
MAX_DEPTH = 64
# After so many mistakes the rest is not looked for.
MAX_VIOLATIONS = 50
# What json_format and protobuf raise for values of a wrong type or range.
_LEAF_ERRORS = (
    json_format.ParseError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)
_F = FieldDescriptor
_INTEGERS = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), "a whole number of 32 bits"),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), "a whole number of 64 bits"),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), "a whole number of 32 bits, not negative"),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), "a whole number of 64 bits, not negative"),
}
_SCALARS = {
    **_INTEGERS,
    _F.TYPE_BOOL: "true or false",
    _F.TYPE_STRING: "a text",
    _F.TYPE_BYTES: "bytes in base64",
    _F.TYPE_FLOAT: 'a number, "NaN", "Infinity" or "-Infinity"',
    _F.TYPE_DOUBLE: 'a number, "NaN", "Infinity" or "-Infinity"',
}
_WELL_KNOWN = {
    "google.protobuf.Timestamp": 'a time such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Duration": 'a duration such as "1.5s"',
    "google.protobuf.FieldMask": 'names of fields, joined by commas, such as "name,description"',
    "google.protobuf.Value": "any JSON value without NaN, at most 64 deep",
    "google.protobuf.Struct": "a JSON object",
    "google.protobuf.ListValue": "a JSON array",
    "google.protobuf.Any": 'an object with the type\'s URL in "@type"',
}


def parse_json(body: bytes) -> Any:
    """The JSON value of a body. Raises InvalidArgument MALFORMED_REQUEST for bad UTF-8, bad JSON, duplicate names,
    NaN literals and more than MAX_DEPTH levels."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8: byte {error.start} does not fit.", byte=error.start) from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _malformed(
            f"The body is not JSON: {error.msg} at {where}.", line=error.lineno, column=error.colno
        ) from error
    except RecursionError as error:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.", limit=MAX_DEPTH) from error
    except ValueError as error:
        raise _malformed(f"The body is not JSON: {error}.") from error
    if _deeper_than(value, MAX_DEPTH):
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.", limit=MAX_DEPTH)
    return value


def fill(message: Message, value: Any, path: str = "") -> list[FieldViolation]:
    """Sets `message` from a JSON value and returns what is wrong with it, by field path as it was written.

    `path` stands before every field path. The message is worthless when the list is not empty."""
    reader = _Reader()
    reader.read_message(value, message, path)
    return reader.violations[:MAX_VIOLATIONS]


def set_scalar(message: Message, field: FieldDescriptor, value: Any) -> bool:
    """Sets one field (replacing it) or adds to it where it is repeated; False when the value does not fit."""
    if field.is_repeated and not is_map(field) and not isinstance(value, list):
        value = [value]
    leaf = type(message)()
    try:
        json_format.ParseDict({field.json_name: value}, leaf)
        message.MergeFrom(leaf)
    except _LEAF_ERRORS:
        return False
    return True


def expected(field: FieldDescriptor) -> str:
    """What a value of the field looks like, in words."""
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    if field.message_type is None:
        return _SCALARS[field.type]
    return _WELL_KNOWN.get(field.message_type.full_name, "an object")


def type_of(message: Message) -> Descriptor:
    """The message's descriptor."""
    return cast(Descriptor, message.DESCRIPTOR)


def inside(field: FieldDescriptor) -> Descriptor:
    """The type of the messages that the field holds."""
    assert field.message_type is not None
    return field.message_type


def is_leaf(field: FieldDescriptor) -> bool:
    """Whether one JSON value, not an object of fields, stands for an element of the field."""
    return field.message_type is None or is_well_known(field.message_type)


def is_well_known(descriptor: Descriptor) -> bool:
    """Whether the type has a JSON form of its own."""
    return bool(descriptor.full_name.startswith("google.protobuf.") and descriptor.full_name != "google.protobuf.Empty")


def is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def find_field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field with this JSON name or proto name."""
    return descriptor.fields_by_camelcase_name.get(name) or descriptor.fields_by_name.get(name)


def unknown_field(descriptor: Descriptor, name: str) -> str:
    """What to say about a name that is no field: the nearest names, or all."""
    names = [field.json_name for field in descriptor.fields]
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"is no field; did you mean {near[0]}?"
    return "is no field; known are " + ", ".join(names) if names else "is no field: this object has none"


def shown(value: Any) -> str:
    """A value in an error message: short, as JSON."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


@dataclass
class _Reader:
    violations: list[FieldViolation] = field(default_factory=list)

    def read_message(self, value: Any, message: Message, path: str) -> None:
        if is_well_known(type_of(message)):
            self._read_whole(value, message, path)
            return
        if not isinstance(value, dict):
            self._refuse(path or ".", f"must be an object, not {shown(value)}")
            return
        seen: set[str] = set()
        for name, item in value.items():
            if len(self.violations) > MAX_VIOLATIONS:
                return
            self._read_named(name, item, message, path, seen)

    def _read_whole(self, value: Any, message: Message, path: str) -> None:
        try:
            json_format.ParseDict(value, message)
        except _LEAF_ERRORS:
            self._refuse(path or ".", f"must be {_WELL_KNOWN.get(message.DESCRIPTOR.full_name, 'another value')}")

    def _read_named(self, name: str, value: Any, message: Message, path: str, seen: set[str]) -> None:
        where = f"{path}.{name}" if path else name
        known = find_field(type_of(message), name)
        if known is None:
            self._refuse(where, unknown_field(type_of(message), name))
            return
        rival = _rival(known, value, seen)
        if rival:
            self._refuse(where, rival)
            return
        self._read_field(known, value, message, where)

    def _read_field(self, known: FieldDescriptor, value: Any, message: Message, where: str) -> None:
        if value is None and not _takes_null(known):
            return  # null stands for the default
        if is_map(known):
            self._read_map(known, value, message, where)
        elif known.is_repeated:
            self._read_list(known, value, message, where)
        elif is_leaf(known):
            self._read_leaf(known, value, message, where)
        else:
            child = getattr(message, known.name)
            child.SetInParent()
            self.read_message(value, child, where)

    def _read_leaf(self, known: FieldDescriptor, value: Any, message: Message, where: str) -> None:
        if not set_scalar(message, known, value):
            self._refuse(where, f"must be {expected(known)}, not {shown(value)}")

    def _read_list(self, known: FieldDescriptor, values: Any, message: Message, where: str) -> None:
        if not isinstance(values, list):
            self._refuse(where, f"must be an array, not {shown(values)}")
            return
        if is_leaf(known) and set_scalar(message, known, values):
            return
        for index, value in enumerate(values):
            if len(self.violations) > MAX_VIOLATIONS:
                return
            at = f"{where}[{index}]"
            if is_leaf(known):
                self._read_leaf(known, [value], message, at)
            else:
                self.read_message(value, getattr(message, known.name).add(), at)

    def _read_map(self, known: FieldDescriptor, values: Any, message: Message, where: str) -> None:
        if not isinstance(values, dict):
            self._refuse(where, f"must be an object, not {shown(values)}")
            return
        if set_scalar(message, known, values):
            return
        of_value = inside(known).fields_by_name["value"]
        for key, value in values.items():
            if not set_scalar(message, known, {key: value}):
                self._refuse(f"{where}.{key}", f"must be {expected(of_value)}, not {shown(value)}")

    def _refuse(self, path: str, description: str) -> None:
        self.violations.append(FieldViolation(path, description))


def to_json(message: Message) -> Any:
    """The message as JSON values: names in lowerCamelCase, int64 as texts, unset fields present (null for messages).

    Left out: members of a oneof that are not set. Details of errors of a type that is not known here are dropped."""
    try:
        value = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    except TypeError:
        value = json_format.MessageToDict(_without_unknown_details(message), always_print_fields_with_no_presence=True)
    _add_nulls(type_of(message), value)
    return value


def dump_json(value: Any) -> bytes:
    """JSON text without blanks, in UTF-8."""
    return orjson.dumps(value)


def _add_nulls(descriptor: Descriptor, value: Any) -> None:
    if is_well_known(descriptor):
        return
    for known in descriptor.fields:
        if known.message_type is None:
            continue
        if known.json_name not in value:
            if known.containing_oneof is None:
                value[known.json_name] = None
            continue
        for kind, child in _children(known, value[known.json_name]):
            _add_nulls(kind, child)


def _children(known: FieldDescriptor, value: Any) -> Iterator[tuple[Descriptor, Any]]:
    kind = inside(known)
    if is_map(known):
        of_value = kind.fields_by_name["value"].message_type
        if of_value is not None:
            yield from ((of_value, child) for child in value.values())
    elif known.is_repeated:
        yield from ((kind, child) for child in value)
    else:
        yield kind, value


def _without_unknown_details(message: Message) -> Message:
    """A copy without those `Any` whose type this process does not know."""
    copy = type(message)()
    copy.CopyFrom(message)
    _drop_unknown(copy)
    return copy


def _drop_unknown(message: Message) -> None:
    for known, value in message.ListFields():
        if known.message_type is None or is_map(known):
            continue
        if known.message_type.full_name == "google.protobuf.Any" and known.is_repeated:
            kept = [detail for detail in value if _is_printable(detail)]
            del value[:]
            value.extend(kept)
            continue
        for child in value if known.is_repeated else [value]:
            _drop_unknown(child)


def _is_printable(detail: Message) -> bool:
    try:
        json_format.MessageToDict(detail)
    except TypeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _malformed(f"The body has the name {shown(twice)} twice in one object.", name=twice[:100])
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is no JSON number; write "{name}" as a text')


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [child for one in level for child in _members(one)]
        if not level:
            return False
    return True


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    return [child for child in value if isinstance(child, dict | list)] if isinstance(value, list) else []


def _takes_null(known: FieldDescriptor) -> bool:
    return bool(known.message_type is not None and known.message_type.full_name == "google.protobuf.Value")


def _rival(known: FieldDescriptor, value: Any, seen: set[str]) -> str:
    """Why the field cannot be set a second time; empty when it can be."""
    if known.name in seen:
        return "stands twice, under both of its names"
    seen.add(known.name)
    oneof = known.containing_oneof
    if oneof is None or value is None:
        return ""
    if oneof.full_name in seen:
        return "only one of " + ", ".join(field.json_name for field in oneof.fields) + " may be set"
    seen.add(oneof.full_name)
    return ""


def _malformed(message: str, **facts: Any) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_MALFORMED_REQUEST, message, **facts)
