"""The loop of a replica: read, decode, predict, answer, commit.

While the worker predicts one batch the loop reads and decodes the next. In order, for every batch:

1. `consume`: up to `max_rows` records, and with them the membership in the group that fences their commit.
2. Decode all rows at once; a record that cannot be decoded is refused.
3. Send the rows to the worker; settle the batch before: collect its answers, open a transaction unless one is open,
   produce answers and dead letters in the order of the records.
4. When the pace says so, or partitions are about to be taken away: commit answers, dead letters and offsets together.

Another model takes over between two batches, after a commit: no transaction has answers of both.

Whatever fails on the way to a commit ends in `_start_over`: abort, then read again from the committed offsets. The one
without the other would lose records, or answer them twice.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument, Unavailable
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2, inference_pb2
from inferencer.answers import Header, Refusal, answer_headers, dead_letter_headers
from inferencer.breaker import CircuitBreaker
from inferencer.delivery import Delivery, OutcomeLostError
from inferencer.pace import CommitPace
from inferencer.predictor import Answers, Columns
from inferencer.status import Status
from inferencer.timings import phase
from streams.codecs import Codec, Field
from streams.group import GroupReader
from streams.kafka import Message, headers_of

log = logging.getLogger(__name__)

DEFAULT_MAX_ROWS = 1024
DEFAULT_MAX_WAIT_S = 0.1
KAFKA_AWAY_WAIT_S = 0.5


@dataclass(frozen=True)
class Target:
    """A topic to write to. A record goes to the partition of its question, modulo `partitions`: so order is kept."""

    topic: str
    partitions: int


@dataclass(frozen=True)
class Route:
    """Where questions become what."""

    input_topic: str
    output: Target
    dead_letters: Target
    on_error: int = inference_pb2.ERROR_POLICY_DEAD_LETTER
    max_rows: int = DEFAULT_MAX_ROWS
    max_wait_s: float = DEFAULT_MAX_WAIT_S


@dataclass
class Batch:
    """Records on their way to an answer."""

    questions: Sequence[Message]
    refusals: dict[int, Refusal]
    """Position in the batch to why the record was not decoded."""
    asked: np.ndarray
    """Positions of the rows that are with the worker."""
    revoked: set[int] = field(default_factory=set)
    """Partitions that were taken away meanwhile: their answers are somebody else's."""
    discarded: bool = False
    """All of it will be read again."""


class BatchModel(Protocol):
    """Answers one batch at a time; between the two calls the loop reads the next one."""

    def ask(self, columns: Columns, fields: Sequence[Field] = ()) -> None:
        """Takes rows, and what they consist of, without waiting for their answers."""

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        """The answers to the rows of `ask`, one each; calls `keep_alive` now and then meanwhile."""


@dataclass(frozen=True)
class Model:
    """What answers, and what it calls itself."""

    label: bytes
    """The value of the header `headrace-model`."""
    result_id: int
    version: int
    predictor: BatchModel


class Models(Protocol):
    """The model that answers, and the one that is to answer next."""

    @property
    def current(self) -> Model:
        """Answers now."""

    @property
    def has_successor(self) -> bool:
        """Whether another one is loaded and waits."""

    def switch(self) -> Model:
        """The successor, if it is still wanted, answers from now on; the model before it is let go."""


@dataclass
class Counts:
    """Records whose outcome is not committed yet."""

    answers: int = 0
    refusals: int = 0


