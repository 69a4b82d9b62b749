"""Updates through field masks (AIP-134, AIP-161)."""

from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2


def apply_update(stored: Message, update: Message, mask: FieldMask | None) -> list[str]:
    """Copies the masked fields of `update` into `stored` and returns the paths that changed.

    Without a mask (None or empty) every populated field is meant; `*` means every field. Output-only fields and the
    id are ignored. Raises InvalidArgument naming every unknown path.
    """
    paths = _paths(update, mask)
    unknown = [path for path in paths if not _exists(update.DESCRIPTOR, path)]
    if unknown:
        known = ", ".join(field.name for field in update.DESCRIPTOR.fields if not _is_output_only(field))
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            f"update_mask has unknown paths: {', '.join(unknown)}; known are {known}",
            fields=[FieldViolation("update_mask", f"{path} is unknown") for path in unknown],
            paths=",".join(unknown),
        )
    changed = []
    for path in paths:
        if not _is_output_only_path(update.DESCRIPTOR, path) and _copy(stored, update, path):
            changed.append(path)
    return changed


def _paths(update: Message, mask: FieldMask | None) -> list[str]:
    if mask is None or not mask.paths:
        return [field.name for field, _ in update.ListFields()]
    if list(mask.paths) == ["*"]:
        return [field.name for field in update.DESCRIPTOR.fields]
    return list(dict.fromkeys(mask.paths))


def _exists(descriptor: Any, path: str) -> bool:
    first, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(first)
    if field is None:
        return False
    return not rest or (field.message_type is not None and not field.is_repeated and _exists(field.message_type, rest))


def _is_output_only_path(descriptor: Any, path: str) -> bool:
    first, _, rest = path.partition(".")
    field = descriptor.fields_by_name[first]
    return _is_output_only(field) or (bool(rest) and _is_output_only_path(field.message_type, rest))


def _is_output_only(field: Any) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.name == "id" or field_behavior_pb2.OUTPUT_ONLY in behaviors


def _copy(stored: Message, update: Message, path: str) -> bool:
    first, _, rest = path.partition(".")
    if rest:
        return _copy(getattr(stored, first), getattr(update, first), rest)
    before = stored.SerializeToString(deterministic=True)
    stored.ClearField(first)
    part = type(update)()
    part.CopyFrom(update)
    for field, _ in part.ListFields():
        if field.name != first:
            part.ClearField(field.name)
    stored.MergeFrom(part)
    return stored.SerializeToString(deterministic=True) != before
