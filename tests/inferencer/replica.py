"""A replica whose model adds up the numbers of a record: the real loop, without a framework to import.

`python -m tests.inferencer.replica KAFKA INPUT OUTPUT SLOT` runs it as a process until SIGTERM.
"""

import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np

from headrace import logs
from headrace.errors import FailedPrecondition
from headrace.process import stop_on_signals
from headrace.v1 import error_pb2, inference_pb2, stream_pb2
from inferencer.answers import encode_answers
from inferencer.delivery import AtLeastOnce, Delivery, ExactlyOnce
from inferencer.loop import DEFAULT_MAX_WAIT_S, Loop, Model, Models, Route, Target
from inferencer.predictor import Answers, Columns
from inferencer.status import Status
from streams.codecs import Field, codec_for
from streams.group import GroupReader
from streams.kafka import KafkaSettings
from streams.topic_rules import USUAL, TopicRules

INPUT_CONFIG = {"data_type": "float32", "data_reshape": "2"}


class Adder:
    """Answers each row with its sum."""

    def __init__(self) -> None:
        self._asked: Columns = {}

    def ask(self, columns: Columns, fields: Sequence[Field] = ()) -> None:
        self._asked = columns

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        (rows,) = self._asked.values()
        return encode_answers({"sum": rows.sum(axis=1)})


def adder(version: int) -> Model:
    """A version of it; its results have the same numbers."""
    return Model(b"adder/%d" % version, version, version, Adder())


BROKEN = range(100, 200)


class AdderLoader:
    """Loads every version at once, but those of BROKEN; `ended` are those that were let go."""

    def __init__(self) -> None:
        self.loads: list[int] = []
        self.ended: list[int] = []

    def load(self, result_id: int, stop: threading.Event, *, strict: bool) -> Model:
        self.loads.append(result_id)
        if result_id in BROKEN:
            raise FailedPrecondition(error_pb2.REASON_CODE_ERROR, f"line {result_id}")
        return adder(result_id)

    def end(self, model: Model) -> None:
        self.ended.append(model.version)


class Fixed:
    """One model for ever."""

    def __init__(self, model: Model) -> None:
        self.current, self.has_successor = model, False

    def switch(self) -> Model:
        return self.current


def run_replica(
    kafka: KafkaSettings,
    source: str,
    target: str,
    slot: int,
    stop: threading.Event,
    *,
    on_error: int = inference_pb2.ERROR_POLICY_DEAD_LETTER,
    max_rows: int = 16,
    at_least_once: bool = False,
    rules: TopicRules = USUAL,
    max_wait_s: float = DEFAULT_MAX_WAIT_S,
    status: Status | None = None,
    models: Models | None = None,
    group_id: str = "",
) -> None:
    """Answers `source` on `target` until `stop` is set."""
    group_id = group_id or f"group-{source}"
    reader = GroupReader(
        kafka,
        group_id=group_id,
        topic=source,
        slot=str(slot),
        on_revoke=lambda partitions: loop.before_revoke(partitions),
        on_lost=lambda partitions: loop.after_loss(partitions),
    )
    delivery: Delivery = (
        AtLeastOnce(kafka, reader) if at_least_once else ExactlyOnce(kafka, f"{group_id}-{slot}", source)
    )
    with delivery:
        loop = Loop(
            route=Route(
                source,
                Target(target, 4, rules),
                Target(source + ".dead-letters", 1),
                on_error,
                max_rows,
                max_wait_s,
            ),
            reader=reader,
            codec=codec_for(stream_pb2.DATA_FORMAT_RAW, INPUT_CONFIG),
            models=models or Fixed(adder(1)),
            delivery=delivery,
            status=status or Status(slot),
        )
        with reader:
            loop.run(stop)
            reader.leave()


def question(partition: int, number: int) -> bytes:
    """The bytes of one record."""
    return np.array([partition, number], np.float32).tobytes()


if __name__ == "__main__":
    logs.configure("replica")
    with stop_on_signals() as asked:
        run_replica(KafkaSettings(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), asked)
