"""What the long fault tests went through, part by part, kept beside what was measured.

`HEADRACE_CHAOS_SEED=7 make chaos` adds the part with that seed, or takes the place of the one that was kept.
"""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from benchmarks.report import RESULTS, keep_section, measured_on

NAME = "faults"
INTRODUCTION = """\
Every record carries its stream and its number; two read_committed readers, one while it happens and one afterwards, are
compared with what was sent. A part is one run with the seed that stands there. Kills are SIGKILL, of replicas at random
times and at every failpoint; a zombie is stopped (SIGSTOP) until another process has its slot or its partitions; other
is anything else that is not as promised (a wrong answer, an open transaction, a wrong offset, a process left over).
"""


@dataclass
class Sums:
    """What a run consisted of, and what was wrong."""

    records: int = 0
    replica_kills: int = 0
    worker_kills: int = 0
    broker_kills: int = 0
    zombies: int = 0
    rebalances: int = 0
    """Replicas that were added or taken away, and processes that the group had taken for dead."""
    swaps: int = 0
    malformed: int = 0
    poison: int = 0
    """Records that crash or hang the model."""
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    other: int = 0

    def __add__(self, more: "Sums") -> "Sums":
        return Sums(*(one + other for one, other in zip(astuple(self), astuple(more), strict=True)))


@dataclass(frozen=True)
class Run:
    """A line of the table."""

    name: str
    seed: str
    sums: Sums
    when: str
    """Commit, Python, cores, system."""

    def row(self) -> str:
        numbers = " | ".join(f"{number:,}" for number in astuple(self.sums))
        return f"| {self.name} | {self.seed} | {numbers} | {self.when} |"


def keep_run(name: str, seed: int, sums: Sums) -> None:
    """Writes a part into RESULTS.md, and the sums of all parts of its name."""
    kept = {(run.name, run.seed): run for run in _kept()}
    kept[name, str(seed)] = Run(name, str(seed), sums, measured_on())
    keep_section(NAME, _section([kept[key] for key in sorted(kept)]))


def _section(runs: Sequence[Run]) -> str:
    columns = ["what", "seed", *(one.name.replace("_", " ") for one in fields(Sums)), "with"]
    lines = [f"## {NAME}", "", INTRODUCTION, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(run.name for run in runs):
        parts = [run for run in runs if run.name == name]
        total = sum((run.sums for run in parts), Sums())
        lines += [run.row() for run in parts]
        lines += [Run(f"**{name}**", f"{len(parts)} part(s)", total, "").row()]
    return "\n".join([*lines, ""])


def _kept() -> list[Run]:
    """The parts that stand in RESULTS.md, without their sums."""
    if not RESULTS.exists():
        return []
    section = RESULTS.read_text().partition(f"\n## {NAME}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^*|]+) \| (\d+) \| (.+) \| ([^|]*) \|$", section, re.MULTILINE)
    return [Run(name, seed, Sums(*_numbers(numbers)), when) for name, seed, numbers, when in rows]


def _numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in text.split(" | ")]
