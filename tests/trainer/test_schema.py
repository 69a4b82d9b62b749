import pytest

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.model_pb2 import Signature, TensorSpec
from trainer.schema import check_takes

Inputs = dict[str, list[int]]


def takes(**inputs: list[int]) -> Signature:
    return Signature(inputs=[TensorSpec(name=name, shape=shape) for name, shape in inputs.items()])


@pytest.mark.parametrize(
    ("signature", "rows"),
    [
        (takes(pixels=[-1, 64]), {"": (64,)}),
        (takes(pixels=[-1, 8, 8]), {"": (8, 8)}),
        (takes(pixels=[-1, -1, 8]), {"": (3, 8)}),
        (takes(pixels=[32, 64]), {"": (64,)}),
        (takes(a=[-1, 2], b=[-1, 1]), {"b": (1,), "a": (2,)}),
        (takes(), {"": (64,)}),
    ],
    ids=["vector", "matrix", "free", "fixed-batch", "by-name", "undeclared"],
)
def test_fitting_rows_are_taken(signature: Signature, rows: dict[str, tuple[int, ...]]) -> None:
    check_takes(signature, rows)


@pytest.mark.parametrize(
    ("signature", "rows", "expected", "actual"),
    [
        (takes(pixels=[-1, 64]), {"": (63,)}, "pixels (any, 64)", "rows (any, 63)"),
        (takes(pixels=[-1, 64]), {"": (8, 8)}, "pixels (any, 64)", "rows (any, 8, 8)"),
        (takes(a=[-1, 2], b=[-1, 1]), {"": (3,)}, "a (any, 2), b (any, 1)", "rows (any, 3)"),
        (takes(a=[-1, 2], b=[-1, 1]), {"a": (2,), "c": (1,)}, "a (any, 2), b (any, 1)", "a (any, 2), c (any, 1)"),
    ],
    ids=["size", "rank", "names-missing", "other-names"],
)
def test_a_mismatch_names_both_sides(
    signature: Signature, rows: dict[str, tuple[int, ...]], expected: str, actual: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_takes(signature, rows)
    assert raised.value.reason == error_pb2.REASON_SCHEMA_MISMATCH
    assert raised.value.metadata == {"expected": expected, "actual": actual}
