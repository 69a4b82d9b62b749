"""When a transaction is committed: often while idle, seldom while behind.

A commit costs the broker about the same whatever it holds, so a transaction per batch would spend most of
the throughput on commits. The pace keeps the time spent committing near a fixed share of all time: the
interval is a multiple of what the last commit cost, within bounds, and the upper bound while records wait.
"""

import time
from collections.abc import Callable

MIN_INTERVAL_S = 0.004
MAX_INTERVAL_S = 0.1
COST_MULTIPLE = 4  # a commit takes at most a fifth of the time


class CommitPace:
    """Says when the open transaction is due. Times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_commit_cost_s = 0.0
        self._opened_at: float | None = None

    def opened(self) -> None:
        """The first answers of a new transaction are about to be produced."""
        if self._opened_at is None:
            self._opened_at = self._clock()

    def committed(self, cost_s: float) -> None:
        """The transaction was committed, which took `cost_s`."""
        self._last_commit_cost_s = cost_s
        self._opened_at = None

    def aborted(self) -> None:
        """The transaction was aborted."""
        self._opened_at = None

    def remaining_s(self, *, behind: bool) -> float:
        """Seconds until the open transaction is due, 0 when it is; `inf` without an open transaction."""
        if self._opened_at is None:
            return float("inf")
        interval_s = MAX_INTERVAL_S if behind else self._idle_interval_s()
        return max(0.0, self._opened_at + interval_s - self._clock())

    def _idle_interval_s(self) -> float:
        return min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, COST_MULTIPLE * self._last_commit_cost_s))
