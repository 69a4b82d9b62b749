"""Why a run ends before its time: a signal, a newer attempt, its deadline, or a failure beside the main thread."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from headrace.errors import Cancelled, DeadlineExceeded, HeadraceError
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

LOOK_S = 0.1


class Ending:
    """Watches for the end of a run and breaks off what blocks.

    `event` is set when the run has to end, `cause` says why. `stop` is the process's own event, set by signals.
    Whatever can block for long gives `on_end` a function that breaks it off; these run once, on any thread, the last
    given first.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.event = threading.Event()
        self.cause: HeadraceError | None = None
        self._stop = stop
        self._lock = threading.Lock()
        self._breakers: list[Callable[[], object]] = []
        self._left = threading.Event()
        self._timer: threading.Timer | None = None
        self._thread = threading.Thread(target=self._run, name="ending", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        self._thread.join()

    def end(self, cause: HeadraceError) -> None:
        """Ends the run; the first cause stays."""
        with self._lock:
            if self.cause is None:
                self.cause = cause
                self.event.set()
        self._break_off()

    def end_after(self, seconds: float) -> None:
        """Ends the run with DEADLINE when it is still going on then."""
        cause = DeadlineExceeded(
            error_pb2.REASON_DEADLINE,
            f"the training took longer than its deadline of {seconds:g} s; give it more, or fewer epochs",
            deadline_s=f"{seconds:g}",
        )
        self._timer = threading.Timer(seconds, self.end, args=[cause])
        self._timer.name = "deadline"
        self._timer.daemon = True
        self._timer.start()

    def on_end(self, breaker: Callable[[], object]) -> None:
        """Runs `breaker` when the run ends; at once when it has ended."""
        with self._lock:
            self._breakers.append(breaker)
        if self.event.is_set():
            self._break_off()

    def check(self) -> None:
        """Raises the cause when the run has ended; CANCELLED after a signal."""
        if self._stop.is_set():
            self._end_by_signal()
        if self.cause is not None:
            raise self.cause

    def _run(self) -> None:
        while not self._left.is_set():
            if self._stop.wait(LOOK_S):
                self._end_by_signal()
                return

    def _end_by_signal(self) -> None:
        self.end(Cancelled(error_pb2.REASON_CANCELLED, "the trainer was asked to stop"))

    def _break_off(self) -> None:
        while True:
            with self._lock:
                if not self._breakers:
                    return
                breaker = self._breakers.pop()
            try:
                breaker()
            except HeadraceError as error:
                log.info("could not break off", extra={"cause": str(error)})
