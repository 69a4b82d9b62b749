"""Ends a process whose main loop stands still in a call that does not return, and leaves in its log where.

For calls into C libraries that have no deadline, or do not keep it: nothing in Python can end one.
"""

import faulthandler
import time
from types import TracebackType

# A new alarm is a new thread: not one a turn.
ALARMS = 20


class Watchdog:
    """A context manager. `alive` has to be called more often than every `limit_s`, else the process ends with EXIT_BUG
    and the tracebacks of all threads in its standard error.

    It watches from the first call to the end of the block: also what a loop that has ended leaves to be closed.
    `limit_s` counts from the last alarm that was set, up to a twentieth of it before the last call.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._next_alarm = 0.0

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """The loop turns."""
        now = time.monotonic()
        if now >= self._next_alarm:
            self._next_alarm = now + self._limit_s / ALARMS
            faulthandler.dump_traceback_later(self._limit_s, exit=True)
