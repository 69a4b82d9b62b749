"""Stops an inference whose input is bad as a whole, in place of a flood of dead letters."""

from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2

WINDOW_ROWS = 50


class CircuitBreaker:
    """Counts records window by window; a window of at least 50 of which more than half are bad trips it."""

    def __init__(self) -> None:
        self._rows = 0
        self._bad = 0

    def count(self, rows: int, bad: int, example: str) -> None:
        """Counts `bad` of `rows` records; `example` is why one of them is bad.

        Raises FailedPrecondition (SCHEMA_MISMATCH) when the window trips. Nothing of it may be committed then: the
        records are answered once the format is right.
        """
        self._rows += rows
        self._bad += bad
        if self._rows < WINDOW_ROWS:
            return
        if self._bad * 2 > self._rows:
            raise FailedPrecondition(
                error_pb2.REASON_SCHEMA_MISMATCH,
                f"{self._bad} of {self._rows} records cannot be answered, so the input as a whole is not what the"
                f" model takes, for example: {example}; create an inference with the right input_format and"
                " input_config",
                bad=self._bad,
                rows=self._rows,
            )
        self._rows = self._bad = 0
