"""Asks a deployed model over Kafka, and gives the answers to whom they belong."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count as numbers
from itertools import cycle
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any

from headrace.errors import DeadlineExceeded, FailedPrecondition, NotFound
from headrace.v1 import error_pb2
from sinks.formats import encoder_for, format_of
from sinks.rows import count, cut, mismatch, row_of, rows_of
from streams.answers import ERROR_HEADER, ERROR_MESSAGE_HEADER, MODEL_HEADER, SOURCE_HEADER, dead_letter_topic
from streams.codecs import Rows
from streams.delivery import DELIVERY_TIMEOUT_S, FLUSH_GRACE_S, Tally, enqueue, flush, message_limit, not_delivered
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, headers_of, kafka_errors, log_ends, partitions_of
from streams.outputs import AnswerReader

ANSWER_TIMEOUT_S = 60.0
MAX_IN_FLIGHT = 1000
_TURN_S = 0.05
# For so long samples that come one by one are gathered, to be confirmed together.
_GATHER_S = 0.005
# So many of them may be taken before there is room for their questions.
_AHEAD = 64
# Answered questions that are remembered, to tell a second answer from a stranger's.
_REMEMBERED = 10_000

# Rows with their keys.
_Part = tuple[Rows, list[Hashable]]


@dataclass(frozen=True)
class Answer:
    """What became of one question: an answer, or a dead letter that says why there is none.

    key: the question's index, or the key that it was given.
    topic: where the answer was read.
    value: the record's value, as the model's deployment encodes it.
    model: which model and version has answered.
    reason, message: of a dead letter, a stable name and a sentence; else empty.
    repeated: this question had an answer on this topic before: then somebody answers twice.
    reader: decodes the value.
    """

    key: Hashable
    topic: str
    value: bytes
    model: str = ""
    reason: str = ""
    message: str = ""
    repeated: bool = False
    reader: AnswerReader = field(default_factory=AnswerReader, repr=False)

    @property
    def is_dead_letter(self) -> bool:
        return bool(self.reason)

    @property
    def values(self) -> Any:
        """The model's last output: a list of numbers, nested as the output is."""
        return self.reader.values(self.value)

    @property
    def outputs(self) -> dict[str, Any]:
        """Every output by name; `values` where there is one only."""
        return self.reader.outputs(self.value)

    @property
    def label(self) -> str:
        """The best class, where the inference labels its answers."""
        label = self.reader.label(self.value)
        return label.name if label is not None else ""


