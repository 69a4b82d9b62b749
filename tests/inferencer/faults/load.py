"""The input of a fault test: records that carry their place, some of them bad, all by a seed."""

import enum
import random
import threading
from collections.abc import Callable, Mapping

import numpy as np

from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings
from streams.writer import BatchProducer

INPUT_CONFIG = {"data_type": "float32", "data_reshape": "2"}
CHUNK = 200


class Kind(enum.IntEnum):
    """What a record does to whoever answers it. The model finds the number in the record."""

    GOOD = 0
    CRASH = -1
    HANG = -2
    RAISE = -3
    NAN = -4
    MALFORMED = -5


REASONS: Mapping[Kind, int] = {
    Kind.CRASH: error_pb2.REASON_WORKER_CRASHED,
    Kind.HANG: error_pb2.REASON_DEADLINE,
    Kind.RAISE: error_pb2.REASON_CODE_ERROR,
    Kind.NAN: error_pb2.REASON_NAN_OUTPUT,
    Kind.MALFORMED: error_pb2.REASON_DECODE_ERROR,
}

# Answers [n, VERSION]; numpy alone, so that the worker of these tests is ready at once.
MODEL = """
import os, time

def model(x):
    kinds = x[:, 1]
    if (kinds == -1).any():
        os._exit(0)
    while (kinds == -2).any():
        time.sleep(0.01)
    if (kinds == -3).any():
        raise ValueError("no such record")
    time.sleep(SECONDS if len(x) > 2 else 0)
    return np.where(kinds[:, None] == -4, np.nan, np.stack([x[:, 0], np.full(len(x), VERSION)], 1)).astype(np.float32)
"""
# The same for PyTorch.
TORCH_MODEL = """
import os, time

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
    def forward(self, x):
        kinds = x[:, 1]
        if (kinds == -1).any():
            os._exit(0)
        while (kinds == -2).any():
            time.sleep(0.01)
        if (kinds == -3).any():
            raise ValueError("no such record")
        time.sleep(SECONDS if len(x) > 2 else 0)
        answers = torch.stack([x[:, 0], torch.full((len(x),), float(VERSION))], 1)
        return torch.where(kinds[:, None] == -4, torch.nan, answers)
    def loss_fn(self):
        return nn.MSELoss()
    def optimizer(self):
        return torch.optim.SGD(model.parameters(), lr=0.1)
    def metrics(self):
        return {"loss": Loss(self.loss_fn())}

model = Model()
"""


def model_code(version: int, *, seconds: float = 0.0, template: str = MODEL) -> str:
    """A model whose batches take so long, but for one or two rows, such as those that warm it."""
    return template.replace("VERSION", str(version)).replace("SECONDS", str(seconds))


class Load:
    """`count` records in each of the partitions, numbered from 0 in each: stream and offset are partition and number.

    bad: kind to how many records of each partition are of it.
    """

    def __init__(self, seed: int, partitions: int, count: int, bad: Mapping[Kind, int] | None = None) -> None:
        self.partitions, self.count = partitions, count
        self.kinds = [_kinds(random.Random(f"{seed}/{number}"), count, bad or {}) for number in range(partitions)]

    @property
    def total(self) -> int:
        """Records of all partitions."""
        return self.partitions * self.count

    def number_of(self, kind: Kind) -> int:
        """Records of the kind in all partitions."""
        return sum(int((kinds == kind).sum()) for kinds in self.kinds)

    def send(self, producer: BatchProducer, topic: str, start: int, end: int) -> None:
        """The records `start` to `end` of each partition; they are in the log when it returns."""
        for number in range(start, min(end, self.count)):
            for partition in range(self.partitions):
                headers: list[tuple[str, str | bytes | None]] = [("n", b"%d:%d" % (partition, number))]
                producer.produce(topic, b"%d" % number, self._value(partition, number), headers, partition)
        producer.flush()

    def _value(self, partition: int, number: int) -> bytes:
        kind = self.kinds[partition][number]
        return b"abc" if kind == Kind.MALFORMED else np.array([number, kind], np.float32).tobytes()


def _kinds(rng: random.Random, count: int, bad: Mapping[Kind, int]) -> np.ndarray:
    kinds = np.full(count, Kind.GOOD, np.int8)
    places = iter(rng.sample(range(count), sum(bad.values())))
    for kind, number in bad.items():
        for _ in range(number):
            kinds[next(places)] = kind
    return kinds


class Sending:
    """Sends a load on a thread, never more records than `allowed` says. A context manager."""

    def __init__(self, load: Load, kafka: KafkaSettings, topic: str, allowed: Callable[[], int]) -> None:
        self._load, self._kafka, self._topic, self._allowed = load, kafka, topic, allowed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sending")
        self.sent = 0
        self.failure: Exception | None = None

    def __enter__(self) -> "Sending":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether everything is in the log. Raises what kept it from being sent."""
        if self.failure is not None:
            raise self.failure
        return self.sent == self._load.total

    def _run(self) -> None:
        try:
            with BatchProducer(self._kafka) as producer:
                for start in range(0, self._load.count, CHUNK):
                    if not self._may_go_on():
                        return
                    self._load.send(producer, self._topic, start, start + CHUNK)
                    self.sent = min(start + CHUNK, self._load.count) * self._load.partitions
        except Exception as error:
            self.failure = error

    def _may_go_on(self) -> bool:
        while self.sent >= self._allowed():
            if self._stop.wait(0.02):
                return False
        return not self._stop.is_set()
