"""An HTTP request to the request message of its method, as grpc-gateway does it.

The path gives the fields in its template, the body the field (or all the rest) that the rule names, and the query every
other field, nested ones by dots. A PATCH without `update_mask` means the fields that its body has.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway import messages
from gateway.routes import Match, Route
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2

_UPDATE_MASK = "update_mask"
# As Go's strconv.ParseBool, which grpc-gateway uses.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}


class WrongFields(InvalidArgument):
    """INVALID_FIELD: these fields are no values of their types. `rest` is the request without them."""

    def __init__(self, violations: Sequence[FieldViolation], rest: Message):
        first = violations[0]
        more = f" ({len(violations) - 1} more fields are wrong.)" if len(violations) > 1 else ""
        super().__init__(
            error_pb2.REASON_INVALID_FIELD,
            f"{first.field} {first.description}{'' if first.description.endswith('?') else '.'}{more}",
            fields=violations,
            field=first.field,
        )
        self.rest = rest


def request_message(match: Match, query: Sequence[tuple[str, str]], body: bytes) -> Message:
    """The request message. Raises InvalidArgument: MALFORMED_REQUEST for a body that is no JSON, else WrongFields
    with every wrong field of path, query and body."""
    route = match.route
    message = route.request_class()
    value = _body_value(route, body)
    violations = _fill_from_body(route, message, value)
    violations += _fill_from_path(match, message)
    violations += _fill_from_query(route, message, query)
    if violations:
        raise WrongFields(violations, message)
    _infer_update_mask(route, message, value)
    return message


def _body_value(route: Route, body: bytes) -> Any:
    """The body's JSON value; None where the rule takes no body or the client sent none."""
    if not body.strip():
        return None
    if not route.body:
        raise InvalidArgument(
            error_pb2.REASON_MALFORMED_REQUEST,
            f"{route.verb} {route.template} takes no body; its fields go into the query.",
        )
    return messages.parse_json(body)


def _fill_from_body(route: Route, message: Message, value: Any) -> list[FieldViolation]:
    if value is None:
        return []
    if route.body == "*":
        return messages.fill(message, value)
    target = getattr(message, route.body)
    target.SetInParent()
    return messages.fill(target, value, _field(message, route.body).json_name)


def _fill_from_path(match: Match, message: Message) -> list[FieldViolation]:
    violations = []
    for path, raw in match.path_values.items():
        parent, field = _walk(message, path.split("."))
        said = getattr(parent, field.name)
        text = _utf8(raw)
        if text is None or not messages.set_scalar(parent, field, text):
            shown = messages.shown(raw.decode(errors="replace"))
            violations.append(FieldViolation(path, f"must be {messages.expected(field)}, not {shown}"))
        elif said not in (field.default_value, getattr(parent, field.name)):
            violations.append(FieldViolation(path, f"is {text} in the path but {said} in the body"))
    return violations


def _fill_from_query(route: Route, message: Message, query: Sequence[tuple[str, str]]) -> list[FieldViolation]:
    texts: dict[str, list[str]] = {}
    for name, text in query:
        texts.setdefault(name, []).append(text)
    violations = []
    for name, values in texts.items():
        wrong = _set_from_query(route, message, name, values)
        if wrong:
            violations.append(FieldViolation(name, wrong))
    return violations[: messages.MAX_VIOLATIONS]


def _set_from_query(route: Route, message: Message, name: str, texts: list[str]) -> str:
    """Sets one field from the query; what is wrong with it, or an empty text."""
    found = _find(messages.type_of(message), name.split("."))
    if isinstance(found, str):
        return found
    path = ".".join(field.name for field in found)
    if path in route.path_fields:
        return "is given by the path"
    if route.body == "*" or found[0].name == route.body:
        return "goes into the body, not into the query"
    field = found[-1]
    if messages.is_map(field) or not messages.is_leaf(field):
        return "cannot be given in a query; name the fields inside it, joined by dots"
    if len(texts) > 1 and not field.is_repeated:
        return "stands more than once"
    parent, _ = _walk(message, path.split("."))
    values = [_query_value(field, text) for text in texts]
    if messages.set_scalar(parent, field, values if field.is_repeated else values[0]):
        return ""
    return f"must be {messages.expected(field)}, not {messages.shown(','.join(texts))}"


def _query_value(field: FieldDescriptor, text: str) -> Any:
    """The JSON value that a text in a query stands for. Numbers may be texts in JSON, booleans may not."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _BOOLEANS.get(text, text)
    return text


def _find(descriptor: Descriptor, names: Sequence[str]) -> list[FieldDescriptor] | str:
    """The fields along a path of names, or what is wrong with it."""
    fields: list[FieldDescriptor] = []
    for name in names:
        if fields and (fields[-1].is_repeated or messages.is_leaf(fields[-1])):
            return f"{fields[-1].json_name} has no fields inside it"
        inside = messages.inside(fields[-1]) if fields else descriptor
        field = messages.find_field(inside, name)
        if field is None:
            return messages.unknown_field(inside, name)
        fields.append(field)
    return fields


def _walk(message: Message, names: Sequence[str]) -> tuple[Message, FieldDescriptor]:
    """The message that holds the last field of a path of proto names, and that field."""
    for name in names[:-1]:
        message = getattr(message, name)
    return message, _field(message, names[-1])


def _field(message: Message, name: str) -> FieldDescriptor:
    return messages.type_of(message).fields_by_name[name]


def _infer_update_mask(route: Route, message: Message, value: Any) -> None:
    """For PATCH: no mask means the fields that the body has, also those it sets to their defaults."""
    mask_field = message.DESCRIPTOR.fields_by_name.get(_UPDATE_MASK)
    if route.verb != "PATCH" or mask_field is None or not isinstance(value, dict):
        return
    mask = getattr(message, _UPDATE_MASK)
    if not mask.paths:
        mask.paths.extend(_paths(messages.inside(_field(message, route.body)), value))


def _paths(descriptor: Descriptor, value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The proto paths of the leaves that a JSON object has: lists, maps and well-known types are leaves."""
    for name, item in value.items():
        field = messages.find_field(descriptor, name)
        if field is None:
            continue
        path = prefix + field.name
        if isinstance(item, dict) and item and not (messages.is_leaf(field) or messages.is_map(field)):
            yield from _paths(messages.inside(field), item, path + ".")
        else:
            yield path


def _utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
