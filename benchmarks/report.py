"""Ratios and the table that they are kept in."""

import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka

from cli.kafka_download import KAFKA_VERSION

RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass(frozen=True)
class Ratio:
    """One line of the table: what was measured against what."""

    what: str
    ours: str
    """The median of ours, with its unit."""
    baseline: str
    """The median of the baseline, with its unit."""
    ratios: tuple[float, ...]
    """Pair by pair; above 1 is better where `target` starts with ≥, below 1 where it starts with ≤."""
    target: str

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.ratios)

    def row(self) -> str:
        """The line of the table in Markdown."""
        spread = f"{min(self.ratios):.2f}–{max(self.ratios):.2f}"
        return f"| {self.what} | {self.ours} | {self.baseline} | **{self.median:.2f} ×** ({spread}) | {self.target} |"


def paired(ours: Callable[[], float], baseline: Callable[[], float], pairs: int) -> list[tuple[float, float]]:
    """Runs the two in turn, so that a drift of the machine's speed meets both alike."""
    return [(ours(), baseline()) for _ in range(pairs)]


INTRODUCTION = """\
# Measured

Written by `make bench`; `make bench ARGS="reading training"` measures some of it and leaves the rest. Every line
compares ours with a baseline in the same run on the same machine, the two in turn; the figure is the median of the
ratios of the pairs, with the smallest and the largest.
"""


def keep(name: str, ratios: Sequence[Ratio], about: str = "") -> None:
    """Write what was measured under its name into RESULTS.md, in place of what stood there.

    about: how it was taken, or why a target is missed.
    """
    keep_section(name, _section(name, ratios, about))


def keep_section(name: str, text: str) -> None:
    """Write a section, its heading included, in place of the one of that name."""
    sections = _sections(RESULTS.read_text()) if RESULTS.exists() else {}
    sections[name] = text
    RESULTS.write_text("\n".join([INTRODUCTION, *(sections[each] for each in sorted(sections))]))


def _sections(page: str) -> dict[str, str]:
    """Name to text, heading included."""
    parts = page.split("\n## ")[1:]
    return {part.partition("\n")[0].strip(): f"## {part.rstrip()}\n" for part in parts}


def _section(name: str, ratios: Sequence[Ratio], about: str) -> str:
    lines = [
        f"## {name}",
        "",
        f"{measured_on()}.",
        "",
        *([about, ""] if about else []),
        "| what | ours | baseline | ratio | target |",
        "|---|---|---|---|---|",
        *(ratio.row() for ratio in ratios),
        "",
    ]
    return "\n".join(lines)


def measured_on() -> str:
    """What the figures belong to."""
    kafka = f"Kafka {KAFKA_VERSION}, librdkafka {confluent_kafka.libversion()[0]}"
    return f"Commit {_commit()}, Python {platform.python_version()}, {kafka}, {_cores()} cores, {platform.system()}"


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
