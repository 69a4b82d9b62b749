"""Tables of long fault tests: what each part went through, and the sums, kept beside what was measured.

A part is one run with its seed; run again, it takes the place of the row that was kept.
"""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Generic, Self, TypeVar

from benchmarks.report import RESULTS, keep_section, measured_on


@dataclass
class Sums:
    """What a run consisted of, and what was wrong: numbers, each a column of its table."""

    def __add__(self, more: Self) -> Self:
        return type(self)(*(one + other for one, other in zip(astuple(self), astuple(more), strict=True)))


S = TypeVar("S", bound=Sums)


@dataclass(frozen=True)
class Part(Generic[S]):
    """A line of a table."""

    name: str
    seed: str
    sums: S
    when: str
    """Commit, versions, cores, system."""

    def row(self) -> str:
        numbers = " | ".join(f"{number:,}" for number in astuple(self.sums))
        return f"| {self.name} | {self.seed} | {numbers} | {self.when} |"


@dataclass(frozen=True)
class Parts(Generic[S]):
    """A section of RESULTS.md."""

    section: str
    introduction: str
    kind: type[S]

    def keep(self, name: str, seed: int, sums: S) -> None:
        """Writes a part into RESULTS.md, and the sums of all parts of its name."""
        kept = {(part.name, part.seed): part for part in self._kept()}
        kept[name, str(seed)] = Part(name, str(seed), sums, measured_on())
        ordered = sorted(kept.values(), key=lambda part: (part.name, int(part.seed)))
        keep_section(self.section, self._text(ordered))

    def _text(self, parts: Sequence[Part[S]]) -> str:
        columns = ["what", "seed", *(one.name.replace("_", " ") for one in fields(self.kind)), "with"]
        lines = [f"## {self.section}", "", self.introduction, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for name in dict.fromkeys(part.name for part in parts):
            these = [part for part in parts if part.name == name]
            total = sum((part.sums for part in these), self.kind())
            lines += [part.row() for part in these]
            lines += [Part(f"**{name}**", f"{len(these)} part(s)", total, "").row()]
        return "\n".join([*lines, ""])

    def _kept(self) -> list[Part[S]]:
        """The parts that stand in RESULTS.md, without their sums."""
        if not RESULTS.exists():
            return []
        section = RESULTS.read_text().partition(f"\n## {self.section}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| ([^*|]+) \| (\d+) \| (.+) \| ([^|]*) \|$", section, re.MULTILINE)
        return [Part(name, seed, self.kind(*_numbers(numbers)), when) for name, seed, numbers, when in rows]


def _numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in text.split(" | ")]