class InferenceSink:
    """Sends samples to a model's input topic and yields what it answers on its output topic.

        with InferenceSink("localhost:9092", "questions", "answers") as sink:
            for answer in sink.ask(images):                       # answer.key is the image's index
                if answer.is_dead_letter:
                    print(answer.key, answer.reason, answer.message)
                else:
                    print(answer.key, answer.values)              # the scores of its classes

    Answers come as the model gives them, in no order; they are matched by the header `headrace-source`, so other
    clients may ask the same topic at the same time. Only committed answers are seen (read_committed), each of them
    once. Memory is bounded: at most `max_in_flight` questions wait for answers, and the rest of the samples is sent as
    these come, while the caller iterates.

    output_topic: one topic, or several: then every question is awaited on each of them.
    data_format, input_config: of the samples, as the inference's `input_format` and `input_config`; RAW as the first
        sample has it unless given.
    output_format, output_config: of the answers, as the inference's `output_format` and `output_config`; JSON unless
        given.
    dead_letters: the topic of the questions that became dead letters; `INPUT.dead-letters` unless given, if there is
        such a topic; empty for none.
    answer_timeout_s: how long to wait when no answer comes at all.
    options: librdkafka's properties: security, for instance.
    """

    def __init__(  # noqa: PLR0913
        self,
        bootstrap_servers: str,
        input_topic: str,
        output_topic: str | Sequence[str],
        *,
        data_format: str | int = "RAW",
        input_config: Mapping[str, str] | None = None,
        output_format: str | int = "JSON",
        output_config: Mapping[str, str] | None = None,
        dead_letters: str | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        max_in_flight: int = MAX_IN_FLIGHT,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._kafka = KafkaSettings(bootstrap_servers, options or {})
        self._input_topic = input_topic
        self._output_topics = [output_topic] if isinstance(output_topic, str) else list(output_topic)
        self._reader = AnswerReader(format_of(output_format), dict(output_config or {}))
        self._encoder = encoder_for(data_format, input_config)
        self._dead_letters = dead_letter_topic(input_topic) if dead_letters is None else dead_letters
        self._dead_letters_may_miss = dead_letters is None
        self._answer_timeout_s = answer_timeout_s
        self._max_in_flight = max(1, max_in_flight)
        self._open = ExitStack()
        self._is_open = False
        self._readers: list[TopicFollower] = []
        self._questions = _Questions(self._output_topics, self._reader)
        self._clock = _Clock()

    def __enter__(self) -> InferenceSink:
        """Raises NotFound (UNKNOWN_TOPIC), Unavailable."""
        with ExitStack() as stack:
            for topic in self._topics_to_read():
                ends = {number: ends.high for number, ends in log_ends(self._kafka, topic).items()}
                self._readers.append(stack.enter_context(TopicFollower(self._kafka, topic, ends)))
            self._partitions = cycle(partitions_of(self._kafka, self._input_topic))
            self._producer = self._kafka.producer({"linger.ms": 1})
            self._open = stack.pop_all()
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._open.close()
        self._producer.purge()

    @property
    def seconds(self) -> float:
        """From when the first question was in the log to the last answer, of the last `ask`."""
        return self._clock.seconds

    @property
    def in_flight(self) -> int:
        """Questions that wait for answers."""
        return self._questions.waiting

    def ask(self, samples: Any, keys: Sequence[Hashable] | None = None, *, settle_s: float = 0.0) -> Iterator[Answer]:
        """Send the rows of `samples` `(n, ...)`, or columns by name, and yield their answers until all have theirs.

        keys: what the answers are known by; the index of the sample unless given.
        settle_s: when all have answered, look for answers too many for so long.

        Raises DeadlineExceeded with the number and the first keys of those without an answer when none came for
        `answer_timeout_s`; InvalidArgument (SCHEMA_MISMATCH), Unavailable (NOT_DELIVERED), PermissionDenied.
        """
        rows = rows_of(samples)
        if keys is not None and len(keys) != count(rows):
            raise mismatch(f"there are {count(rows)} samples and {len(keys)} keys")
        return self._ask(_Batch(rows, keys), settle_s)

    def ask_each(self, samples: Iterable[Any], keys: Iterable[Hashable] | None = None) -> Iterator[Answer]:
        """As `ask`, of samples that come one by one, perhaps without an end.

        They are taken on a thread of their own, a few ahead: an answer is yielded when it comes, not when the next
        sample does. Who stops iterating leaves a source that waits to that thread, until its next sample.
        """
        return self._ask(_Each(samples, keys), 0.0)

    def _ask(self, source: _Batch | _Each, settle_s: float) -> Iterator[Answer]:
        if not self._is_open:
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE, "questions are asked in a block: with InferenceSink(…) as sink: …"
            )
        self._questions, self._clock = _Questions(self._output_topics, self._reader), _Clock()
        last_news = time.monotonic()
        with source:
            while source.left or self._questions.waiting:
                if self._has_room(source) and self._send(source.take(self._max_in_flight - self._questions.waiting)):
                    last_news = time.monotonic()
                for answer in self._read(source.pause_s if self._has_room(source) else _TURN_S):
                    last_news = self._clock.last = time.monotonic()
                    yield answer
                if self._questions.waiting and time.monotonic() - last_news > self._answer_timeout_s:
                    raise self._late()
        ends = time.monotonic() + settle_s
        while time.monotonic() < ends:
            yield from self._read(_TURN_S)

    def _has_room(self, source: _Batch | _Each) -> bool:
        return source.left and self._questions.waiting <= self._max_in_flight // 2

    def _send(self, parts: Iterable[_Part]) -> bool:
        """Write the questions and wait until it is known where in the log each stands. Whether there were any."""
        tally = Tally()
        for rows, keys in parts:
            for key, value in zip(keys, self._encoder.samples(rows, None), strict=True):
                self._send_one(key, value, tally)
        flush(self._producer, DELIVERY_TIMEOUT_S + FLUSH_GRACE_S)
        if tally.delivered < tally.sent:
            raise not_delivered(tally, self._kafka, self._input_topic)
        return tally.sent > 0

    def _send_one(self, key: Hashable, value: bytes, tally: Tally) -> None:
        # Of this `ask`: the report may come during the next one, where this one was given up.
        questions, clock = self._questions, self._clock

        def report(error: Any, message: Message) -> None:
            tally.report(error, message)
            if error is None:
                clock.start()
                place = f"{self._input_topic}/{message.partition()}/{message.offset()}"
                questions.add(place, key)

        with kafka_errors(self._kafka, topic=self._input_topic):
            enqueue(
                self._producer, self._input_topic, None, value,
                partition=next(self._partitions), on_delivery=report, limit_bytes=message_limit(self._kafka),
            )  # fmt: skip
        tally.sent += 1
        self._producer.poll(0)

    def _read(self, wait_s: float) -> Iterator[Answer]:
        for reader in self._readers:
            for message in reader.read(wait_s / len(self._readers)):
                answer = self._questions.answered(message)
                if answer is not None:
                    yield answer

    def _topics_to_read(self) -> list[str]:
        if not self._dead_letters or not self._dead_letters_may_miss:
            return [*self._output_topics, *filter(None, [self._dead_letters])]
        try:
            partitions_of(self._kafka, self._dead_letters)
        except NotFound:
            return self._output_topics
        return [*self._output_topics, self._dead_letters]

    def _late(self) -> DeadlineExceeded:
        missing = self._questions.waiting
        shown = ", ".join(map(str, self._questions.first_waiting(3)))
        return DeadlineExceeded(
            error_pb2.REASON_DEADLINE,
            f"{missing} questions to {self._input_topic!r} have no answer, and none came for "
            f"{self._answer_timeout_s:g} s; the first are {shown}",
            topic=self._input_topic,
            missing=missing,
        )


