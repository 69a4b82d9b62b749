"""The arguments of `fit` and `evaluate` as people write them: `epochs=5, steps_per_epoch=1000, shuffle=True`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from frameworks.failure import Failure

TEXT_LIMIT = 10_000
_BEFORE = "arguments("


@dataclass(frozen=True)
class Problem:
    """One wrong argument. `column` counts from 1 in its line."""

    reason: str
    message: str
    line: int
    column: int


Check = Callable[[Any], str | None]
"""Says what would be right for a value, or None when it is right."""


@dataclass(frozen=True)
class Known:
    """The arguments that there are, in the framework's order, each with its check."""

    checks: Mapping[str, Check]

    @classmethod
    def of(cls, signature: Iterable[str], checks: Mapping[str, Check]) -> Known:
        """Those of the names in a framework's signature that a text can give: the ones with a check."""
        return cls({name: checks[name] for name in signature if name in checks})

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return list(self.checks)


def parameters_of(*functions: Callable[..., Any]) -> list[str]:
    """Names of the parameters of some functions, in order, each once."""
    names = [name for function in functions for name in inspect.signature(function).parameters]
    return list(dict.fromkeys(names))


def parse(text: str, known: Known) -> tuple[dict[str, Any], list[Problem]]:
    """The values by name, and everything that is wrong with the text. Nothing is evaluated."""
    if len(text) > TEXT_LIMIT:
        return {}, [Problem("INVALID_FIELD", f"{len(text)} characters; at most {TEXT_LIMIT} are allowed", 1, 1)]
    try:
        call = ast.parse(f"{_BEFORE}{text}\n)", mode="eval").body
    except SyntaxError as error:
        message = f"{error.msg}; arguments look like `epochs=5, shuffle=True`"
        last_line = max(1, len(text.splitlines()))
        if (error.lineno or 1) > last_line:  # At the end of the text, where the call is closed.
            return {}, [Problem("UNKNOWN_ARGUMENT", message, last_line, len(text.splitlines()[-1]) if text else 1)]
        return {}, [_problem("UNKNOWN_ARGUMENT", message, error.lineno or 1, (error.offset or 1) - 1)]
    except (ValueError, MemoryError, RecursionError) as error:
        return {}, [Problem("UNKNOWN_ARGUMENT", f"cannot be read: {error or type(error).__name__}", 1, 1)]
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return {}, [Problem("UNKNOWN_ARGUMENT", "arguments look like `epochs=5, shuffle=True`", 1, 1)]
    problems = [
        _problem("UNKNOWN_ARGUMENT", "a value without a name; write `name=value`", node.lineno, node.col_offset)
        for node in call.args
    ]
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        problem = _take(keyword, known, values)
        if problem is not None:
            problems.append(problem)
    return values, problems


def values_of(text: str, known: Known, what: str) -> dict[str, Any]:
    """The values by name. Raises UNKNOWN_ARGUMENT or INVALID_FIELD with the known names."""
    values, problems = parse(text, known)
    if problems:
        message = f"{what}: " + "; ".join(problem.message for problem in problems)
        raise Failure(problems[0].reason, message, file=what, known=", ".join(known.names))
    return values


def _take(keyword: ast.keyword, known: Known, values: dict[str, Any]) -> Problem | None:
    name, node = keyword.arg, keyword.value
    place = (keyword.lineno, keyword.col_offset)
    if name is None:
        return _problem("UNKNOWN_ARGUMENT", "`**` is not allowed; write every `name=value`", *place)
    if name not in known.checks:
        message = f"unknown argument `{name}`; known are {', '.join(known.names)}"
        return _problem("UNKNOWN_ARGUMENT", message, *place)
    if name in values:
        return _problem("UNKNOWN_ARGUMENT", f"`{name}` is given twice", *place)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        message = f"`{name}` is not a literal: numbers, texts, True, False, None, lists and dictionaries of them are"
        return _problem("UNKNOWN_ARGUMENT", message, node.lineno, node.col_offset)
    right = known.checks[name](value)
    if right is not None:
        message = f"`{name}` must be {right}, not {value!r:.100}"
        return _problem("INVALID_FIELD", message, node.lineno, node.col_offset)
    values[name] = value
    return None


def _problem(reason: str, message: str, line: int, column_offset: int) -> Problem:
    """Places count in the text, which does not begin with the call that it was parsed in."""
    before = len(_BEFORE) if line == 1 else 0
    return Problem(reason, message, line, max(0, column_offset - before) + 1)


def whole(minimum: int, *, optional: bool = False) -> Check:
    """A whole number of at least `minimum`."""

    def check(value: Any) -> str | None:
        right = type(value) is int and value >= minimum
        return None if right or (optional and value is None) else f"a whole number from {minimum}"

    return check


def one_of(*values: object) -> Check:
    """One of some values."""

    def check(value: Any) -> str | None:
        # `1 == True`: compare types as well.
        if any(value == one and type(value) is type(one) for one in values):
            return None
        return "one of " + ", ".join(repr(one) for one in values)

    return check


def number(minimum: float) -> Check:
    """A number of at least `minimum`."""

    def check(value: Any) -> str | None:
        right = type(value) in (int, float) and value >= minimum
        return None if right else f"a number from {minimum:g}"

    return check


boolean = one_of(True, False)


def class_weights(value: Any) -> str | None:
    """A weight per class: `{0: 1.0, 1: 2.5}`."""
    if value is None:
        return None
    right = isinstance(value, dict) and all(
        type(label) is int and label >= 0 and type(weight) in (int, float) and weight >= 0
        for label, weight in value.items()
    )
    return None if right and value else "a dictionary of a weight per class, such as {0: 1.0, 1: 2.5}"


def epochs_to_validate(value: Any) -> str | None:
    """Every n-th epoch, or the epochs of a list."""
    if type(value) is int and value >= 1:
        return None
    is_list = isinstance(value, list | tuple) and bool(value)
    right = is_list and all(type(epoch) is int and epoch >= 1 for epoch in value)
    return None if right else "a whole number from 1 or a list of epochs"
