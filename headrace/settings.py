"""Settings from the environment, read once at a process's start."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

PREFIX = "HEADRACE_"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")


class SettingsError(Exception):
    """Every problem at once, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(cls: type[T], environ: Mapping[str, str]) -> T:
    """An instance of a frozen dataclass whose field `max_trainings` is read from `HEADRACE_MAX_TRAININGS`.

    Types: str, int, float, bool, Path, and each of them with None. Raises SettingsError with all problems.
    """
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = PREFIX + field.name.upper()
        text = environ.get(name)
        if text is None:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(f"{name} is not set")
            continue
        try:
            values[field.name] = _parse(text, _plain_type(hints[field.name]))
        except ValueError as error:
            problems.append(f"{name} is {text!r}, but it must be {error}")
    if problems:
        raise SettingsError(problems)
    return cls(**values)


def _plain_type(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
    return typing.cast(type, hint)


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        return _parse_bool(text)
    try:
        return kind(text)
    except ValueError:
        names = {int: "a whole number", float: "a number"}
        raise ValueError(names.get(kind, kind.__name__)) from None


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise ValueError("true or false")