@dataclass
class _Question:
    """awaited: the topics whose answer is missing."""

    key: Hashable
    awaited: set[str] = field(default_factory=set)


class _Questions:
    """The questions that wait, and the last of those that do not, by their place in the log."""

    def __init__(self, topics: Sequence[str], reader: AnswerReader) -> None:
        self._topics = topics
        self._reader = reader
        self._waiting: dict[str, _Question] = {}
        self._done: OrderedDict[str, _Question] = OrderedDict()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def first_waiting(self, most: int) -> list[Hashable]:
        return [question.key for question in list(self._waiting.values())[:most]]

    def add(self, place: str, key: Hashable) -> None:
        self._waiting[place] = _Question(key, set(self._topics))

    def answered(self, message: Message) -> Answer | None:
        """The answer, if it is one to our questions."""
        headers = dict(headers_of(message))
        place = _text(headers.get(SOURCE_HEADER))
        question = self._waiting.get(place) or self._done.get(place)
        if question is None:
            return None
        topic, reason = message.topic() or "", _text(headers.get(ERROR_HEADER))
        repeated = topic not in question.awaited and topic in self._topics
        # A dead letter is all that comes of a question, whichever output was awaited.
        question.awaited.difference_update([topic] if not reason else self._topics)
        if not question.awaited:
            self._finish(place)
        model, why = _text(headers.get(MODEL_HEADER)), _text(headers.get(ERROR_MESSAGE_HEADER))
        return Answer(question.key, topic, message.value() or b"", model, reason, why, repeated, self._reader)

    def _finish(self, place: str) -> None:
        if place in self._waiting:
            self._done[place] = self._waiting.pop(place)
            if len(self._done) > _REMEMBERED:
                self._done.popitem(last=False)


class _Batch:
    """Rows that are at hand, to be taken in parts."""

    pause_s = 0.0

    def __init__(self, rows: Rows, keys: Sequence[Hashable] | None) -> None:
        self._rows = rows
        self._keys = range(count(rows)) if keys is None else keys
        self._next = 0

    def __enter__(self) -> None:
        """Nothing has to be opened."""

    def __exit__(self, *_: object) -> None:
        """Nor closed."""

    @property
    def left(self) -> bool:
        return self._next < len(self._keys)

    def take(self, most: int) -> list[_Part]:
        start, self._next = self._next, min(self._next + most, len(self._keys))
        return [(cut(self._rows, start, self._next), list(self._keys[start : self._next]))]


class _Each:
    """Samples that come one by one, taken on a thread: while it waits for the next one, answers are read.

    left: whether more may come. pause_s: how long answers may be waited for meanwhile.
    """

    pause_s = _GATHER_S

    def __init__(self, samples: Iterable[Any], keys: Iterable[Hashable] | None) -> None:
        self._pairs = zip(samples, numbers() if keys is None else keys, strict=False)
        self._come: Queue[tuple[Any, Hashable] | _End] = Queue(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference-samples", daemon=True)
        self.left = True

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if not self.left:
            self._thread.join()

    def take(self, most: int) -> Iterator[_Part]:
        """Those that come within a moment; each is sent as soon as it comes. Raises what their source raises."""
        ends = time.monotonic() + _GATHER_S
        for _ in range(most):
            try:
                come = self._come.get(timeout=max(0.0, ends - time.monotonic()))
            except Empty:
                return
            if isinstance(come, _End):
                self.left = False
                if come.error is not None:
                    raise come.error
                return
            sample, key = come
            yield row_of(sample), [key]

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for pair in self._pairs:
                if not self._put(pair):
                    return
        except BaseException as raised:  # the caller's, who gets it
            error = raised
        self._put(_End(error))

    def _put(self, come: tuple[Any, Hashable] | _End) -> bool:
        """Wait for room; false when nobody takes any more."""
        while not self._stop.is_set():
            try:
                self._come.put(come, timeout=_TURN_S)
                return True
            except Full:
                continue
        return False


@dataclass(frozen=True)
class _End:
    """No more samples; the error that has ended them, if any."""

    error: BaseException | None


class _Clock:
    """From the first question in the log to the last answer."""

    def __init__(self) -> None:
        self._started = 0.0
        self.last = 0.0

    def start(self) -> None:
        self._started = self._started or time.monotonic()

    @property
    def seconds(self) -> float:
        return max(0.0, self.last - self._started) if self.last else 0.0


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
