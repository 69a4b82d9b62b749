"""Tells the collector what happens, exactly once and in order, without ever holding the training up.

An event is numbered and written to the journal first, then sent by a thread of its own. The collector answers what it
has on its disk; what it has not is sent again on the next connection, for as long as it takes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from headrace.backoff import Backoff
from headrace.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    Internal,
    ResourceExhausted,
    Unavailable,
)
from headrace.v1 import deployment_pb2, error_pb2
from headrace.v1.deployment_pb2 import State
from headrace.v1.result_collector_pb2 import Outcome, ReportRequest, ReportResponse, StateChange
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Epoch, Progress
from trainer.journal import Journal

log = logging.getLogger(__name__)

SYNC_S = 1.0
PROGRESS_S = 1.0
# A connection whose other end is gone may never say so. Each is given up after a minute and made anew: a call costs
# one round trip, and nothing is lost by it.
CALL_S = 60.0
# Progress is for people who watch. While nobody listens it would only fill the disk.
BACKLOG_WITHOUT_PROGRESS = 1000
FINAL_STATES = (deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED)

# The call may work in a moment. What else a collector answers, it will answer again.
OVERTAKEN = (error_pb2.REASON_FENCED, error_pb2.REASON_RESOURCE_NOT_FOUND)
WORTH_ANOTHER_CALL = (Unavailable, DeadlineExceeded, Cancelled, ResourceExhausted, Internal)


class Reporter:
    """The reports of one attempt.

    `on_refused` is called once, on the reporter's thread, when the collector takes nothing of this attempt any more:
    with FENCED because a newer attempt exists or the result has ended, or with what it finds wrong.
    Use it as a context manager; leaving it stops its threads at once, so `flush` before if the events matter.
    """

    def __init__(
        self,
        collector: ResultCollectorStub,
        journal: Journal,
        *,
        result_id: int,
        attempt: int,
        on_refused: Callable[[HeadraceError], None],
        call_s: float = CALL_S,
    ) -> None:
        self._collector = collector
        self._journal = journal
        self._result_id = result_id
        self._attempt = attempt
        self._on_refused = on_refused
        self._call_s = call_s
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._call: Any = None
        self._next_seq = 0  # not known before the collector's first answer
        self._acked_seq = 0
        self._refusal: HeadraceError | None = None
        self._progress_time = 0.0
        self._threads = [
            threading.Thread(target=self._run, name="report", daemon=True),
            threading.Thread(target=self._run_sync, name="report-sync", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
            call = self._call
        if call is not None:
            call.cancel()
        for thread in self._threads:
            thread.join()

    @property
    def fenced(self) -> bool:
        """True: a newer attempt has taken over, or the result has ended. Nothing of this one counts any more."""
        return self._refusal is not None and self._refusal.reason in OVERTAKEN

    @property
    def refused(self) -> bool:
        """True: the collector takes nothing more, for whatever reason."""
        return self._refusal is not None

    def await_hello(self, timeout_s: float, stop: threading.Event) -> bool:
        """Blocks until the collector has told where to begin; False when it did not or `stop` is set."""
        return self._wait(lambda: self._next_seq > 0, timeout_s, stop)

    def flush(self, timeout_s: float, stop: threading.Event | None = None) -> bool:
        """Blocks until the collector has everything on its disk; False when the time is over, or it never will be."""
        self._journal.sync()
        return self._wait(lambda: 0 < self._next_seq <= self._acked_seq + 1, timeout_s, stop)

    def change_state(self, state: State, error: HeadraceError | None = None) -> None:
        """Reports a new state. FINISHED and FAILED are on this disk when it returns."""
        change = StateChange(state=state, error=None if error is None else error.to_status())
        final = state in FINAL_STATES or error is not None
        log.info(deployment_pb2.State.Name(state).removeprefix("STATE_").lower())
        self._append(ReportRequest(state_change=change), final=final)
        if final:
            self._journal.sync()

    def epoch(self, epoch: Epoch) -> None:
        """Reports an epoch, with its own end as the time."""
        metrics = {split: dict(values.values) for split, values in epoch.metrics.splits.items()}
        log.info("epoch %d", epoch.number, extra=metrics)
        self._append(ReportRequest(epoch=epoch))

    def outcome(self, outcome: Outcome) -> None:
        """Reports what became known."""
        self._append(ReportRequest(outcome=outcome))

    def progress(self, progress: Progress, *, always: bool = False) -> None:
        """Reports progress, at most once a second unless `always`, and not while a long backlog waits."""
        now = time.monotonic()
        if not always and now - self._progress_time < PROGRESS_S:
            return
        if self._next_seq - self._acked_seq > BACKLOG_WITHOUT_PROGRESS:
            return
        self._progress_time = now
        self._append(ReportRequest(progress=progress))

    def _append(self, request: ReportRequest, *, final: bool = False) -> None:
        if self._next_seq == 0:
            raise RuntimeError("await_hello() comes before the first event")
        with self._changed:
            request.result_id, request.attempt, request.seq = self._result_id, self._attempt, self._next_seq
            request.time.GetCurrentTime()
            self._journal.append(request, final=final)
            self._next_seq += 1
            self._changed.notify_all()

    def _wait(self, reached: Callable[[], bool], timeout_s: float, stop: threading.Event | None) -> bool:
        ends = time.monotonic() + timeout_s
        with self._changed:
            while not reached():
                left_s = ends - time.monotonic()
                if left_s <= 0 or self._refusal is not None or (stop is not None and stop.is_set()):
                    return False
                self._changed.wait(min(left_s, 0.2))
        return True

    # The thread "report-sync"

    def _run_sync(self) -> None:
        while not self._stopped.wait(SYNC_S):
            try:
                self._journal.sync()
            except OSError:
                # After a failed sync nobody knows what is on the disk; what is in memory is still sent.
                log.exception("reports can not be kept on disk any more")
                return

    # The thread "report"

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopped.is_set() and self._refusal is None:
            if self._step():
                backoff.reset()
            else:
                self._stopped.wait(backoff.next_s())

    def _step(self) -> bool:
        """One connection, from hello to its end. True when the collector answered at all."""
        talk = _Talk(self._hello(), self._journal, self._changed, self._call_s)
        answered = False
        try:
            for response in self._open(talk):
                answered = True
                self._take(response, talk)
        except (HeadraceError, grpc.RpcError) as error:
            self._lost(error)
        finally:
            talk.end()
            self._close()
        return answered

    def _open(self, talk: "_Talk") -> Iterator[ReportResponse]:
        call: Any = self._collector.Report(talk.requests(), timeout=2 * self._call_s)
        with self._changed:
            self._call = call
        if self._stopped.is_set():
            call.cancel()
        responses: Iterator[ReportResponse] = call
        return responses

    def _close(self) -> None:
        with self._changed:
            call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _hello(self) -> ReportRequest:
        return ReportRequest(result_id=self._result_id, attempt=self._attempt, seq=0)

    def _take(self, response: ReportResponse, talk: "_Talk") -> None:
        with self._changed:
            self._acked_seq = max(self._acked_seq, response.acked_seq)
            if self._next_seq == 0:
                # The same attempt may have reported before, as another process: its numbers are taken.
                self._next_seq = response.resume_from or response.acked_seq + 1
            if self._acked_seq == self._next_seq - 1:
                self._journal.forget()
            if not talk.begun or response.resume_from:
                talk.resume(response.resume_from or response.acked_seq + 1)
            self._changed.notify_all()
        if response.fenced:
            self.refuse(overtaken(self._attempt))

    def _lost(self, error: Exception) -> None:
        if isinstance(error, HeadraceError) and not isinstance(error, WORTH_ANOTHER_CALL):
            self.refuse(error)
        elif not self._stopped.is_set():
            log.info("the collector does not listen; reports wait on disk", extra={"cause": str(error)})

    def refuse(self, error: HeadraceError) -> None:
        """Nothing more is sent: the collector would not take it."""
        with self._changed:
            if self._refusal is not None:
                return
            self._refusal = error
            self._changed.notify_all()
        self._on_refused(error)


def overtaken(attempt: int) -> HeadraceError:
    """What ends an attempt when a newer one exists."""
    return Aborted(
        error_pb2.REASON_FENCED,
        f"a newer attempt than {attempt} has taken over, or the result has ended",
        attempt=attempt,
    )


class _Talk:
    """What one connection says. Its requests are pulled by gRPC, on a thread that ends with them."""

    def __init__(self, hello: ReportRequest, journal: Journal, changed: threading.Condition, call_s: float) -> None:
        self._hello = hello
        self._journal = journal
        self._changed = changed
        self._offset = -1  # in the journal; not known before the answer to hello
        self._ended = False
        self._ends = time.monotonic() + call_s

    @property
    def begun(self) -> bool:
        return self._offset >= 0

    def resume(self, seq: int) -> None:
        """Goes on with the event `seq`; called under the lock."""
        self._offset = self._journal.find(seq)

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def requests(self) -> Iterator[ReportRequest]:
        yield self._hello
        while (request := self._next()) is not None:
            yield request

    def _next(self) -> ReportRequest | None:
        """The next event, as soon as there is one; None when the connection shall end."""
        with self._changed:
            while not self._ended and (left_s := self._ends - time.monotonic()) > 0:
                found = self._journal.read(self._offset) if self.begun else None
                if found is not None:
                    request, self._offset = found
                    return request
                self._changed.wait(left_s)
        return None
