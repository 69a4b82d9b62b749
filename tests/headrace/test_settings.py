"""Settings from the environment: every type, every problem at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pytest

from headrace.settings import HostPort, SettingsError, load


@dataclass(frozen=True)
class Example:
    kafka: str
    listen: HostPort
    max_trainings: int = 4
    rate: float = 0.5
    verbose: bool = False
    home: Path = Path("home")
    folder: Path | None = None
    limit: Optional[int] = None  # noqa: UP045 - both ways of writing it
    tags: str = field(default_factory=lambda: "none")


NEEDED = {"HEADRACE_KAFKA": "broker:9092", "HEADRACE_LISTEN": "127.0.0.1:8070"}


def test_defaults_stay_where_nothing_is_said() -> None:
    assert load(Example, NEEDED) == Example("broker:9092", "127.0.0.1:8070")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_trainings", "12", 12),
        ("max_trainings", "-1", -1),
        ("rate", "1e3", 1000.0),
        ("verbose", "true", True),
        ("verbose", "ON", True),
        ("verbose", "0", False),
        ("verbose", "no", False),
        ("home", "/var/lib/headrace", Path("/var/lib/headrace")),
        ("folder", "x", Path("x")),
        ("folder", "", None),
        ("limit", "3", 3),
        ("limit", "", None),
        ("tags", "", ""),
        ("listen", "[::]:80", "[::]:80"),
    ],
)
def test_a_text_becomes_a_value_of_the_fields_type(name: str, text: str, value: Any) -> None:
    read = getattr(load(Example, {**NEEDED, f"HEADRACE_{name.upper()}": text}), name)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_trainings", "many"),
        ("max_trainings", "1.5"),
        ("max_trainings", ""),
        ("rate", "fast"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("verbose", "maybe"),
        ("limit", "x"),
        ("listen", "8070"),
        ("listen", "host:port"),
        ("listen", "host:70000"),
        ("listen", ":80"),
    ],
)
def test_a_wrong_text_is_named_with_its_variable_and_its_value(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Example, {**NEEDED, f"HEADRACE_{name.upper()}": text})
    (problem,) = caught.value.problems
    assert f"HEADRACE_{name.upper()}" in problem
    assert repr(text) in problem


def test_all_problems_are_told_at_once() -> None:
    wrong = {"HEADRACE_KAFKA": "", "HEADRACE_RATE": "fast", "HEADRACE_VERBOSE": "maybe", "HEADRACE_LIMIT": "x"}
    with pytest.raises(SettingsError) as caught:
        load(Example, wrong)
    named = {problem.split(" ", 1)[0] for problem in caught.value.problems}
    assert named == {"HEADRACE_KAFKA", "HEADRACE_LISTEN", "HEADRACE_RATE", "HEADRACE_VERBOSE", "HEADRACE_LIMIT"}
    assert len(str(caught.value).splitlines()) == 5
