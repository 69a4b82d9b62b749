"""Whether and when a process that ended is worth another one, and what its end means."""

from __future__ import annotations

from google.rpc import status_pb2

from control_plane.cluster import Exit
from headrace.errors import Aborted, Internal, Unavailable, from_status
from headrace.process import EXIT_FENCED
from headrace.v1 import error_pb2

SECOND_US = 1_000_000

# Attempts in a row without progress; the last one's failure is that of the training.
MAX_ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


def is_permanent(ended: Exit) -> bool:
    """10 to 19: it reported a failure that another attempt would meet again. A fenced one (11) did not fail."""
    return ended.code is not None and 10 <= ended.code <= 19 and ended.code != EXIT_FENCED


def pause_us(failures: int) -> int:
    """The wait after so many failures in a row: half a second, doubled each time, at most 30 s."""
    return int(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10)) * SECOND_US)


def is_due(retry_time_us: int | None, now_us: int) -> bool:
    """Whether the wait is over. One that is longer than any we ask for was left by a clock that was set back."""
    if retry_time_us is None:
        return True
    return not now_us < retry_time_us <= now_us + LONGEST_PAUSE_S * SECOND_US


def end_error(workload: str, ended: Exit) -> status_pb2.Status:
    """The error of a process that ended without saying why."""
    if ended.code == EXIT_FENCED:
        message = f"the process {workload} lost its place to another one; see its log"
        return Aborted(error_pb2.REASON_FENCED, message, workload=workload).to_status()
    if ended.code is not None:
        message = f"the process {workload} ended with the exit code {ended.code} and reported no reason; see its log"
        return Internal(error_pb2.REASON_INTERNAL_ERROR, message, exit_code=ended.code, workload=workload).to_status()
    if ended.signal is not None:
        message = f"the process {workload} was killed by the signal {ended.signal}; see its log"
        return Unavailable(error_pb2.REASON_WORKER_CRASHED, message, signal=ended.signal, workload=workload).to_status()
    message = f"the process {workload} ended while nobody saw it; see its log"
    return Unavailable(error_pb2.REASON_WORKER_CRASHED, message, workload=workload).to_status()


def given_up(error: status_pb2.Status, attempts: int) -> status_pb2.Status:
    """The last attempt's error as that of the training."""
    last = from_status(error)
    last.message = f"{last.message} (the last of {attempts} attempts without progress)"
    last.metadata["attempts"] = str(attempts)
    if last.reason == error_pb2.REASON_UNSPECIFIED and "reason" not in last.metadata:
        last.reason = error_pb2.REASON_TOO_MANY_ATTEMPTS
    return last.to_status()
