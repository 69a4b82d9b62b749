"""How a worker's failures become errors of the product."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from headrace.errors import (
    Aborted,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unimplemented,
)
from headrace.v1 import error_pb2
from sandbox.limits import Ending, Limits

MESSAGE_LIMIT = 8 * 1024
# Every reason that a worker may give; another one is a breach of the protocol.
REPORTED: Mapping[str, type[HeadraceError]] = {
    "CODE_ERROR": InvalidArgument,
    "NO_MODEL": InvalidArgument,
    "UNKNOWN_ARGUMENT": InvalidArgument,
    "INVALID_FIELD": InvalidArgument,
    "SCHEMA_MISMATCH": InvalidArgument,
    "EMPTY_STREAM": FailedPrecondition,
    "NAN_LOSS": FailedPrecondition,
    "OUT_OF_MEMORY": ResourceExhausted,
    "DISK_FULL": ResourceExhausted,
    "CANCELLED": Cancelled,
    "NOT_INSTALLED": Unimplemented,
    "CHECKPOINT_CORRUPT": DataLoss,
    "EXPORT_FAILED": FailedPrecondition,
}


def reported_error(fields: Mapping[str, Any], limits: Limits) -> HeadraceError:
    """The error that a worker's `error` frame tells of. Its texts are the user's code's: cut to size, never trusted."""
    reason, message, metadata = fields.get("reason"), fields.get("message"), fields.get("metadata")
    if not isinstance(reason, str) or reason not in REPORTED or not isinstance(message, str):
        return protocol_error(f"it reports an unknown failure: {reason!r:.100}")
    if not isinstance(metadata, dict):
        metadata = {}
    facts = {str(name)[:100]: str(value)[:MESSAGE_LIMIT] for name, value in list(metadata.items())[:32]}
    if reason == "OUT_OF_MEMORY":
        facts.setdefault("limit_bytes", str(limits.memory_bytes))
    error = REPORTED[reason](error_pb2.Reason.Value(f"REASON_{reason}"), message[:MESSAGE_LIMIT])
    error.metadata = facts
    return error


def protocol_error(what: str) -> HeadraceError:
    """The worker said something that it must not say."""
    return Internal(error_pb2.REASON_WORKER_PROTOCOL, f"the worker broke the protocol: {what}")


def deadline_error(what: str, timeout_s: float) -> HeadraceError:
    """The worker was killed because its time was over."""
    message = f"{what} took longer than {timeout_s:g} s and was ended"
    return DeadlineExceeded(error_pb2.REASON_DEADLINE, message, timeout_s=f"{timeout_s:g}")


def ended_error(ending: Ending, limits: Limits, *, output_tail: str = "", out_of_memory: bool = False) -> HeadraceError:
    """Why a worker is gone that owed an answer.

    `output_tail` is the last that it printed; `out_of_memory`: the kernel says that it killed for memory meanwhile.
    """
    if ending.verdict == "asked":
        return Cancelled(error_pb2.REASON_CANCELLED, "the worker was stopped")
    if ending.verdict == "memory" or _died_of_memory(ending, output_tail, out_of_memory):
        return memory_error(ending.peak_bytes, limits)
    if ending.verdict == "output":
        message = f"the code printed more than {limits.output_bytes} bytes and was ended"
        return ResourceExhausted(error_pb2.REASON_OUTPUT_LIMIT, message, limit_bytes=limits.output_bytes)
    if ending.signal == signal.SIGXCPU and limits.cpu_s:
        return deadline_error("the code's processor time", limits.cpu_s)
    return _crash_error(ending, limits, output_tail)


def _died_of_memory(ending: Ending, output_tail: str, out_of_memory: bool) -> bool:
    if ending.signal == signal.SIGKILL:
        return out_of_memory
    # C++ code does not survive a refused allocation: it says this and aborts.
    return ending.signal == signal.SIGABRT and "bad_alloc" in output_tail


def _crash_error(ending: Ending, limits: Limits, output_tail: str) -> HeadraceError:
    facts: dict[str, Any] = {}
    if ending.verdict == "processes":
        message = f"the code started more than {limits.processes} processes and was ended"
        facts["process_limit"] = limits.processes
    elif ending.signal:
        name = signal.Signals(ending.signal).name if ending.signal in set(signal.Signals) else str(ending.signal)
        message = f"the worker was ended by {name} before it answered"
        facts["signal"] = name
    elif ending.exit_code is not None:
        message = f"the worker exited with code {ending.exit_code} before it answered"
        facts["exit_code"] = ending.exit_code
        last_line = output_tail.strip().rpartition("\n")[2]
        if ending.exit_code and last_line:
            message += f"; the last that it printed: {last_line[:300]}"
    else:
        message = "the worker's warden was killed"
    # faulthandler's trace of a fatal signal names the line of the code.
    line = re.search(r'File "<(imports|code)>", line (\d+)', output_tail)
    if line:
        facts |= {"file": line[1], "line": line[2]}
        message += f" (in line {line[2]} of the {line[1]})"
    return Aborted(error_pb2.REASON_WORKER_CRASHED, message, **facts)


def memory_error(peak_bytes: int, limits: Limits) -> HeadraceError:
    """The worker needed more memory than it may have."""
    limit = f"its limit of {limits.memory_bytes / 2**20:.0f} MiB" if limits.memory_bytes else "the machine has"
    message = f"the worker needed more memory than {limit}"
    facts: dict[str, Any] = {"limit_bytes": limits.memory_bytes}
    if peak_bytes:
        facts["peak_bytes"] = peak_bytes
    return ResourceExhausted(error_pb2.REASON_OUT_OF_MEMORY, message, **facts)
