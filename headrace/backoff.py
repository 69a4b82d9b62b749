"""Waiting longer and longer between tries, each time by a random part, so that many do not return at once."""

import random


class Backoff:
    """Pauses of 50 to 100 % of `first_s`, doubled with each, never over `limit_s`."""

    def __init__(self, first_s: float = 0.1, limit_s: float = 5.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._tries = 0

    def next_s(self) -> float:
        """The next pause."""
        pause_s = min(self._limit_s, self._first_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """It worked: the next pause is the first one again."""
        self._tries = 0
