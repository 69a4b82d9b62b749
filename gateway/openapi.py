"""The OpenAPI 3.1 document of the REST API, made of the services' descriptors and the comments in the protos.

`python -m gateway.openapi` prints it; the web pages take their types from it.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from google.rpc import status_pb2

import headrace
from gateway import errors, messages
from gateway.events import EVENT_STREAM, JSON_LINES
from gateway.routes import Route, routes

Schema = dict[str, Any]

_F = FieldDescriptor
_DOUBLE: Schema = {
    "anyOf": [{"type": "number", "format": "double"}, {"enum": ["NaN", "Infinity", "-Infinity"], "type": "string"}]
}
_INT32: Schema = {"type": "integer", "format": "int32"}
_INT64: Schema = {"type": "string", "format": "int64"}
_UINT32: Schema = {"type": "integer", "format": "int64", "minimum": 0}
_UINT64: Schema = {"type": "string", "format": "uint64"}
_SCALARS: Mapping[int, Schema] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), _UINT64),
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_FLOAT: _DOUBLE,
    _F.TYPE_DOUBLE: _DOUBLE,
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "examples": ["1.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["name,description"]},
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}
_ABOUT = """\
The REST API of Headrace: `headrace.v1` by its `google.api.http` rules, as grpc-gateway would serve it. 64-bit \
integers are texts, fields that are not set are present, times are RFC 3339.

A client may send `Grpc-Timeout` (such as `10S`) as its deadline. Streams come as JSON lines, or as server-sent events \
for `Accept: text/event-stream`: the events' ids resume a stream through `Last-Event-ID`, the event `end` says that it \
ended in order, `failure` that it failed (`resume` says whether to come back)."""


def document() -> Schema:
    """The whole document."""
    schemas = _Schemas()
    paths: Schema = {}
    for route in sorted(routes(), key=lambda route: (route.template, route.verb)):
        operations = paths.setdefault(openapi_path(route), {})
        operations[route.verb.lower()] = _operation(route, schemas)
    services = {route.method.containing_service for route in routes()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace",
            "version": headrace.__version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": sorted(
            ({"name": service.name, "description": _comment(service.full_name)} for service in services),
            key=lambda tag: tag["name"],
        ),
        "paths": paths,
        "components": {"schemas": schemas.all()},
    }


def openapi_path(route: Route) -> str:
    """The route's path with its parameters in JSON's names: `/v1/models/{model.id}`."""
    return re.sub(r"\{([^}]+)\}", lambda found: "{" + _json_path(found[1]) + "}", route.template)


def _operation(route: Route, schemas: "_Schemas") -> Schema:
    summary, _, _ = _comment(route.method.full_name).partition(". ")
    operation: Schema = {
        "operationId": _operation_id(route),
        "tags": [route.method.containing_service.name],
        "summary": summary.rstrip("."),
        "description": _comment(route.method.full_name),
        "parameters": [*_path_parameters(route, schemas), *_query_parameters(route, schemas)],
        "responses": {"200": _answer(route, schemas), "default": _error(schemas)},
    }
    if route.streams and not route.returns_bytes:
        operation["responses"]["204"] = {
            "description": "Server-sent events were resumed with Last-Event-ID, and nothing more will come."
        }
    if route.body:
        content = {"application/json": {"schema": _body_schema(route, schemas)}}
        operation["requestBody"] = {"required": route.body != "*", "content": content}
    return operation


def _operation_id(route: Route) -> str:
    name = f"{route.method.containing_service.name}_{route.method.name}"
    return f"{name}{route.binding + 1}" if route.binding else name


def _path_parameters(route: Route, schemas: "_Schemas") -> Iterator[Schema]:
    for path in route.path_fields:
        field = _field_at(route.method.input_type, path)
        yield {
            "name": _json_path(path),
            "in": "path",
            "required": True,
            "description": _comment(field.full_name),
            "schema": schemas.value_of(field),
        }


def _query_parameters(route: Route, schemas: "_Schemas") -> Iterator[Schema]:
    if route.body == "*":
        return
    for path, field in _query_fields(route.method.input_type):
        if path in route.path_fields or (route.body and path.split(".")[0] == route.body):
            continue
        parameter: Schema = {"name": _json_path(path), "in": "query", "description": _comment(field.full_name)}
        if _is_required(field):
            parameter["required"] = True
        yield {**parameter, "schema": schemas.of_field(field)}


