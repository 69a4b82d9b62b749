"""One attempt as a process: connections and threads around the job, and what its end means for the control plane."""

import errno
import logging
import shutil
import threading
import uuid
from contextlib import ExitStack
from pathlib import Path

from google.rpc import status_pb2

from headrace.client import connect
from headrace.errors import HeadraceError, Internal, ResourceExhausted, from_status
from headrace.failpoints import fail_at
from headrace.patience import Patience
from headrace.process import EXIT_FAILED, EXIT_FENCED, EXIT_OK, EXIT_RETRY
from headrace.v1 import deployment_pb2, error_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from trainer.ending import Ending
from trainer.job import Job
from trainer.journal import Journal, read_journal
from trainer.report import OVERTAKEN, Reporter
from trainer.settings import TrainerSettings
from trainer.wish import ControlPlane

log = logging.getLogger(__name__)

# What can heal by itself. A worker that was killed (or whose machine was) may live next time; all others fail again.
WORTH_ANOTHER_ATTEMPT = frozenset(
    {
        error_pb2.REASON_WORKER_CRASHED,
        error_pb2.REASON_KAFKA_UNAVAILABLE,
        error_pb2.REASON_SERVICE_UNAVAILABLE,
        error_pb2.REASON_STORAGE_UNAVAILABLE,
        error_pb2.REASON_OVERLOADED,
        error_pb2.REASON_DISK_FULL,
    }
)

SHORTAGES = {
    errno.ENOSPC: error_pb2.REASON_DISK_FULL,
    errno.EDQUOT: error_pb2.REASON_DISK_FULL,
    errno.EAGAIN: error_pb2.REASON_OVERLOADED,
    errno.ENOMEM: error_pb2.REASON_OVERLOADED,
    errno.EMFILE: error_pb2.REASON_OVERLOADED,
    errno.ENFILE: error_pb2.REASON_OVERLOADED,
}


class Attempt:
    """Runs one attempt and tells its exit code."""

    def __init__(self, settings: TrainerSettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop

    def run(self) -> int:
        """Blocks until the attempt has ended. `stop` ends it within seconds and unreported."""
        with ExitStack() as stack:
            ending = stack.enter_context(Ending(self._stop))
            # Reports go on while the job's own calls are broken off, so each has its channel.
            calls = stack.enter_context(connect(self._settings.address))
            # All stubs are made first: gRPC crashes the process that makes one on a closed channel.
            control_plane = ControlPlane(calls)
            ending.on_end(calls.close)
            journal = stack.enter_context(Journal(self._journal_path(self._settings.attempt)))
            collector = ResultCollectorStub(stack.enter_context(connect(self._settings.address)))
            reporter = stack.enter_context(self._reporter(collector, journal, ending))
            if not reporter.await_hello(self._settings.patience_s, self._stop):
                return self._unheard(reporter)
            fail_at("after_hello")
            code = self._run_job(control_plane, reporter, ending)
        self._tidy(code)
        return code

    def _reporter(self, collector: ResultCollectorStub, journal: Journal, ending: Ending) -> Reporter:
        return Reporter(
            collector,
            journal,
            result_id=self._settings.result_id,
            attempt=self._settings.attempt,
            on_refused=ending.end,
        )

    def _unheard(self, reporter: Reporter) -> int:
        """The exit code when the collector does not take what this attempt has to say."""
        if self._stop.is_set():
            return EXIT_OK
        if reporter.fenced:
            log.warning("a newer attempt has taken over, or the result has ended")
            return EXIT_FENCED
        log.error("the collector did not take the reports; the next attempt may have more luck")
        return EXIT_RETRY

    def _run_job(self, control_plane: ControlPlane, reporter: Reporter, ending: Ending) -> int:
        failure = self._unreported_failure()
        if failure is None:
            failure = self._failure_of_job(control_plane, reporter, ending)
        if failure is not None and (self._stop.is_set() or reporter.refused):
            return self._unheard(reporter)
        return self._conclude(failure, reporter)

    def _failure_of_job(self, control_plane: ControlPlane, reporter: Reporter, ending: Ending) -> HeadraceError | None:
        """Why the job failed; None when it did not."""
        patience = Patience(ending.event, ending.check, self._settings.patience_s)
        try:
            Job(self._settings, control_plane, reporter, ending, patience).run()
        except Exception as error:
            # Once the run has ended, everything that blocked was broken off and fails in ways of its own.
            failure = ending.cause or as_failure(error)
            if failure.reason in OVERTAKEN:
                reporter.refuse(failure)
            return failure
        return None

    def _conclude(self, failure: HeadraceError | None, reporter: Reporter) -> int:
        """Reports the failure; the exit code once the collector has everything on its disk."""
        code = EXIT_OK if failure is None else self._report_failure(failure, reporter)
        heard = reporter.flush(self._settings.patience_s, self._stop)
        return code if heard else self._unheard(reporter)

    def _report_failure(self, failure: HeadraceError, reporter: Reporter) -> int:
        again = failure.reason in WORTH_ANOTHER_ATTEMPT
        state = deployment_pb2.STATE_STARTING if again else deployment_pb2.STATE_FAILED
        log.error("the training failed", extra={"reason": failure.reason_name, "cause": failure.message})
        reporter.change_state(state, failure)
        return EXIT_RETRY if again else EXIT_FAILED

    def _unreported_failure(self) -> HeadraceError | None:
        """The final failure of an earlier attempt that could not tell it: training again would only fail again."""
        for attempt in range(self._settings.attempt - 1, 0, -1):
            failed = _final_error(self._journal_path(attempt))
            if failed is not None:
                return from_status(failed)
        return None

    def _journal_path(self, attempt: int) -> Path:
        return self._settings.work_dir / f"reports-{attempt}.journal"

    def _tidy(self, code: int) -> None:
        """Frees the disk as soon as no later attempt can need what lies on it."""
        if code not in (EXIT_OK, EXIT_FAILED) or self._stop.is_set():
            return
        for name in ("records", "rows", "checkpoints", "trained", "trained.part", "worker"):
            shutil.rmtree(self._settings.work_dir / name, ignore_errors=True)
        for journal in self._settings.work_dir.glob("reports-*.journal"):
            journal.unlink(missing_ok=True)


def as_failure(error: Exception) -> HeadraceError:
    """The error as it is reported; a bug of ours becomes INTERNAL_ERROR with an id that the log explains."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return ResourceExhausted(
            SHORTAGES[error.errno],
            f"this machine is short of something: {error.strerror}; the next attempt may have more luck",
            path=error.filename or "",
        )
    incident = uuid.uuid4().hex[:12]
    log.error("a bug ended the training", exc_info=error, extra={"id": incident})
    return Internal(
        error_pb2.REASON_INTERNAL_ERROR,
        f"the trainer failed by a bug; its log explains it under {incident}",
        id=incident,
    )


def _final_error(journal: Path) -> status_pb2.Status | None:
    error = None
    for request in read_journal(journal):
        if request.state_change.state == deployment_pb2.STATE_FAILED:
            error = request.state_change.error
    return error
