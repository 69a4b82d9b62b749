"""Where the policy to stop ends a batch."""

from headrace.v1 import error_pb2
from inferencer.answers import Refusal
from inferencer.stopping import Stop

NAN = Refusal(error_pb2.REASON_NAN_OUTPUT, "NaN")
HANGS = Refusal(error_pb2.REASON_DEADLINE, "hangs")
PLACES = [(0, 7), (2, 0), (0, 8), (1, 3), (2, 1), (0, 9), (2, 2), (1, 4)]


def test_each_partition_ends_before_its_own_first_bad_record_and_the_first_of_the_batch_is_named() -> None:
    answers: list[bytes | Refusal] = [b"", b"", NAN, b"", HANGS, NAN, b"", b""]
    stop = Stop.among(PLACES, answers, {})
    assert stop
    assert [PLACES[index] for index in stop.before(PLACES)] == [(0, 7), (2, 0), (1, 3), (1, 4)]
    error = stop.error("questions")
    assert error.reason_name == "NAN_OUTPUT"
    assert error.metadata == {"topic": "questions", "partition": "0", "offset": "8"}


def test_what_is_known_of_a_record_counts_as_its_answer_does() -> None:
    stop = Stop.among(PLACES, [b""] * 8, {(1, 3): NAN, (1, 2): NAN})
    assert [PLACES[index] for index in stop.before(PLACES)] == [place for place in PLACES if place[0] != 1]
    assert stop.error("questions").metadata["offset"] == "3"


def test_a_batch_of_good_records_does_not_end() -> None:
    stop = Stop.among(PLACES, [b""] * 8, {})
    assert not stop
    assert stop.before(PLACES) == list(range(8))
