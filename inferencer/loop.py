"""The loop of a replica: read, decode, predict, answer, commit.

The worker always has a batch: while it predicts one, the loop produces the answers of the batch before and reads and
decodes the batch behind. In order, for every batch:

1. `consume`: up to `max_rows` records, and with them the membership in the group that fences their commit.
2. Decode all rows at once; a record that cannot be decoded is refused.
3. Take the answers of the batch before from the worker, and send it these rows.
4. Open a transaction unless one is open, and produce the answers and dead letters of the batch before, in the order of
   the records.
5. When the pace says so, or partitions are about to be taken away: commit answers, dead letters and offsets together.

Another model takes over between two batches, after a commit: no transaction has answers of both.

Whatever fails on the way to a commit ends in `_start_over`: abort, then read again from the committed offsets. The one
without the other would lose records, or answer them twice.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np

from headrace.errors import HeadraceError, Internal, Unavailable
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2, inference_pb2
from inferencer.answers import Refusal, answers_headers, dead_letter_headers
from inferencer.breaker import CircuitBreaker
from inferencer.delivery import Delivery, OutcomeLostError
from inferencer.pace import CommitPace
from inferencer.predictor import Answers, Columns
from inferencer.status import Status
from inferencer.stopping import Place, RecordRefused, Stop
from inferencer.timings import phase
from streams.answers import request_to
from streams.codecs import Codec, Field
from streams.delivery import SentRecord
from streams.group import GroupReader
from streams.kafka import Message, headers_of
from streams.topic_rules import USUAL, TopicRules

log = logging.getLogger(__name__)

DEFAULT_MAX_ROWS = 1024
DEFAULT_MAX_WAIT_S = 0.1
KAFKA_AWAY_WAIT_S = 0.5
# Between two turns nobody hears that the replica is to stop or to take another model, nor which partitions it has.
LONGEST_TURN_S = 1.0
KEEP_ALIVE_S = 1.0


@dataclass(frozen=True)
class Target:
    """A topic to write to. A record goes to the partition of its question, modulo `partitions`: so order is kept."""

    topic: str
    partitions: int
    rules: TopicRules = USUAL


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
    """Positions of the rows that the worker gets."""
    revoked: set[int] = field(default_factory=set)
    """Partitions that were taken away meanwhile: their answers are somebody else's."""
    columns: Columns = field(default_factory=dict)
    """The rows that were decoded."""


