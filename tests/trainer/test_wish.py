import pytest

from headrace.errors import Unimplemented
from headrace.v1 import deployment_pb2
from headrace.v1.deployment_pb2 import DistributedMode, TrainingSettings
from trainer.wish import complete


def test_every_default_is_filled_in() -> None:
    full = complete(TrainingSettings(seed=7))
    assert (full.batch_size, full.seed) == (32, 7)
    assert full.split == deployment_pb2.SPLIT_SHUFFLED
    assert full.count_mismatch == deployment_pb2.COUNT_MISMATCH_FAIL
    assert full.checkpoint_interval.seconds == 60
    assert full.WhichOneof("mode") == "single"


def test_what_is_set_stays() -> None:
    wished = TrainingSettings(batch_size=7, split=deployment_pb2.SPLIT_ORDERED)
    full = complete(wished)
    assert (full.batch_size, full.split) == (7, deployment_pb2.SPLIT_ORDERED)
    assert wished.WhichOneof("mode") is None


def test_a_mode_of_a_later_version_is_refused() -> None:
    with pytest.raises(Unimplemented):
        complete(TrainingSettings(distributed=DistributedMode()))
