"""What a replica says of itself."""

import prometheus_client

from headrace.errors import FailedPrecondition, Unavailable
from headrace.v1 import error_pb2, inference_pb2
from inferencer.status import Status
from tests.support import eventually

AWAY = Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "away")
BROKEN = FailedPrecondition(error_pb2.REASON_CODE_ERROR, "line 3")


def test_a_replica_that_commits_nothing_again_and_again_is_not_ready_and_says_why() -> None:
    status = Status(0)
    assert not status.is_ready
    status.observe([0], {0: 5})
    assert status.is_ready
    status.lost(AWAY)
    assert status.is_ready
    status.lost(AWAY)
    status.lost(AWAY)
    told = status.snapshot()
    assert not status.is_ready
    assert told.state == inference_pb2.INFERENCE_STATE_DEGRADED
    assert told.error.message == "away"
    status.committed(2, 1, but_last=0)
    told = status.snapshot()
    assert status.is_ready
    assert (told.state, told.HasField("error")) == (inference_pb2.INFERENCE_STATE_RUNNING, False)
    assert (told.answered_count, told.dead_letter_count) == (2, 1)


def test_a_replica_whose_answers_nobody_gets_is_not_ready_and_says_why() -> None:
    status = Status(0)
    status.observe([0], {0: 0})
    status.hides(AWAY)
    told = status.snapshot()
    assert (told.ready, told.state) == (False, inference_pb2.INFERENCE_STATE_DEGRADED)
    assert told.error.message == "away"
    status.committed(2, 0, but_last=0)  # and they are hidden, too
    assert not status.is_ready
    status.hides(None)
    told = status.snapshot()
    assert (told.ready, told.HasField("error")) == (True, False)


def test_a_replica_that_has_nothing_to_do_is_not_ready_while_kafka_is_away() -> None:
    status = Status(0)
    status.observe([0], {0: 0})
    status.hears(AWAY)
    status.observe([0], {0: 0})
    told = status.snapshot()
    assert (told.live, told.ready, told.state) == (True, False, inference_pb2.INFERENCE_STATE_DEGRADED)
    assert told.error.message == "away"
    status.hears(None)
    told = status.snapshot()
    assert (told.ready, told.HasField("error")) == (True, False)
    status.hears(AWAY)
    status.committed(1, 0, but_last=0)  # then it is there
    assert status.is_ready


def test_a_replica_answers_with_the_model_before_and_says_why() -> None:
    status = Status(0)
    status.answers_with(7, 3)
    status.observe([0], {0: 0})
    status.cannot_load(BROKEN)
    told = status.snapshot()
    assert (told.result_id, told.model_version, told.error.message) == (7, 3, "line 3")
    assert status.is_ready
    status.cannot_load(None)
    assert not status.snapshot().HasField("error")


def test_what_was_wrong_with_a_model_is_forgotten_when_another_is_wanted() -> None:
    status = Status(0)
    status.answers_with(7, 3)
    status.observe([0], {0: 0})
    status.wants(8, "a")
    status.cannot_load(BROKEN)
    told = status.snapshot()
    assert (told.result_id, told.wanted_result_id, told.error.message) == (7, 8, "line 3")
    status.wants(9, "b")
    told = status.snapshot()
    assert (told.wanted_result_id, told.wish_etag, told.HasField("error")) == (9, "b", False)


def test_a_replica_is_ready_while_its_positions_advance_or_nothing_waits_and_lives_all_the_time() -> None:
    status = Status(0, standstill_s=0.05)
    assert not status.is_ready
    status.observe([0], {0: 5})
    eventually(lambda: not status.is_ready)
    told = status.snapshot()
    assert (told.live, told.ready, told.state) == (True, False, inference_pb2.INFERENCE_STATE_RUNNING)
    assert (gauge("live"), gauge("ready")) == (1, 0)
    status.committed(5, 0, but_last=False)
    assert status.snapshot().ready
    eventually(lambda: not status.is_ready)
    status.observe([0], {0: 0})
    assert (status.is_ready, gauge("ready")) == (True, 1)


def gauge(name: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(f"headrace_inference_{name}")
