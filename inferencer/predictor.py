"""Answers batches with the worker, whatever a record or somebody's `kill` does to it."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DeadlineExceeded, HeadraceError, InvalidArgument
from headrace.v1 import error_pb2, model_pb2
from headrace.v1.result_pb2 import Result
from inferencer.answers import Encode, Refusal, encode_answers
from inferencer.workers import Workers
from sandbox.jobs import RowField
from sandbox.session import FrameworkName, WorkerSession

log = logging.getLogger(__name__)

Columns = dict[str, np.ndarray]
Answers = list[bytes | Refusal]

READY_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 120.0
BATCH_TIMEOUT_S = 60.0
# How long the caller is not heard of while the model works.
TURN_S = 0.1
PARTS = 32
# The parts of a batch that failed get time in proportion to their rows, but never less than this, nor than so many
# times what the slowest batch has taken: each record that hangs the model costs this once per level.
PART_TIMEOUT_S = 5.0
PART_TIMEOUT_MULTIPLE = 4
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
# How a worker ends that somebody kills, such as the kernel for want of memory: it need not be the record's doing.
MAYBE_KILLED = frozenset({error_pb2.REASON_WORKER_CRASHED, error_pb2.REASON_OUT_OF_MEMORY})


class RowsMismatch(InvalidArgument):
    """The model gives another number of rows than it got, so nobody knows which answer is whose (SCHEMA_MISMATCH)."""


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to become this model."""

    result: Result
    weights: Path

    @property
    def framework(self) -> FrameworkName:
        """The library that the model is written for."""
        return FRAMEWORKS[self.result.framework]


