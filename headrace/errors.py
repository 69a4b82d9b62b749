"""The errors of every service, and their form on the wire (google.rpc.Status).

    HeadraceError
    ├── InvalidArgument      the request is wrong whatever the state; if only the state is, FailedPrecondition
    ├── NotFound             no resource has this id or name
    ├── AlreadyExists        the name is taken
    ├── PermissionDenied     the caller may not; no other request of his would change it
    ├── FailedPrecondition   the state does not permit it; repeating it is useless until somebody changes the state
    ├── Aborted              lost a race; read again and repeat from the start
    ├── ResourceExhausted    a quota or queue is full; `retry_after_s` says when to try again
    ├── Unavailable          the same call may work in a moment
    ├── DeadlineExceeded     the time given is over
    ├── Cancelled            somebody cancelled
    ├── Unimplemented        this server lacks it
    ├── DataLoss             stored bytes are not what they were
    └── Internal             our bug

This module needs protobuf only, so that producers can use it without gRPC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace.v1 import error_pb2

DOMAIN = "headrace"
_REASON_NAMES: Mapping[int, str] = {number: name.removeprefix("REASON_") for name, number in error_pb2.Reason.items()}


@dataclass(frozen=True)
class FieldViolation:
    """One bad field: its path in the request, such as `model.name`, and what would be right."""

    field: str
    description: str


class HeadraceError(Exception):
    """An error with a canonical code, a stable reason and facts. Raise one of the subclasses.

    `reason` is a value of headrace.v1.Reason; every fact of the message is also in `metadata`, as text.
    """

    code: ClassVar[int] = code_pb2.UNKNOWN

    def __init__(
        self,
        reason: int,
        message: str,
        *,
        fields: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        **metadata: object,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s
        self.metadata: dict[str, str] = {name: str(value) for name, value in metadata.items()}

    def __str__(self) -> str:
        return f"{self.reason_name}: {self.message}"

    @property
    def reason_name(self) -> str:
        """`DATA_EXPIRED`, …; one that this version does not know as the sender said it, otherwise `UNSPECIFIED`."""
        if self.reason == error_pb2.REASON_UNSPECIFIED:
            return self.metadata.get("reason", "UNSPECIFIED")
        return _REASON_NAMES.get(self.reason, "UNSPECIFIED")

    def to_status(self) -> status_pb2.Status:
        """The error on the wire: ErrorInfo always, and BadRequest, PreconditionFailure, RetryInfo as they apply."""
        details = [error_details_pb2.ErrorInfo(reason=self.reason_name, domain=DOMAIN, metadata=self.metadata)]
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=bad.field, description=bad.description)
            for bad in self.fields
        ]
        if violations:
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self.code == code_pb2.FAILED_PRECONDITION:
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=self.reason_name, subject=self.metadata.get("resource", ""), description=self.message
            )
            details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code, message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


class InvalidArgument(HeadraceError):
    """The request is wrong whatever the state of the server."""

    code = code_pb2.INVALID_ARGUMENT


class NotFound(HeadraceError):
    """No resource has this id or name."""

    code = code_pb2.NOT_FOUND


class AlreadyExists(HeadraceError):
    """The name is taken."""

    code = code_pb2.ALREADY_EXISTS


class PermissionDenied(HeadraceError):
    """The caller may not do this."""

    code = code_pb2.PERMISSION_DENIED


class FailedPrecondition(HeadraceError):
    """The right request in the wrong state."""

    code = code_pb2.FAILED_PRECONDITION


class Aborted(HeadraceError):
    """Lost a race: read again and start over."""

    code = code_pb2.ABORTED


class ResourceExhausted(HeadraceError):
    """A quota or a queue is full."""

    code = code_pb2.RESOURCE_EXHAUSTED


class Unavailable(HeadraceError):
    """The same call may work in a moment."""

    code = code_pb2.UNAVAILABLE


class DeadlineExceeded(HeadraceError):
    """The time given is over."""

    code = code_pb2.DEADLINE_EXCEEDED


class Cancelled(HeadraceError):
    """Somebody cancelled the work."""

    code = code_pb2.CANCELLED


class Unimplemented(HeadraceError):
    """This server lacks it."""

    code = code_pb2.UNIMPLEMENTED


class DataLoss(HeadraceError):
    """Stored bytes are not what they were."""

    code = code_pb2.DATA_LOSS


class Internal(HeadraceError):
    """Our bug."""

    code = code_pb2.INTERNAL


_BY_CODE: Mapping[int, type[HeadraceError]] = {cls.code: cls for cls in HeadraceError.__subclasses__()}


def from_status(status: status_pb2.Status) -> HeadraceError:
    """The error that a google.rpc.Status tells of; a reason that this version does not know stays in the metadata."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, bad_request, retry):
            detail.Unpack(known)
    metadata = dict(info.metadata)
    reason = dict(error_pb2.Reason.items()).get(f"REASON_{info.reason}", error_pb2.REASON_UNSPECIFIED)
    if info.reason and reason == error_pb2.REASON_UNSPECIFIED:
        metadata["reason"] = info.reason
    error = _BY_CODE.get(status.code, Internal)(
        reason,
        status.message,
        fields=[FieldViolation(bad.field, bad.description) for bad in bad_request.field_violations],
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )
    error.metadata = metadata
    return error


def not_yet(what: str, instead: str) -> Unimplemented:
    """`what` is in the contract but not in this version; `instead` says what to use now."""
    return Unimplemented(error_pb2.REASON_NOT_YET, f"{what} is not in this version yet; {instead}", what=what)
