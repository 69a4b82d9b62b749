"""What a replica says of itself."""

from headrace.errors import FailedPrecondition, Unavailable
from headrace.v1 import error_pb2, inference_pb2
from inferencer.status import Status

AWAY = Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "away")
BROKEN = FailedPrecondition(error_pb2.REASON_CODE_ERROR, "line 3")


def test_a_replica_that_commits_nothing_again_and_again_is_not_ready_and_says_why() -> None:
    status = Status(0)
    assert not status.is_running
    status.observe([0], {0: 5})
    assert status.is_running
    status.lost(AWAY)
    assert status.is_running
    status.lost(AWAY)
    status.lost(AWAY)
    told = status.snapshot()
    assert not status.is_running
    assert told.state == inference_pb2.INFERENCE_STATE_DEGRADED
    assert told.error.message == "away"
    status.committed(2, 1, but_last=0)
    told = status.snapshot()
    assert status.is_running
    assert (told.state, told.HasField("error")) == (inference_pb2.INFERENCE_STATE_RUNNING, False)
    assert (told.answered_count, told.dead_letter_count) == (2, 1)


def test_a_replica_answers_with_the_model_before_and_says_why() -> None:
    status = Status(0)
    status.answers_with(7, 3)
    status.observe([0], {0: 0})
    status.cannot_load(BROKEN)
    told = status.snapshot()
    assert (told.result_id, told.model_version, told.error.message) == (7, 3, "line 3")
    assert status.is_running
    status.cannot_load(None)
    assert not status.snapshot().HasField("error")
