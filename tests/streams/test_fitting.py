"""Which numbers fit which types."""

import warnings
from typing import Any

import numpy as np
import pytest

from streams.codecs.fitting import fits, misfit


@pytest.mark.parametrize(
    ("values", "given", "wanted", "fit"),
    [
        ([2**64 - 1], "uint64", "int64", False),
        ([2**63 - 1], "uint64", "int64", True),
        ([-1], "int64", "uint64", False),
        ([-1], "int64", "uint32", False),
        ([2**32 - 1, 0], "int64", "uint32", True),
        ([2**32], "int64", "uint32", False),
        ([2.0**63], "float64", "int64", False),
        ([-(2.0**63)], "float64", "int64", True),
        ([2.0**64], "float32", "uint64", False),
        ([3.0, 4.0], "float16", "int64", True),
        ([0.5], "float32", "int64", False),
        ([np.nan], "float64", "int64", False),
        ([np.inf], "float64", "int64", False),
        ([0, 1], "int64", "bool", True),
        ([2], "int64", "bool", False),
        ([True], "bool", "int8", True),
        ([0.1], "float64", "float32", True),
        ([1e300], "float64", "float32", False),
        ([-1e300], "float64", "float32", False),
        ([np.nan, np.inf, -np.inf], "float64", "float16", True),
        ([70000], "int64", "float16", False),
        ([2**53 + 1], "int64", "float64", True),
        ([], "int64", "uint8", True),
        (["a"], "U1", "float64", False),
        ([1j], "complex128", "float64", False),
    ],
)
def test_only_precision_may_be_lost(values: list[Any], given: str, wanted: str, fit: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fits(np.array(values, given), np.dtype(wanted)) == fit


def test_what_does_not_fit_is_told_with_the_range() -> None:
    text = misfit(np.array([[1, 2], [3, -1]]), np.dtype("uint8"))
    assert text == "-1 does not fit uint8, which takes whole numbers from 0 to 255"
    assert "1e+300 does not fit float32, which takes from -3.4" in misfit(np.array([1e300]), np.dtype("float32"))
