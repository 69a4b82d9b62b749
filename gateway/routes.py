"""The routes of the REST API, found by walking the services for their `google.api.http` rules."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote_to_bytes

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

import headrace.v1

HTTP_BODY = "google.api.HttpBody"
_PARAMETER = re.compile(r"\{([a-z0-9_.]+)\}")


@dataclass(frozen=True)
class Route:
    """One HTTP rule of one method."""

    verb: str
    template: str
    # The field of the request that the body is; "*": all that the path does not give; "": no body.
    body: str
    method: MethodDescriptor
    # 0 for the method's main rule, from 1 for its additional bindings.
    binding: int
    path_fields: tuple[str, ...]
    pattern: re.Pattern[str]

    @property
    def rpc_path(self) -> str:
        """The path of the gRPC method, such as `/headrace.v1.ModelRegistry/GetModel`."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def request_class(self) -> type[Message]:
        return message_factory.GetMessageClass(self.method.input_type)

    @property
    def response_class(self) -> type[Message]:
        return message_factory.GetMessageClass(self.method.output_type)

    @property
    def streams(self) -> bool:
        return bool(self.method.server_streaming)

    @property
    def returns_bytes(self) -> bool:
        return bool(self.method.output_type.full_name == HTTP_BODY)

    def match(self, raw_path: str) -> dict[str, bytes] | None:
        """The path's values by field, percent-decoded; None when the path is not of this route."""
        found = self.pattern.fullmatch(raw_path)
        if found is None:
            return None
        return {field: unquote_to_bytes(text) for field, text in zip(self.path_fields, found.groups(), strict=True)}


@dataclass(frozen=True)
class Match:
    """A route and what the path says."""

    route: Route
    path_values: dict[str, bytes]


def find(verb: str, raw_path: str) -> Match | None:
    """The route for a request, by its path as it came (percent-encoded, without the query)."""
    for route in routes():
        values = route.match(raw_path) if route.verb == verb else None
        if values is not None:
            return Match(route, values)
    return None


def verbs_of(raw_path: str) -> list[str]:
    """Every HTTP verb that the path takes; empty when there is no such path."""
    return sorted({route.verb for route in routes() if route.match(raw_path) is not None})


@cache
def routes() -> Sequence[Route]:
    """Every route."""
    return tuple(route for file in api_files() for method in _methods(file) for route in _routes_of(method))


@cache
def api_files() -> Sequence[FileDescriptor]:
    """The descriptors of every file of the API, in the order of their names."""
    names = sorted(m.name for m in pkgutil.iter_modules(headrace.v1.__path__) if m.name.endswith("_pb2"))
    return tuple(importlib.import_module(f"headrace.v1.{name}").DESCRIPTOR for name in names)


def _methods(file: FileDescriptor) -> Iterator[MethodDescriptor]:
    for service in file.services_by_name.values():
        yield from service.methods


def _routes_of(method: MethodDescriptor) -> Iterator[Route]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    if rule.WhichOneof("pattern") is None:
        return
    if method.client_streaming:
        raise ValueError(f"{method.full_name} takes a stream: it cannot have an HTTP route")
    for binding, one in enumerate([rule, *rule.additional_bindings]):
        yield _route(method, one, binding)


def _route(method: MethodDescriptor, rule: http_pb2.HttpRule, binding: int) -> Route:
    verb = rule.WhichOneof("pattern")
    template = getattr(rule, verb)
    fields = tuple(_PARAMETER.findall(template))
    literals = _PARAMETER.split(template)[::2]
    if any(brace in literal for literal in literals for brace in "{}*"):
        raise ValueError(f"{method.full_name}: the path {template} has wildcards, which this gateway does not know")
    pattern = "([^/]+)".join(re.escape(literal) for literal in literals)
    if template.endswith("}"):
        pattern = pattern.removesuffix("([^/]+)") + "([^/:]+)"  # what follows a colon would be a verb
    return Route(verb.upper(), template, rule.body, method, binding, fields, re.compile(pattern))
