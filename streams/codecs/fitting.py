"""Whether numbers fit a type: nothing but precision may be lost on the way into it."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.codecs import Array


def fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether the type holds every value but for its precision. NaN and infinities fit floats, and no whole numbers."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    if array.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        return bool(np.can_cast(array.dtype, dtype, "same_kind"))
    return bool(_held(array, dtype).all())


def misfit(array: Array, dtype: np.dtype[Any]) -> str:
    """What is wrong with an array that does not fit: its first such value, and the range of the type."""
    if array.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        return f"{array.dtype.name} is no {dtype.name}"
    value = array[~_held(array, dtype)].flat[0].item()
    whole = "" if dtype.kind == "f" else "whole numbers "
    low, high = _range(dtype)
    return f"{value} does not fit {dtype.name}, which takes {whole}from {low} to {high}"


def _held(array: Array, dtype: np.dtype[Any]) -> Array:
    """Of each number whether the type holds it."""
    # A bool or a float16 cannot be compared with the limits of wider types.
    array = array.astype({"b": np.uint8, "f": np.float64}.get(array.dtype.kind, array.dtype), copy=False)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(np.isfinite(array.astype(dtype)) | ~np.isfinite(array))
    low, high = _range(dtype)
    # The number above the highest one is a power of two, which floats have exactly.
    inside = (array >= low) & (array < high + 1)
    return np.asarray(inside & (array == np.trunc(array)) if array.dtype.kind == "f" else inside)


def _range(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
