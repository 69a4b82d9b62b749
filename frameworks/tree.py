"""States as JSON and raw arrays: what a checkpoint is made of. Nothing in it can run when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# None, numbers, texts, arrays, and lists, tuples and dictionaries of trees.
Tree = Any

PLAIN = (bool, int, float, str)


class UnsavableError(Exception):
    """A state that is no tree; the message names what is in it."""


def flatten(tree: Tree, arrays: list[np.ndarray]) -> Any:
    """The tree as JSON has it, in which arrays are places in `arrays`; these are appended. Raises UnsavableError."""
    if tree is None or type(tree) in PLAIN:
        return tree
    if isinstance(tree, np.ndarray | np.generic):
        return {"array": _place(tree, arrays), "scalar": isinstance(tree, np.generic)}
    if type(tree) is list:
        return [flatten(item, arrays) for item in tree]
    if type(tree) is tuple:
        return {"tuple": [flatten(item, arrays) for item in tree]}
    if isinstance(tree, dict):
        return {"dict": [[flatten(key, arrays), flatten(value, arrays)] for key, value in tree.items()]}
    raise UnsavableError(f"a {type(tree).__module__}.{type(tree).__qualname__}")


def unflatten(tree: Any, arrays: Sequence[np.ndarray]) -> Tree:
    """The tree that `flatten` was given; dictionaries of any kind come back as plain ones."""
    if isinstance(tree, list):
        return [unflatten(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tuple" in tree:
        return tuple(unflatten(item, arrays) for item in tree["tuple"])
    if "dict" in tree:
        return {unflatten(key, arrays): unflatten(value, arrays) for key, value in tree["dict"]}
    array = arrays[tree["array"]]
    return array[()] if tree["scalar"] else array


def _place(array: Any, arrays: list[np.ndarray]) -> int:
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise UnsavableError("an array of Python objects")
    arrays.append(array)
    return len(arrays) - 1