class Loop:
    """One replica. `run` only loops; `step` does one turn."""

    def __init__(
        self,
        *,
        route: Route,
        reader: GroupReader,
        codec: Codec,
        models: Models,
        delivery: Delivery,
        status: Status,
    ) -> None:
        self._route, self._reader, self._codec = route, reader, codec
        self._models, self._delivery, self._status = models, delivery, status
        self._model = models.current
        self._pace = CommitPace()
        self._breaker = CircuitBreaker()
        self._read: Sequence[Message] = ()  # while the batch before is with the worker
        self._in_flight: Batch | None = None
        self._positions: dict[int, int] = {}  # answered and not committed: partition → next offset
        self._counts = Counts()
        self._behind = False
        self._start_over_wanted = False
        self._kafka_away = False

    def run(self, stop: threading.Event) -> None:
        """Answers until `stop` is set, then settles and commits what is on the way."""
        while not stop.is_set():
            self.step()
        self._settle()
        self._commit()

    def step(self) -> None:
        """One turn. Raises what ends the replica: FENCED, OFFSET_EXPIRED, SCHEMA_MISMATCH, …"""
        self._read = self._reader.consume(self._route.max_rows, self._wait_s())
        fail_at("after_consume")
        if not self._start_over_wanted:
            self._behind = len(self._read) == self._route.max_rows
            self._settle()
        if self._start_over_wanted:
            self._start_over()
            return
        if self._models.has_successor:
            self._replace_model()
        if self._read:
            self._ask(self._read)
        if self._pace.remaining_s(behind=self._behind) <= 0:
            self._commit()
        self._status.observe(self._reader.assigned, self._reader.lag())

    def before_revoke(self, partitions: Sequence[int]) -> None:
        """Called by the reader while the partitions are still ours: commit what is answered, forget the rest."""
        self._status.rebalanced()
        # A slow answer is waited for with the next batch in hand, and the group is served meanwhile.
        self._read = [question for question in self._read if question.partition() not in partitions]
        if self._in_flight:
            self._in_flight.revoked.update(partitions)
        self._commit()

    def after_loss(self, partitions: Sequence[int]) -> None:
        """Called by the reader when the partitions are somebody else's already."""
        self._status.rebalanced()
        self._start_over_wanted = True

    def _replace_model(self) -> None:
        """Nothing is with the worker; once nothing is uncommitted either, the next batch goes to the successor."""
        self._commit()
        if self._start_over_wanted:
            return
        self._model = self._models.switch()
        self._status.answers_with(self._model.result_id, self._model.version)

    def _wait_s(self) -> float:
        """Answers that are due, or a batch that is with the worker, must not wait for new records."""
        if self._kafka_away:
            return KAFKA_AWAY_WAIT_S
        if self._in_flight or self._start_over_wanted:
            return 0.0
        return min(self._route.max_wait_s, self._pace.remaining_s(behind=self._behind))

    def _ask(self, questions: Sequence[Message]) -> None:
        self._status.read(len(questions))
        with phase("decode"):
            decoded = self._codec.decode_samples([question.value() for question in questions])
        refusals = {bad.index: Refusal(error_pb2.REASON_DECODE_ERROR, bad.reason) for bad in decoded.bad}
        self._in_flight = Batch(questions, refusals, decoded.good)
        if len(decoded.good):
            self._model.predictor.ask({"": decoded.rows}, self._codec.fields)

    def _settle(self) -> None:
        """Turns the batch that is with the worker into records of the open transaction."""
        batch = self._in_flight
        if batch is None:
            return
        answers: dict[int, bytes | Refusal] = dict(batch.refusals)
        if len(batch.asked):
            with phase("predict"):
                answered = self._model.predictor.answer(self._reader_alive)
            answers.update(zip(batch.asked.tolist(), answered, strict=True))
        self._in_flight = None
        if batch.discarded or self._start_over_wanted:
            return
        fail_at("after_predict")
        self._check(batch, answers)
        with phase("produce"):
            self._produce(batch, answers)
        fail_at("after_produce")

    def _reader_alive(self) -> None:
        """The group must not take a replica for dead whose model is slow."""
        self._reader.pause()
        self._reader.keep_alive()
        self._reader.resume()

    def _check(self, batch: Batch, answers: dict[int, bytes | Refusal]) -> None:
        """Raises where the records that cannot be answered are too many, or the policy wants none."""
        refusals = [answer for answer in answers.values() if isinstance(answer, Refusal)]
        example = refusals[0].message if refusals else ""
        if refusals and self._route.on_error == inference_pb2.ERROR_POLICY_STOP:
            raise FailedPrecondition(refusals[0].reason, f"a record cannot be answered: {example}")
        self._breaker.count(len(batch.questions), len(refusals), example)

    def _produce(self, batch: Batch, answers: dict[int, bytes | Refusal]) -> None:
        try:
            for index, question in enumerate(batch.questions):
                partition, offset = question.partition(), question.offset()
                assert partition is not None
                assert offset is not None
                if partition in batch.revoked:
                    continue
                self._pace.opened()
                self._produce_one(question, partition, offset, answers[index])
                self._positions[partition] = offset + 1
        except OutcomeLostError as error:
            self._lose(error)

    def _produce_one(self, question: Message, partition: int, offset: int, answer: bytes | Refusal) -> None:
        route, copied = self._route, headers_of(question)
        source = f"{route.input_topic}/{partition}/{offset}".encode()
        if isinstance(answer, bytes):
            try:
                headers = answer_headers(copied, self._model.label, source)
                self._send(route.output, question, partition, answer, headers)
                self._counts.answers += 1
                return
            except InvalidArgument as error:  # larger than Kafka takes
                answer = Refusal(error.reason, error.message)
        self._counts.refusals += 1
        if route.on_error == inference_pb2.ERROR_POLICY_DEAD_LETTER:
            self._send_dead_letter(question, partition, source, answer)

    def _send_dead_letter(self, question: Message, partition: int, source: bytes, refusal: Refusal) -> None:
        """The whole question; of one that would be too large, with the headers that are added, as much as may be."""
        target, copied = self._route.dead_letters, headers_of(question)
        forms = ((question.key(), question.value(), copied), (question.key(), None, copied), (None, None, None))
        for key, value, kept in forms:
            headers = dead_letter_headers(kept, self._model.label, source, refusal)
            try:
                self._delivery.produce(target.topic, key, value, headers, partition % target.partitions)
                return
            except InvalidArgument as error:
                refusal = Refusal(refusal.reason, f"{refusal.message}; cut, its source has all of it: {error.message}")

    def _send(
        self, target: Target, question: Message, partition: int, value: bytes | None, headers: list[Header]
    ) -> None:
        self._delivery.produce(target.topic, question.key(), value, headers, partition % target.partitions)

    def _commit(self) -> None:
        """Everything that was answered since the last commit, with its offsets."""
        if not self._positions or self._start_over_wanted:
            return
        started = time.monotonic()
        try:
            fail_at("before_commit")
            with phase("commit"):
                self._delivery.commit(self._positions, self._reader.metadata)
        except OutcomeLostError as error:
            self._lose(error)
            return
        fail_at("after_commit")
        is_asked = self._in_flight is not None
        self._status.committed(self._counts.answers, self._counts.refusals, but_last=is_asked)
        self._positions, self._counts = {}, Counts()
        self._pace.committed(time.monotonic() - started)

    def _lose(self, error: OutcomeLostError) -> None:
        log.warning("reading again from the committed offsets", extra={"cause": str(error)})
        self._status.lost(error.cause)
        self._start_over_wanted = True

    def _start_over(self) -> None:
        """Abort, then read again from the committed offsets: what they say is done is done, the rest is not."""
        if self._in_flight:
            self._in_flight.discarded = True
            self._settle()
        self._positions, self._counts = {}, Counts()
        self._status.aborted()
        self._pace.aborted()
        try:
            self._delivery.recover()
            self._reader.rewind()
        except Unavailable as error:
            self._kafka_away = True
            self._status.lost(error)
            log.warning("Kafka is away; trying again", extra={"cause": str(error)})
        else:
            self._start_over_wanted = self._kafka_away = False


def is_permanent(error: HeadraceError) -> bool:
    """Whether starting the replica again would end the same way."""
    return error.reason in {
        error_pb2.REASON_SCHEMA_MISMATCH,
        error_pb2.REASON_OFFSET_EXPIRED,
        error_pb2.REASON_DECODE_ERROR,
        error_pb2.REASON_NAN_OUTPUT,
        error_pb2.REASON_CODE_ERROR,
        error_pb2.REASON_NO_MODEL,
        error_pb2.REASON_NO_ARTIFACT,
        error_pb2.REASON_DIGEST_MISMATCH,
        error_pb2.REASON_UNKNOWN_TOPIC,
        error_pb2.REASON_KAFKA_FORBIDDEN,
        error_pb2.REASON_INVALID_FORMAT,
        error_pb2.REASON_INVALID_FIELD,
        error_pb2.REASON_CHECKPOINT_CORRUPT,
        error_pb2.REASON_NOT_YET,
        error_pb2.REASON_NOT_INSTALLED,
        error_pb2.REASON_RESOURCE_NOT_FOUND,
        error_pb2.REASON_WRONG_STATE,
    }
