import errno

import pytest

from headrace.errors import NotFound
from headrace.v1 import error_pb2
from trainer.attempt import WORTH_ANOTHER_ATTEMPT, as_failure


@pytest.mark.parametrize(
    ("error", "reason", "worth_another"),
    [
        (NotFound(error_pb2.REASON_UNKNOWN_TOPIC, "no"), error_pb2.REASON_UNKNOWN_TOPIC, False),
        (OSError(errno.ENOSPC, "full", "/work"), error_pb2.REASON_DISK_FULL, True),
        (OSError(errno.EAGAIN, "too many processes"), error_pb2.REASON_OVERLOADED, True),
        (OSError(errno.EACCES, "no"), error_pb2.REASON_INTERNAL_ERROR, False),
        (ZeroDivisionError("our bug"), error_pb2.REASON_INTERNAL_ERROR, False),
    ],
    ids=["ours", "disk", "processes", "other", "bug"],
)
def test_every_error_has_a_reason(error: Exception, reason: int, worth_another: bool) -> None:
    failure = as_failure(error)
    assert failure.reason == reason
    assert (failure.reason in WORTH_ANOTHER_ATTEMPT) == worth_another


def test_a_bug_is_told_by_an_id_and_not_by_its_text() -> None:
    failure = as_failure(RuntimeError("/secret/path"))
    assert "secret" not in failure.message
    assert failure.metadata["id"] in failure.message
