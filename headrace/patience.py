"""Outlasting a control plane that is away: it is started again by others."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.backoff import Backoff
from headrace.errors import DeadlineExceeded, HeadraceError, Unavailable
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

T = TypeVar("T")


class Patience:
    """Repeats calls while the control plane is away, at most `seconds` on end.

    ended: set when nothing is worth the wait any more.
    check: raises why that is, then.
    """

    def __init__(self, ended: threading.Event, check: Callable[[], None], seconds: float = math.inf) -> None:
        self._ended, self._check = ended, check
        self._seconds = seconds

    def call(self, action: Callable[[], T]) -> T:
        """The answer of `action`, which must be safe to repeat.

        Raises what it raises, but UNAVAILABLE and the deadline of a call only when patience is over; and what `check`
        raises meanwhile.
        """
        backoff = Backoff()
        gives_up = time.monotonic() + self._seconds
        while True:
            self._check()
            try:
                return action()
            except (Unavailable, DeadlineExceeded) as error:
                self._check()
                if time.monotonic() >= gives_up:
                    raise self._over(error) from error
                log.info("the control plane is away; trying again", extra={"cause": error.message})
            except HeadraceError:
                self._check()
                raise
            self._ended.wait(backoff.next_s())

    def _over(self, error: HeadraceError) -> HeadraceError:
        if error.reason == error_pb2.REASON_SERVICE_UNAVAILABLE:
            return error
        address = error.metadata.get("address", "")
        return Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, error.message, address=address)
