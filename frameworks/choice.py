"""Which of the code's variables is the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from frameworks.failure import Failure


def choose_model(variables: Mapping[str, Any], is_model: Callable[[Any], bool], wanted: str) -> Any:
    """The variable `model`, or else the only model that there is under another name. Raises NO_MODEL.

    Sub-models of a distributed model carry names of their own (`edge_model`) in the code that people have.
    """
    if "model" in variables:
        return _checked(variables["model"], is_model, wanted)
    others = {id(value): name for name, value in variables.items() if not name.startswith("_") and is_model(value)}
    if len(others) == 1:
        return variables[next(iter(others.values()))]
    if others:
        names = ", ".join(others.values())
        raise Failure("NO_MODEL", f"the code leaves {len(others)} models ({names}) and none of them is called `model`")
    raise Failure("NO_MODEL", f"the code leaves no variable `model`; it has to be {wanted}")


def _checked(value: Any, is_model: Callable[[Any], bool], wanted: str) -> Any:
    if is_model(value):
        return value
    if isinstance(value, type):
        message = f"`model` is the class {value.__name__}; write `model = {value.__name__}()`"
        raise Failure("NO_MODEL", message)
    raise Failure("NO_MODEL", f"`model` is of the type {type(value).__name__}; it has to be {wanted}")
