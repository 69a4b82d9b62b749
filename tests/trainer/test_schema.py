import numpy as np
import pytest

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.model_pb2 import Signature, TensorSpec
from streams.codecs import Field, Spec
from trainer.schema import check_takes


def takes(**inputs: list[int]) -> Signature:
    return Signature(inputs=[TensorSpec(name=name, shape=shape) for name, shape in inputs.items()])


def fields(**shapes: tuple[int, ...]) -> list[Field]:
    made, start = [], 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        made.append(Field(name, Spec(np.dtype(np.float32), shape), start, stop))
        start = stop
    return made


@pytest.mark.parametrize(
    ("signature", "row", "of"),
    [
        (takes(pixels=[-1, 64]), (64,), []),
        (takes(pixels=[-1, 8, 8]), (8, 8), []),
        (takes(pixels=[-1, -1, 8]), (3, 8), []),
        (takes(pixels=[32, 64]), (64,), []),
        (takes(number=[-1, 1]), (), []),
        (takes(), (64,), []),
        (takes(both=[-1, 3]), (3,), fields(b=(), a=(2,))),
        (takes(a=[-1, 2], b=[-1, 1]), (3,), fields(b=(1,), a=(2,))),
        (takes(a=[-1, 2], b=[-1, 1]), (3,), fields(b=(), a=(2,))),
        (takes(a=[-1, 2], b=[-1, 1]), (7,), fields(c=(4,), b=(1,), a=(2,))),
        (takes(a=[], b=[]), (3,), fields(b=(1,), a=(2,))),
        (takes(a_b=[-1, 2], c=[-1, 1]), (3,), fields(**{"a.b": (2,), "c": ()})),
    ],
    ids=[
        "vector", "matrix", "free", "fixed-batch", "number", "undeclared",
        "fields-as-a-row", "by-name", "number-by-name", "one-too-many", "only-names-known", "nested",
    ],
)  # fmt: skip
def test_fitting_rows_are_taken(signature: Signature, row: tuple[int, ...], of: list[Field]) -> None:
    check_takes(signature, row, of)


@pytest.mark.parametrize(
    ("signature", "row", "of", "expected", "actual"),
    [
        (takes(pixels=[-1, 64]), (63,), [], "pixels (any, 64)", "rows (any, 63)"),
        (takes(pixels=[-1, 64]), (8, 8), [], "pixels (any, 64)", "rows (any, 8, 8)"),
        (takes(a=[-1, 2], b=[-1, 1]), (3,), [], "a (any, 2), b (any, 1)", "rows (any, 3)"),
        (
            takes(a=[-1, 2], b=[-1, 1]), (3,), fields(a=(2,), c=(1,)),
            "a (any, 2), b (any, 1)", "a (any, 2), c (any, 1)",
        ),
        (
            takes(a=[-1, 2], b=[-1, 1]), (4,), fields(a=(2,), b=(2,)),
            "a (any, 2), b (any, 1)", "a (any, 2), b (any, 2)",
        ),
        (takes(a=[], b=[]), (3,), fields(b=(1,), c=(2,)), "a, b", "b (any, 1), c (any, 2)"),
        (
            takes(wine=[-1, 4]), (3,), fields(alcohol=(), ash=(2,)),
            "wine (any, 4)", "rows (any, 3) of the fields alcohol, ash",
        ),
    ],
    ids=["size", "rank", "no-names", "other-names", "size-by-name", "only-names-known", "size-of-fields"],
)  # fmt: skip
def test_a_mismatch_names_both_sides(
    signature: Signature, row: tuple[int, ...], of: list[Field], expected: str, actual: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_takes(signature, row, of)
    assert raised.value.reason == error_pb2.REASON_SCHEMA_MISMATCH
    assert raised.value.metadata == {"expected": expected, "actual": actual}
    assert expected in raised.value.message
    assert actual in raised.value.message


def test_a_thousand_fields_do_not_fill_the_message() -> None:
    of = fields(**{f"field{number}": () for number in range(1000)})
    with pytest.raises(InvalidArgument) as raised:
        check_takes(takes(a=[-1, 4]), (1000,), of)
    assert raised.value.metadata["actual"].endswith("field19, and 980 more")
