"""The model for jobs of others, in whatever environment they run: bytes of 28×28 pictures to answers in JSON."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHAPE = (28, 28)
# A job's first line on its standard output: when its first question was with the model.
STARTED = "started_at"


@dataclass(frozen=True)
class Job:
    """What a job is told on its command line."""

    bootstrap: str
    source: str
    target: str
    model: str
    folder: str
    """Empty, for what it keeps to go on after a crash."""

    @classmethod
    def told(cls) -> "Job":
        """Of this process."""
        return cls(*sys.argv[1:])


class Answering:
    """A Keras model behind one traced function, as our own worker has it."""

    def __init__(self, path: str) -> None:
        import keras
        import orjson
        import tensorflow as tf

        self._orjson: Any = orjson
        model = keras.models.load_model(path)
        signature = [tf.TensorSpec((None, *SHAPE), tf.uint8)]
        self._call = tf.function(lambda rows: model(rows, training=False), input_signature=signature)
        for rows in (1, 1000):
            self._call(np.zeros((rows, *SHAPE), np.uint8))
        self._has_begun = False

    def one(self, value: bytes) -> bytes:
        """The answer to one picture."""
        return self.batch([value])[0]

    def batch(self, values: Sequence[bytes]) -> list[bytes]:
        """The answers to as many pictures."""
        if not self._has_begun:
            self._has_begun = True
            tell_start()
        rows = np.frombuffer(b"".join(values), np.uint8).reshape(-1, *SHAPE)
        answers = self._call(rows).numpy()
        return [self._orjson.dumps({"values": row}, option=self._orjson.OPT_SERIALIZE_NUMPY) for row in answers]


def tell_start() -> None:
    """The time goes from here to the timestamp of the last answer: starting the process does not count."""
    print(json.dumps({STARTED: time.time()}), flush=True)
