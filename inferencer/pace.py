"""When what was answered is committed: often while idle, seldom while behind.

A commit costs the broker about the same whatever it holds, and nothing is answered meanwhile: a commit per batch would
take most of the time. While records wait, the interval is the upper bound; otherwise a multiple of what the last commit
cost, within bounds, which keeps the time spent committing near a fixed share where that matters.

Between two transactions the pace rests for a moment: Kafka writes the end of the one before after it has confirmed its
commit, refuses the partitions of the next one until then, and librdkafka asks again only after 20 ms.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

MIN_INTERVAL_S = 0.004


@dataclass(frozen=True)
class Pacing:
    """What commits may cost, and how long they may be put off."""

    cost_multiple: int
    """Of the last commit; 0: they may follow one another."""
    max_interval_s: float
    rest_s: float = 0.0
    """From a commit to what is produced next."""


# Nobody sees an answer before its commit. While nothing waits, the time is spare: one commit may follow the other.
TRANSACTIONS = Pacing(cost_multiple=0, max_interval_s=0.1, rest_s=0.01)
# Answers are seen before, and a commit only bounds what a crash repeats.
OFFSETS = Pacing(cost_multiple=50, max_interval_s=1.0)


class CommitPace:
    """Says when the next commit is due. Times are monotonic seconds."""

    def __init__(self, pacing: Pacing, clock: Callable[[], float] = time.monotonic) -> None:
        self._pacing, self._clock = pacing, clock
        self._last_commit_cost_s = 0.0
        self._opened_at: float | None = None
        self._rested_at = 0.0

    def opened(self) -> None:
        """The first answers since the last commit are about to be produced."""
        if self._opened_at is None:
            self._opened_at = self._clock()

    def committed(self, cost_s: float) -> None:
        """It was committed, which took `cost_s`."""
        self._last_commit_cost_s = cost_s
        self._opened_at = None
        self._rested_at = self._clock() + self._pacing.rest_s

    def rest_s(self, *, behind: bool) -> float:
        """Seconds until something had better be produced: none while records wait, which cost more than a retry."""
        return 0.0 if behind else max(0.0, self._rested_at - self._clock())

    def aborted(self) -> None:
        """What was answered is dropped."""
        self._opened_at = None

    def remaining_s(self, *, behind: bool) -> float:
        """Seconds until a commit is due, 0 when it is; `inf` while there is nothing to commit."""
        if self._opened_at is None:
            return float("inf")
        interval_s = self._pacing.max_interval_s if behind else self._idle_interval_s()
        return max(0.0, self._opened_at + interval_s - self._clock())

    def _idle_interval_s(self) -> float:
        wanted_s = self._pacing.cost_multiple * self._last_commit_cost_s
        return min(self._pacing.max_interval_s, max(MIN_INTERVAL_S, wanted_s))
