"""Outlasting a control plane that is away: it is started again by others, and a training is worth the wait."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.errors import DeadlineExceeded, HeadraceError, Unavailable
from headrace.v1 import error_pb2
from trainer.backoff import Backoff
from trainer.ending import Ending

log = logging.getLogger(__name__)

T = TypeVar("T")


class Patience:
    """Repeats calls while the control plane is away, at most `seconds` on end."""

    def __init__(self, seconds: float, ending: Ending) -> None:
        self._seconds = seconds
        self._ending = ending

    def call(self, action: Callable[[], T]) -> T:
        """The answer of `action`, which must be safe to repeat.

        Raises what it raises, but UNAVAILABLE and the deadline of a call only when patience is over; raises why the
        run ended when it ends meanwhile.
        """
        backoff = Backoff()
        gives_up = time.monotonic() + self._seconds
        while True:
            self._ending.check()
            try:
                return action()
            except (Unavailable, DeadlineExceeded) as error:
                self._ending.check()
                if time.monotonic() >= gives_up:
                    raise self._over(error) from error
                log.info("the control plane is away; trying again", extra={"cause": error.message})
            except HeadraceError:
                self._ending.check()
                raise
            self._ending.event.wait(backoff.next_s())

    def _over(self, error: HeadraceError) -> HeadraceError:
        if error.reason == error_pb2.REASON_SERVICE_UNAVAILABLE:
            return error
        address = error.metadata.get("address", "")
        return Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, error.message, address=address)
