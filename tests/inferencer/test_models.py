"""How a replica follows the model that is wanted."""

import threading

import pytest

from headrace.errors import HeadraceError
from headrace.v1.inference_pb2 import Inference
from inferencer.models import Following
from inferencer.status import Status
from tests.inferencer.replica import BROKEN, AdderLoader

BAD = BROKEN[0]


class Replica:
    """What answers, and what it says."""

    def __init__(self, wanted: int, before: int = 0) -> None:
        self.loader, self.status = AdderLoader(), Status(0)
        wish = Inference(result_id=wanted, answering_result_id=before)
        self.models = Following(self.loader, self.status).start(wish, threading.Event())
        self.status.observe([0], {})

    def want(self, result_id: int, etag: str = "") -> None:
        self.models.wish(Inference(result_id=result_id, etag=etag))
        self.models.step()

    @property
    def error(self) -> str:
        return str(self.status.snapshot().error.message)


def test_the_successor_waits_for_the_switch_and_the_one_before_is_let_go_after_it() -> None:
    replica = Replica(1)
    replica.want(2)
    assert replica.models.has_successor
    assert replica.models.current.version == 1
    assert replica.models.switch().version == replica.models.current.version == 2
    assert not replica.loader.ended
    replica.models.step()
    assert replica.loader.ended == [1]
    assert replica.models.switch().version == 2


def test_a_model_that_cannot_be_loaded_leaves_the_present_one_and_says_why_until_another_is_wanted() -> None:
    replica = Replica(1)
    replica.want(BAD)
    assert not replica.models.has_successor
    assert replica.models.switch().version == 1
    assert replica.error == f"line {BAD}"
    replica.models.step()
    assert replica.loader.loads == [1, BAD]
    replica.want(1)
    assert replica.error == ""
    assert replica.loader.loads == [1, BAD]
    replica.want(BAD)
    assert replica.loader.loads == [1, BAD, BAD]


def test_a_model_that_could_not_be_loaded_is_tried_again_when_the_inference_is_edited() -> None:
    replica = Replica(1)
    replica.want(BAD)
    replica.want(BAD)
    assert replica.loader.loads == [1, BAD]
    replica.want(BAD, etag="edited")
    assert replica.loader.loads == [1, BAD, BAD]
    assert replica.status.snapshot().wish_etag == "edited"
    assert replica.error == f"line {BAD}"


def test_a_successor_that_is_no_longer_wanted_never_answers() -> None:
    replica = Replica(1)
    replica.want(2)
    replica.want(3)
    assert replica.loader.ended == [2]
    assert replica.models.switch().version == 3
    replica.want(4)
    replica.want(3)
    assert not replica.models.has_successor
    assert replica.models.switch().version == 3
    assert replica.loader.ended == [2, 1, 4]


def test_a_replica_that_starts_answers_with_the_model_before_where_the_wanted_one_cannot_be_loaded() -> None:
    replica = Replica(BAD, before=1)
    assert replica.models.current.version == replica.status.snapshot().model_version == 1
    assert replica.error == f"line {BAD}"
    with pytest.raises(HeadraceError) as broken:
        Replica(BAD)
    assert broken.value.reason_name == "CODE_ERROR"
