"""Whether the records of a stream are what a model takes; said before the first step, in both sides' shapes."""

from collections.abc import Mapping, Sequence

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.model_pb2 import Signature, TensorSpec

Shape = Sequence[int]


def check_takes(signature: Signature, rows: Mapping[str, Shape]) -> None:
    """Raises SCHEMA_MISMATCH unless the model takes rows of these shapes (by field name; "" for a single one).

    A model that declares no inputs takes everything: the worker will see at the first step.
    """
    if not signature.inputs:
        return
    inputs = {each.name: each for each in signature.inputs}
    if len(inputs) == 1 and len(rows) == 1:
        fits = _fits(signature.inputs[0], next(iter(rows.values())))
    else:
        fits = inputs.keys() == rows.keys() and all(_fits(inputs[name], rows[name]) for name in inputs)
    if fits:
        return
    takes = ", ".join(_show(each.name, each.shape) for each in signature.inputs)
    has = ", ".join(_show(name, [-1, *shape]) for name, shape in rows.items())
    raise InvalidArgument(
        error_pb2.REASON_SCHEMA_MISMATCH,
        f"the model takes {takes}, but the stream has {has}; change the model's input or the stream's reshape",
        expected=takes,
        actual=has,
    )


def _fits(wanted: TensorSpec, row: Shape) -> bool:
    if len(wanted.shape) != len(row) + 1:
        return False
    return all(want in (-1, has) for want, has in zip(wanted.shape[1:], row, strict=True))


def _show(name: str, shape: Shape) -> str:
    sizes = ", ".join("any" if size < 0 else str(size) for size in shape)
    return f"{name} ({sizes})" if name else f"rows ({sizes})"
