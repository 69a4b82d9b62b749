"""Answers batches with the worker, whatever a record or somebody's `kill` does to it."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.errors import HeadraceError
from headrace.v1 import error_pb2, model_pb2
from headrace.v1.result_pb2 import Result
from inferencer.answers import Encode, Refusal, encode_answers
from sandbox.jobs import RowField
from sandbox.limits import Limits
from sandbox.session import FrameworkName, WorkerSession

log = logging.getLogger(__name__)

Columns = dict[str, np.ndarray]
Answers = list[bytes | Refusal]

READY_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 120.0
BATCH_TIMEOUT_S = 60.0
PARTS = 32
FRAMEWORKS: dict[int, FrameworkName] = {
    model_pb2.FRAMEWORK_TENSORFLOW: "tensorflow",
    model_pb2.FRAMEWORK_PYTORCH: "pytorch",
}

# After these the worker is gone or cannot be trusted; other errors leave it as it was.
WORKER_LOST = frozenset(
    {
        error_pb2.REASON_WORKER_CRASHED,
        error_pb2.REASON_WORKER_PROTOCOL,
        error_pb2.REASON_OUT_OF_MEMORY,
        error_pb2.REASON_OUTPUT_LIMIT,
        error_pb2.REASON_DEADLINE,
    }
)


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to become this model."""

    result: Result
    weights: Path
    folder: Path
    memory_bytes: int
    on_output: Callable[[str], None]


class Predictor:
    """One batch at a time is with the worker: `ask`, then `answer`. Between the two the caller reads the next one."""

    def __init__(self, recipe: Recipe, encode: Encode = encode_answers) -> None:
        self._recipe = recipe
        self._encode = encode
        self._session: WorkerSession | None = None
        self._asked: Columns | None = None
        self._fields: Sequence[RowField] = ()
        self._takes_fields = False
        self._asked_at = 0.0
        self._send_error: HeadraceError | None = None

    def __enter__(self) -> "Predictor":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, columns: Columns, fields: Sequence[RowField] = ()) -> None:
        """Sends rows, name to array of shape (rows, …), without waiting for their answers.

        fields: what a row of the only array consists of, where the records have named fields.
        """
        assert self._asked is None
        # A model with one input takes rows as they are, and thousands of fields would go with every batch.
        self._asked, self._fields = columns, fields if self._takes_fields else ()
        self._asked_at = time.monotonic()
        self._send_error = None
        try:
            self._worker.send_predict(columns, fields=self._fields)
        except HeadraceError as error:
            self._send_error = error

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        """What `ask` asked for, one per row. `keep_alive` is called about once a second while the model works.

        A worker that ends is replaced and gets the rows again in parts, down to the record that does it, whose answer
        is a refusal.
        """
        assert self._asked is not None
        columns, self._asked = self._asked, None
        try:
            if self._send_error is not None:
                raise self._send_error
            return self._encode(self._receive(keep_alive))
        except HeadraceError as error:
            log.warning("a batch failed; trying its parts", extra={"cause": str(error)})
            self._replace_after(error)
        return self._salvage(columns, keep_alive)

    def _receive(self, keep_alive: Callable[[], None]) -> Columns:
        deadline = self._asked_at + BATCH_TIMEOUT_S
        while not self._worker.answer_ready(1.0):
            keep_alive()
            if time.monotonic() > deadline:
                break
        return self._worker.receive_predict(max(0.001, deadline - time.monotonic()))

    def _salvage(self, columns: Columns, keep_alive: Callable[[], None]) -> Answers:
        """The rows part by part: the worker may have been killed from outside, and then all of them are answered.

        A part that fails again is taken apart itself. Many parts, because a worker that is lost costs seconds and a
        call costs milliseconds.
        """
        rows = len(next(iter(columns.values())))
        part_rows = math.ceil(rows / PARTS)
        answers: Answers = []
        for start in range(0, rows, part_rows):
            part = {name: array[start : start + part_rows] for name, array in columns.items()}
            answers += self._try_part(part, keep_alive)
        return answers

    def _try_part(self, part: Columns, keep_alive: Callable[[], None]) -> Answers:
        self._asked_at = time.monotonic()
        try:
            self._worker.send_predict(part, fields=self._fields)
            return self._encode(self._receive(keep_alive))
        except HeadraceError as error:
            self._replace_after(error)
            if len(next(iter(part.values()))) == 1:
                return [Refusal(error.reason, error.message)]
        return self._salvage(part, keep_alive)

    @property
    def _worker(self) -> WorkerSession:
        assert self._session is not None
        return self._session

    def _replace_after(self, error: HeadraceError) -> None:
        if error.reason in WORKER_LOST:
            self._stop()
            self._start()

    def _start(self) -> None:
        recipe = self._recipe
        session = WorkerSession.start(
            FRAMEWORKS[recipe.result.framework],
            limits=Limits(memory_bytes=recipe.memory_bytes) if recipe.memory_bytes else Limits(),
            folder=recipe.folder,
            on_output=recipe.on_output,
        )
        self._session = session.__enter__()
        session.wait_ready(READY_TIMEOUT_S)
        built = session.load(
            recipe.result.imports,
            recipe.result.code,
            recipe.weights,
            keep_integers=recipe.result.settings.keep_integers,
            timeout_s=LOAD_TIMEOUT_S,
        )
        self._takes_fields = len(built.signature.inputs) > 1

    def _stop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.__exit__(None, None, None)