class Predictor:
    """One batch at a time is with the worker: `ask`, then `answer`. Between the two the caller reads the next one.

    encode: the values of the records of its answers.
    batch_timeout_s: a batch that takes longer hangs.
    """

    def __init__(
        self,
        recipe: Recipe,
        workers: Workers,
        encode: Encode = encode_answers,
        *,
        batch_timeout_s: float = BATCH_TIMEOUT_S,
    ) -> None:
        self._recipe, self._workers, self._encode = recipe, workers, encode
        self._batch_timeout_s = batch_timeout_s
        self._session: WorkerSession | None = None
        self._asked: Columns | None = None
        self._fields: Sequence[RowField] = ()
        self._takes_fields = False
        self._asked_at = 0.0
        self._slowest_s = 0.0
        self._send_error: HeadraceError | None = None

    def __enter__(self) -> "Predictor":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Loads the model. Raises CODE_ERROR, CHECKPOINT_CORRUPT, NOT_INSTALLED, ….; then there is nothing to close."""
        self._start(lambda: None)
        self._workers.keep_spare_when_quiet(self._recipe.framework)

    def close(self) -> None:
        """Ends the worker."""
        session, self._session = self._session, None
        if session is not None:
            self._workers.end(session)

    def warm(self, columns: Columns, fields: Sequence[RowField] = ()) -> None:
        """Has the model answer such rows once, whatever it says: what a first call costs is paid here.

        Raises RowsMismatch, SCHEMA_MISMATCH where they are not what it takes or its answer cannot be encoded,
        CODE_ERROR, WORKER_CRASHED, ….
        """
        fields = fields if self._takes_fields else ()
        outputs = self._worker.predict(columns, fields=fields, timeout_s=self._batch_timeout_s)
        self._encode(one_per_row(outputs, _row_count(columns)))

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
        """What `ask` asked for, one per row. `keep_alive` is called a few times a second while the model works.

        A worker that ends is replaced and gets the rows again in parts, down to the record that does it, whose answer
        is a refusal. Rows for which the model fails, or gives another number of rows, are tried in parts as well.
        """
        assert self._asked is not None
        columns, self._asked = self._asked, None
        try:
            if self._send_error is not None:
                raise self._send_error
            return self._receive_answers(columns, keep_alive, self._batch_timeout_s)
        except HeadraceError as error:
            log.warning("a batch failed; trying its parts", extra={"cause": str(error)})
            self._replace_after(error, keep_alive)
        return self._salvage(columns, keep_alive, self._batch_timeout_s)

    def _receive_answers(self, columns: Columns, keep_alive: Callable[[], None], timeout_s: float) -> Answers:
        return self._encode(one_per_row(self._receive(keep_alive, timeout_s), _row_count(columns)))

    def _receive(self, keep_alive: Callable[[], None], timeout_s: float) -> Columns:
        deadline = self._asked_at + timeout_s
        self._wait(keep_alive, deadline)
        try:
            answer = self._worker.receive_predict(max(0.001, deadline - time.monotonic()))
        except DeadlineExceeded as error:  # it knows only of the last moment
            facts: Mapping[str, Any] = {**error.metadata, "timeout_s": f"{timeout_s:g}"}
            raise DeadlineExceeded(error.reason, f"the model did not answer within {timeout_s:g} s", **facts) from error
        self._slowest_s = max(self._slowest_s, time.monotonic() - self._asked_at)
        return answer

    def _wait(self, keep_alive: Callable[[], None], deadline: float) -> None:
        """Until the worker has said something, or the deadline is over."""
        while not self._worker.answer_ready(max(0.0, min(TURN_S, deadline - time.monotonic()))):
            keep_alive()
            if time.monotonic() > deadline:
                return

    def _salvage(self, columns: Columns, keep_alive: Callable[[], None], timeout_s: float) -> Answers:
        """The rows part by part: the worker may have been killed from outside, and then all of them are answered.

        A part that fails again is taken apart itself. Many parts, because a worker that is lost costs more than a call
        does. `timeout_s`: what the rows had together.
        """
        rows = _row_count(columns)
        part_rows = math.ceil(rows / PARTS)
        part_timeout_s = self._part_timeout_s(timeout_s * part_rows / rows)
        answers: Answers = []
        for start in range(0, rows, part_rows):
            part = {name: array[start : start + part_rows] for name, array in columns.items()}
            answers += self._try_part(part, keep_alive, part_timeout_s)
        return answers

    def _part_timeout_s(self, share_s: float) -> float:
        least_s = max(PART_TIMEOUT_S, PART_TIMEOUT_MULTIPLE * self._slowest_s)
        return min(self._batch_timeout_s, max(share_s, least_s))

    def _try_part(
        self, part: Columns, keep_alive: Callable[[], None], timeout_s: float, *, is_last: bool = False
    ) -> Answers:
        """is_last: of a single row that the worker did not survive once."""
        self._asked_at = time.monotonic()
        try:
            self._worker.send_predict(part, fields=self._fields)
            return self._receive_answers(part, keep_alive, timeout_s)
        except HeadraceError as error:
            self._replace_after(error, keep_alive)
            failure = error
        if _row_count(part) > 1:
            return self._salvage(part, keep_alive, timeout_s)
        if failure.reason in MAYBE_KILLED and not is_last:
            return self._try_part(part, keep_alive, timeout_s, is_last=True)
        return [Refusal(failure.reason, failure.message)]

    @property
    def _worker(self) -> WorkerSession:
        assert self._session is not None
        return self._session

    def _replace_after(self, error: HeadraceError, keep_alive: Callable[[], None]) -> None:
        if error.reason in WORKER_LOST:
            self.close()
            self._start_again(keep_alive)
            # At once, because what has ended one worker may end more; only now, because it would slow the load down.
            self._workers.keep_spare(self._recipe.framework)

    def _start_again(self, keep_alive: Callable[[], None]) -> None:
        """Whoever has killed the worker may have killed the spare that takes its place, too."""
        try:
            self._start(keep_alive)
        except HeadraceError as error:
            if error.reason not in WORKER_LOST:
                raise
            log.warning("the worker was lost while it loaded the model", extra={"cause": str(error)})
            self._start(keep_alive)

    def _start(self, keep_alive: Callable[[], None]) -> None:
        self._session = self._workers.take(self._recipe.framework)
        try:
            self._load(keep_alive)
        except BaseException:
            self.close()
            raise

    def _load(self, keep_alive: Callable[[], None]) -> None:
        result = self._recipe.result
        deadline = time.monotonic() + READY_TIMEOUT_S
        self._wait(keep_alive, deadline)
        self._worker.wait_ready(max(0.001, deadline - time.monotonic()))
        built = self._worker.load(
            result.imports,
            result.code,
            self._recipe.weights,
            keep_integers=result.settings.keep_integers,
            timeout_s=LOAD_TIMEOUT_S,
        )
        self._takes_fields = len(built.signature.inputs) > 1


def one_per_row(outputs: Columns, rows: int) -> Columns:
    """The outputs, each of shape (rows, …); a scalar for a single row is its answer. Raises RowsMismatch."""
    found = {name: np.atleast_1d(array) for name, array in outputs.items()}
    for name, array in found.items():
        if len(array) != rows:
            raise RowsMismatch(
                error_pb2.REASON_SCHEMA_MISMATCH,
                f"the model's output {name!r} has {len(array)} rows for the {rows} that it got: its shape is"
                f" {list(array.shape)}, and the first axis has to stay that of the rows, such as by squeeze(-1) in"
                " place of squeeze()",
                output=name,
                rows=rows,
                found=len(array),
            )
    if not found:
        raise RowsMismatch(error_pb2.REASON_SCHEMA_MISMATCH, f"the model has no output for {rows} rows", rows=rows)
    return found


def _row_count(columns: Columns) -> int:
    return len(next(iter(columns.values())))
