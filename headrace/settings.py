"""Settings from the environment, read once at a process's start."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

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

    Types: str, int, float, bool, Path, each of them with None (an empty text is None), and Annotated with a function
    that takes the value and raises ValueError with what it must be, such as HostPort. Raises SettingsError with all
    problems.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name, needed = PREFIX + field.name.upper(), _is_needed(field)
        text = environ.get(name)
        if text is None or (needed and not text):
            if needed:
                problems.append(f"{name} is not set")
            continue
        try:
            values[field.name] = _read(text, hints[field.name])
        except ValueError as error:
            problems.append(f"{name} is {text!r}, but it must be {error}")
    if problems:
        raise SettingsError(problems)
    return cls(**values)


def host_port(text: str) -> None:
    """Raises ValueError unless the text is HOST:PORT, or empty."""
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdecimal() and int(port) < 65536):
        raise ValueError("HOST:PORT, such as 127.0.0.1:8070")


HostPort = Annotated[str, host_port]


def _is_needed(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read(text: str, hint: Any) -> Any:
    kind, checks, optional = _taken_apart(hint)
    if optional and not text:
        return None
    value = _parse(text, kind)
    for check in checks:
        check(value)
    return value


def _taken_apart(hint: Any) -> tuple[type, tuple[Callable[[Any], None], ...], bool]:
    """The plain type of a field, its checks, and whether it may be None."""
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is Annotated:
        kind, *checks = typing.get_args(hint)
        return kind, tuple(checks), optional
    return hint, (), optional


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        return _parse_bool(text)
    try:
        value = kind(text)
    except ValueError:
        names = {int: "a whole number", float: "a number"}
        raise ValueError(names.get(kind, kind.__name__)) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise ValueError("true or false")