def _query_fields(descriptor: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field that a query can set, by its path of proto names."""
    for field in descriptor.fields:
        if messages.is_map(field):
            continue
        if messages.is_leaf(field):
            yield prefix + field.name, field
        elif not field.is_repeated:
            yield from _query_fields(messages.inside(field), f"{prefix}{field.name}.")


def _body_schema(route: Route, schemas: "_Schemas") -> Schema:
    request = route.method.input_type
    if route.body != "*":
        return schemas.value_of(request.fields_by_name[route.body])
    fields = [field for field in request.fields if field.name not in route.path_fields]
    return schemas.object_of(fields)


def _answer(route: Route, schemas: "_Schemas") -> Schema:
    output = route.method.output_type
    if route.returns_bytes:
        return {"description": "The bytes.", "content": {"*/*": {"schema": {}}}}
    schema = schemas.of_message(output)
    if not route.streams:
        return {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    line: Schema = {"type": "object", "properties": {"result": schema, "error": schemas.status()}}
    return {
        "description": "A stream: JSON lines with `result` (and `error` at last if it fails), or server-sent events.",
        "content": {JSON_LINES: {"schema": line}, EVENT_STREAM: {"schema": schema}},
    }


def _error(schemas: "_Schemas") -> Schema:
    known = sorted(set(errors.HTTP_STATUS.values()) - {200})
    return {
        "description": f"An error, with the HTTP status of its code: one of {', '.join(map(str, known))}.",
        "content": {"application/json": {"schema": schemas.status()}},
    }


class _Schemas:
    """The schemas that are referred to, collected while the operations are written."""

    def __init__(self) -> None:
        self._written: dict[str, Schema] = {}

    def all(self) -> Schema:
        return dict(sorted(self._written.items()))

    def status(self) -> Schema:
        return self.of_message(status_pb2.DESCRIPTOR.message_types_by_name["Status"])

    def of_message(self, descriptor: Descriptor) -> Schema:
        if descriptor.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[descriptor.full_name])
        return self._reference(descriptor.name, lambda: self._message(descriptor))

    def of_field(self, field: FieldDescriptor) -> Schema:
        """The schema of the whole field, also where it is repeated or a map."""
        if messages.is_map(field):
            return {
                "type": "object",
                "additionalProperties": self.value_of(messages.inside(field).fields_by_name["value"]),
            }
        if field.is_repeated:
            return {"type": "array", "items": self.value_of(field)}
        return self.value_of(field)

    def value_of(self, field: FieldDescriptor) -> Schema:
        """The schema of one element of the field."""
        if field.message_type is not None:
            return self.of_message(field.message_type)
        enum = field.enum_type
        if enum is not None:
            return self._reference(enum.name, lambda: _enum(enum))
        return dict(_SCALARS[field.type])

    def object_of(self, fields: list[FieldDescriptor]) -> Schema:
        schema: Schema = {"type": "object", "properties": {field.json_name: self._property(field) for field in fields}}
        required = [field.json_name for field in fields if _is_required(field)]
        return {**schema, "required": required} if required else schema

    def _message(self, descriptor: Descriptor) -> Schema:
        return {"description": _comment(descriptor.full_name), **self.object_of(list(descriptor.fields))}

    def _property(self, field: FieldDescriptor) -> Schema:
        schema = self.of_field(field)
        is_message = field.message_type is not None and not field.is_repeated
        if is_message and field.containing_oneof is None:
            schema = {"anyOf": [schema, {"type": "null"}]}
        comment = _comment(field.full_name)
        if comment:
            schema = {**schema, "description": comment}
        if field_behavior_pb2.OUTPUT_ONLY in _behavior(field):
            schema = {**schema, "readOnly": True}
        return schema

    def _reference(self, name: str, write: Callable[[], Schema]) -> Schema:
        if name not in self._written:
            self._written[name] = {}  # a message may contain itself
            self._written[name] = write()
        return {"$ref": f"#/components/schemas/{name}"}


def _enum(descriptor: EnumDescriptor) -> Schema:
    lines = [f"- {value.name}: {_comment(f'{descriptor.full_name}.{value.name}')}" for value in descriptor.values]
    return {
        "type": "string",
        "enum": [value.name for value in descriptor.values],
        "description": "\n".join([_comment(descriptor.full_name), *lines]),
    }


def _behavior(field: FieldDescriptor) -> list[int]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _is_required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in _behavior(field)


def _field_at(descriptor: Descriptor, path: str) -> FieldDescriptor:
    *parents, last = path.split(".")
    for name in parents:
        descriptor = messages.inside(descriptor.fields_by_name[name])
    return descriptor.fields_by_name[last]


def _json_path(path: str) -> str:
    return ".".join(re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name) for name in path.split("."))


def _comment(full_name: str) -> str:
    return _comments().get(full_name, "")


@cache
def _comments() -> Mapping[str, str]:
    """The leading comment of every element of the protos, by full name. An enum's values are below the enum's name."""
    found: dict[str, str] = {}
    files = FileDescriptorSet.FromString((resources.files("headrace.v1") / "api.binpb").read_bytes())
    for file in files.file:
        names: dict[tuple[int, ...], str] = {}
        for index, service in enumerate(file.service):
            names[6, index] = f"{file.package}.{service.name}"
            for number, method in enumerate(service.method):
                names[6, index, 2, number] = f"{file.package}.{service.name}.{method.name}"
        for index, message in enumerate(file.message_type):
            _name_message((4, index), f"{file.package}.{message.name}", message, names)
        for index, enum in enumerate(file.enum_type):
            names[5, index] = f"{file.package}.{enum.name}"
            for number, value in enumerate(enum.value):
                names[5, index, 2, number] = f"{file.package}.{enum.name}.{value.name}"
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                found[name] = re.sub(r"\s+", " ", location.leading_comments).strip()
    return found


def _name_message(
    path: tuple[int, ...], full_name: str, message: DescriptorProto, names: dict[tuple[int, ...], str]
) -> None:
    """Names the message and its fields by their paths in SourceCodeInfo (the numbers are those of descriptor.proto)."""
    names[path] = full_name
    for index, field in enumerate(message.field):
        names[*path, 2, index] = f"{full_name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        _name_message((*path, 3, index), f"{full_name}.{nested.name}", nested, names)


if __name__ == "__main__":
    sys.stdout.buffer.write(messages.dump_json(document()) + b"\n")