class WaitBrokenError(Exception):
    """What ends the replica while it waits for answers: no HeadraceError, which the model would take for its own."""

    def __init__(self, cause: HeadraceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class BatchModel(Protocol):
    """Answers one batch at a time; between the two calls the loop reads the next one."""

    def ask(self, columns: Columns, fields: Sequence[Field] = ()) -> None:
        """Takes rows, and what they consist of, without waiting for their answers."""

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        """The answers to the rows of `ask`, one each; calls `keep_alive` a few times a second meanwhile."""


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
    """One replica. `run` only loops; `step` does one turn.

    on_turn: called before each turn, and a few times a second while a slow model is waited for.
    """

    def __init__(
        self,
        *,
        route: Route,
        reader: GroupReader,
        codec: Codec,
        models: Models,
        delivery: Delivery,
        status: Status,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._route, self._reader, self._codec = route, reader, codec
        self._models, self._delivery, self._status = models, delivery, status
        self._on_turn = on_turn
        self._model = models.current
        self._stops = route.on_error == inference_pb2.ERROR_POLICY_STOP
        self._source = b"%s/%%d/%%d" % route.input_topic.encode()  # no topic's name has a %
        self._request = request_to(reader.group_id).encode()
        self._pace = CommitPace(delivery.pacing)
        self._breaker = CircuitBreaker()
        self._read: Batch | None = None  # waits for the worker
        self._asked: Batch | None = None  # is with the worker
        self._positions: dict[int, int] = {}  # answered and not committed: partition → next offset
        self._counts = Counts()
        self._too_large: dict[Place, Refusal] = {}  # whose answers Kafka does not take, where that stops the replica
        self._behind = False
        self._start_over_wanted = False
        self._kafka_away = False
        self._alive_until = 0.0

    def run(self, stop: threading.Event) -> None:
        """Answers until `stop` is set, then settles and commits what is on the way."""
        while not stop.is_set():
            self.step()
        self._settle(self._receive())
        self._commit()

    def step(self) -> None:
        """One turn. Raises what ends the replica: FENCED, OFFSET_EXPIRED, SCHEMA_MISMATCH, …"""
        self._on_turn()
        self._read_next()
        is_replaced = self._models.has_successor
        if not self._start_over_wanted:
            answered = self._receive()
            if not is_replaced:
                self._ask_next()
            self._settle(answered)
        if is_replaced and not self._start_over_wanted:
            self._replace_model()
        if self._start_over_wanted:
            self._start_over()
            return
        self._commit_if_due()
        self._status.observe(self._reader.assigned, self._reader.lag(), behind=self._behind)

    def before_revoke(self, partitions: Sequence[int]) -> None:
        """Called by the reader while the partitions are still ours: commit what is answered, forget the rest."""
        self._status.rebalanced()
        for batch in self._on_the_way:
            batch.revoked.update(partitions)
        self._commit()

    def after_loss(self, partitions: Sequence[int]) -> None:
        """Called by the reader when the partitions are somebody else's already."""
        self._status.rebalanced()
        self._start_over_wanted = True

    @property
    def _on_the_way(self) -> list[Batch]:
        """Read, and not yet answered."""
        return [batch for batch in (self._asked, self._read) if batch is not None]

    def _replace_model(self) -> None:
        """Nothing is with the worker; once nothing is uncommitted either, the next batch goes to the successor."""
        self._commit()
        if self._start_over_wanted:
            return
        self._model = self._models.switch()
        self._status.answers_with(self._model.result_id, self._model.version)
        self._ask_next()

    def _wait_s(self) -> float:
        """Answers that are due, or a batch that is with the worker, must not wait for new records."""
        if self._kafka_away:
            return KAFKA_AWAY_WAIT_S
        if self._asked or self._start_over_wanted:
            return 0.0
        return min(self._route.max_wait_s, LONGEST_TURN_S, self._pace.remaining_s(behind=self._behind))

    def _read_next(self) -> None:
        questions = self._reader.consume(self._route.max_rows, self._wait_s())
        fail_at("after_consume")
        if self._start_over_wanted:
            return
        self._behind = len(questions) == self._route.max_rows
        if questions:
            self._status.read(len(questions))
            with phase("decode"):
                decoded = self._codec.decode_samples([question.value() for question in questions])
            refusals = {bad.index: Refusal(error_pb2.REASON_DECODE_ERROR, bad.reason) for bad in decoded.bad}
            self._read = Batch(questions, refusals, decoded.good, columns={"": decoded.rows})

    def _ask_next(self) -> None:
        """What was read goes to the worker, which has nothing else."""
        if self._start_over_wanted:
            return
        self._asked, self._read = self._read, None
        if self._asked is not None and len(self._asked.asked):
            self._model.predictor.ask(self._asked.columns, self._codec.fields)

    def _receive(self) -> tuple[Batch, Answers] | None:
        """The batch that is with the worker, and the outcome of each of its records."""
        batch = self._asked
        if batch is None:
            return None
        answered: Answers = []
        if len(batch.asked):
            self._alive_until = time.monotonic() + KEEP_ALIVE_S
            with phase("predict"):
                answered = self._await_answers()
        self._asked = None
        return batch, _outcomes(batch, answered)

    def _settle(self, answered: tuple[Batch, Answers] | None) -> None:
        """Turns answers into records of the open transaction."""
        if answered is None or self._start_over_wanted:
            return
        fail_at("after_predict")
        batch, answers = answered
        if self._route.output.rules.needs_key:
            answers = _with_key(batch, answers, self._route.output.topic)
        if self._stops:
            self._settle_or_stop(*_still_ours(batch, answers))
            return
        self._check(batch, answers)
        self._send(*_still_ours(batch, answers))

    def _settle_or_stop(self, questions: Sequence[Message], answers: Answers) -> None:
        """Raises RecordRefused at records that cannot be answered, once what comes before them is committed."""
        places = _places_of(questions)
        stop = Stop.among(places, answers, self._too_large)
        if not stop:
            self._send(questions, answers)
            return
        kept = stop.before(places)
        self._send([questions[index] for index in kept], [answers[index] for index in kept])
        self._commit()
        if not self._start_over_wanted:
            raise stop.error(self._route.input_topic)

    def _send(self, questions: Sequence[Message], answers: Answers) -> None:
        with phase("produce"):
            self._produce(questions, answers)
        fail_at("after_produce")

    def _await_answers(self) -> Answers:
        try:
            return self._model.predictor.answer(self._while_waiting)
        except WaitBrokenError as broken:
            raise broken.cause from broken

    def _while_waiting(self) -> None:
        """A slow model must neither keep the answers of the batch before in an open transaction, nor have the group
        take the replica for dead.
        """
        self._on_turn()
        try:
            self._commit_if_due()
            if time.monotonic() >= self._alive_until:
                self._keep_alive()
        except HeadraceError as error:
            raise WaitBrokenError(error) from error

    def _keep_alive(self) -> None:
        self._alive_until = time.monotonic() + KEEP_ALIVE_S
        self._reader.pause()
        self._reader.keep_alive()
        self._reader.resume()
        self._status.observe(self._reader.assigned, self._unanswered(), behind=self._behind)

    def _unanswered(self) -> dict[int, int]:
        """Partition to records that wait in Kafka, or here for a slow model. Counted only then: it takes its time."""
        read = Counter(question.partition() for batch in self._on_the_way for question in batch.questions)
        return {number: lag + read[number] for number, lag in self._reader.lag().items()}

    def _check(self, batch: Batch, answers: Answers) -> None:
        """Raises where the records that cannot be answered are too many."""
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        example = refusals[0].message if refusals else ""
        self._breaker.count(len(batch.questions), len(refusals), example)

    def _produce(self, questions: Sequence[Message], answers: Answers) -> None:
        """Answers, then dead letters; each in the order of the records."""
        if not questions:
            return
        places = _places_of(questions)
        self._pace.opened()
        time.sleep(self._pace.rest_s(behind=self._behind))
        try:
            refused = self._send_answers(questions, places, answers)
            if refused and self._stops:
                self._read_again_up_to({places[index]: refusal for index, refusal in refused.items()})
                return
            self._send_dead_letters(questions, places, refused)
        except OutcomeLostError as error:
            self._lose(error)
            return
        if self._delivery.shows_at_once:
            self._status.answered(but_last=len(self._on_the_way))
        self._counts.answers += len(questions) - len(refused)
        self._counts.refusals += len(refused)
        self._positions.update((partition, offset + 1) for partition, offset in dict(places).items())

    def _send_answers(
        self, questions: Sequence[Message], places: Sequence[Place], answers: Answers
    ) -> dict[int, Refusal]:
        """Which are refused: by the model, or because the answer is larger than Kafka takes."""
        refused = {index: answer for index, answer in enumerate(answers) if isinstance(answer, Refusal)}
        sent: Sequence[int] = range(len(answers))
        if refused:
            sent = [index for index in sent if index not in refused]
            questions, places = [questions[index] for index in sent], [places[index] for index in sent]
        values = answers if not refused else [answers[index] for index in sent]
        records = self._records(questions, places, cast(Sequence[bytes], values))
        too_large = self._delivery.produce(self._route.output.topic, records)
        refused.update({sent[at]: Refusal(error.reason, error.message) for at, error in too_large.items()})
        return refused

    def _records(
        self, questions: Sequence[Message], places: Sequence[Place], values: Sequence[bytes]
    ) -> list[SentRecord]:
        """Column by column: what is done for each record alone is most of what small rows cost."""
        partitions = self._route.output.partitions
        sources = map(self._source.__mod__, places)
        headers = answers_headers(map(headers_of, questions), self._model.label, sources, request=self._request)
        targets = [partition % partitions for partition, _ in places]
        return list(zip(values, map(Message.key, questions), targets, headers, strict=True))

    def _send_dead_letters(
        self, questions: Sequence[Message], places: Sequence[Place], refused: Mapping[int, Refusal]
    ) -> None:
        if self._route.on_error == inference_pb2.ERROR_POLICY_DEAD_LETTER:
            for index in sorted(refused):
                self._send_dead_letter(questions[index], places[index], refused[index])

    def _send_dead_letter(self, question: Message, place: Place, refusal: Refusal) -> None:
        """The whole question; of one that would be too large, with the headers that are added, as much as may be."""
        target, copied = self._route.dead_letters, headers_of(question)
        forms = ((question.key(), question.value(), copied), (question.key(), None, copied), (None, None, None))
        for number, (key, value, kept) in enumerate(forms):
            headers = dead_letter_headers(
                kept, self._model.label, self._source % place, refusal, request=self._request, is_cut=number > 0
            )
            record = (value, key, place[0] % target.partitions, headers)
            error = self._delivery.produce(target.topic, [record]).get(0)
            if error is None:
                return
            refusal = Refusal(refusal.reason, f"{refusal.message}; cut, its source has all of it: {error.message}")

    def _commit_if_due(self) -> None:
        if self._pace.remaining_s(behind=self._behind) <= 0:
            self._commit()

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
        self._status.committed(self._counts.answers, self._counts.refusals, but_last=len(self._on_the_way))
        self._positions, self._counts = {}, Counts()
        self._pace.committed(time.monotonic() - started)

    def _lose(self, error: OutcomeLostError) -> None:
        log.warning("reading again from the committed offsets", extra={"cause": str(error)})
        self._status.lost(error.cause)
        self._start_over_wanted = True

    def _read_again_up_to(self, too_large: Mapping[Place, Refusal]) -> None:
        """Answers behind these records are produced already: all is dropped, and next time it is known before."""
        self._too_large.update(too_large)
        self._start_over_wanted = True

    def _start_over(self) -> None:
        """Abort, then read again from the committed offsets: what they say is done is done, the rest is not."""
        self._receive()
        self._read = None
        self._positions, self._counts = {}, Counts()
        self._status.aborted()
        self._pace.aborted()
        try:
            self._delivery.recover()
            self._reader.rewind()
        except Unavailable as error:
            self._kafka_away = True
            self._status.lost(error)
            log.warning("waiting for Kafka", extra={"cause": str(error)})
        else:
            self._start_over_wanted = self._kafka_away = False


def _places_of(questions: Sequence[Message]) -> list[Place]:
    """In the order of the records."""
    places = zip(map(Message.partition, questions), map(Message.offset, questions), strict=True)
    return list(cast(Iterable[Place], places))


def _outcomes(batch: Batch, answered: Answers) -> Answers:
    """Of every record: its answer, or why it has none. Raises where an answer could go to another record."""
    if len(answered) != len(batch.asked):
        raise Internal(
            error_pb2.REASON_INTERNAL_ERROR,
            f"there are {len(answered)} answers for {len(batch.asked)} rows",
            answers=len(answered),
            rows=len(batch.asked),
        )
    if not batch.refusals:
        return answered
    outcomes = dict(batch.refusals) | dict(zip(batch.asked.tolist(), answered, strict=True))
    return [outcomes[index] for index in range(len(batch.questions))]


def _with_key(batch: Batch, answers: Answers, topic: str) -> Answers:
    """Only those that a compacted topic takes."""
    refusal = Refusal(
        error_pb2.REASON_INVALID_FIELD,
        f"it has no key, and its answer would have none: the topic {topic!r} is compacted, and takes no record without",
    )
    keys = map(Message.key, batch.questions)
    return [
        refusal if key is None and not isinstance(answer, Refusal) else answer
        for key, answer in zip(keys, answers, strict=True)
    ]


def _still_ours(batch: Batch, answers: Answers) -> tuple[Sequence[Message], Answers]:
    """Questions and answers, but for the partitions that were taken away meanwhile."""
    if not batch.revoked:
        return batch.questions, answers
    kept = [index for index, (partition, _) in enumerate(_places_of(batch.questions)) if partition not in batch.revoked]
    return [batch.questions[index] for index in kept], [answers[index] for index in kept]


def is_permanent(error: HeadraceError) -> bool:
    """Whether starting the replica again would end the same way."""
    return isinstance(error, RecordRefused) or error.reason in {
        error_pb2.REASON_SCHEMA_MISMATCH,
        error_pb2.REASON_OFFSET_EXPIRED,
        error_pb2.REASON_DECODE_ERROR,
        error_pb2.REASON_NAN_OUTPUT,
        error_pb2.REASON_CODE_ERROR,
        error_pb2.REASON_NO_MODEL,
        error_pb2.REASON_NO_ARTIFACT,
        error_pb2.REASON_DIGEST_MISMATCH,
        error_pb2.REASON_UNKNOWN_TOPIC,
        error_pb2.REASON_TOPIC_RECREATED,
        error_pb2.REASON_KAFKA_FORBIDDEN,
        error_pb2.REASON_INVALID_FORMAT,
        error_pb2.REASON_INVALID_FIELD,
        error_pb2.REASON_CHECKPOINT_CORRUPT,
        error_pb2.REASON_NOT_YET,
        error_pb2.REASON_NOT_INSTALLED,
        error_pb2.REASON_RESOURCE_NOT_FOUND,
        error_pb2.REASON_WRONG_STATE,
    }
