"""Whether the records of a stream are what a model takes; said before the first step, in both sides' shapes."""

from collections.abc import Sequence

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.model_pb2 import Signature, TensorSpec
from streams.codecs import Field

Shape = Sequence[int]
# How many fields a message names.
SHOWN = 20


def check_takes(signature: Signature, row: Shape, fields: Sequence[Field] = ()) -> None:
    """Raises SCHEMA_MISMATCH unless the model takes rows of this shape, or these fields of them by name.

    A model with one input takes the row as it is, one with several the fields of their names; fields that none of them
    takes are left out. A model that declares no inputs takes everything: the worker will see at the first step.
    """
    if len(signature.inputs) > 1:
        _check_fields(signature, row, fields)
    elif signature.inputs and not _fits(signature.inputs[0], row):
        raise _mismatch(signature, _show_row(row, fields), "change the model's input or the stream's reshape")


def _check_fields(signature: Signature, row: Shape, fields: Sequence[Field]) -> None:
    shapes = {field.name: field.spec.shape for field in fields}
    # A field of a nested record, `person.age`, feeds the parameter `person_age`.
    by_input = {name.replace(".", "_"): shape for name, shape in shapes.items()} | shapes
    if not fields:
        raise _mismatch(signature, _show_row(row, fields), "send records with named fields, or give it one input")
    if any(each.name not in by_input or not _fits(each, by_input[each.name]) for each in signature.inputs):
        has = _cut([_show(name, [-1, *shape]) for name, shape in shapes.items()])
        raise _mismatch(signature, has, "change its inputs or the records' fields: they meet by name")


def _fits(wanted: TensorSpec, row: Shape) -> bool:
    if not wanted.shape:
        return True  # Of a PyTorch model's several inputs only the names are known.
    shape = list(wanted.shape[1:])
    if (shape, list(row)) in (([], [1]), ([1], [])):
        return True  # A number is as good as a vector of one.
    return len(shape) == len(row) and all(want in (-1, has) for want, has in zip(shape, row, strict=True))


def _mismatch(signature: Signature, has: str, right: str) -> InvalidArgument:
    takes = _cut([_show(each.name, each.shape) for each in signature.inputs])
    message = f"the model takes {takes}, but the stream has {has}; {right}"
    return InvalidArgument(error_pb2.REASON_SCHEMA_MISMATCH, message, expected=takes, actual=has)


def _show_row(row: Shape, fields: Sequence[Field]) -> str:
    shown = _show("", [-1, *row])
    return f"{shown} of the fields {_cut([field.name for field in fields])}" if fields else shown


def _show(name: str, shape: Shape) -> str:
    sizes = ", ".join("any" if size < 0 else str(size) for size in shape)
    return f"{name or 'rows'} ({sizes})" if shape else name


def _cut(texts: list[str]) -> str:
    rest = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return ", ".join(texts[:SHOWN] + rest)
