"""The page of faults names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    paths = list((ROOT / "tests").rglob("test_*.py"))
    sources = "\n".join(path.read_text() for path in paths)
    named = set(re.findall(r"\b(test_\w+)(?!\w*\.py)\b", page))
    assert len(named) > 20
    # A long name is cut: test_a_bad_record_…
    assert {name for name in named - {path.stem for path in paths} if f"def {name}" not in sources} == set()
    files = set(re.findall(r"[\w/]*\btest_\w+\.py", page))
    assert {name for name in files if not list((ROOT / "tests").rglob(name.removeprefix("tests/")))} == set()
