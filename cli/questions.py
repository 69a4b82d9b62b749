"""Asks an input topic and collects the answers of output topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import Unavailable
from headrace.v1 import error_pb2
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, as_headrace_error, kafka_errors, log_ends, partitions_of

SOURCE_HEADER = "headrace-source"
DEAD_LETTER_HEADER = "headrace-error-message"
TURN_S = 0.05
# After the last answer: time for one too many to appear.
SETTLE_S = 1.0


@dataclass
class Answers:
    """What came for each question: `by_topic[topic][number]` are the answers to question `number`, each its bytes.

    seconds: from the first question's place in the log to the last first answer.
    dead_letters: question → why it has no answer.
    """

    by_topic: dict[str, list[list[bytes]]]
    seconds: float = 0.0
    dead_letters: dict[int, str] = field(default_factory=dict)

    def missing(self) -> int:
        """Questions without an answer, over all topics, those that became dead letters not counted."""
        return sum(
            not answers and number not in self.dead_letters
            for topic in self.by_topic.values()
            for number, answers in enumerate(topic)
        )

    def first(self, topic: str) -> list[bytes | None]:
        return [answers[0] if answers else None for answers in self.by_topic[topic]]


def ask(
    kafka: KafkaSettings,
    input_topic: str,
    output_topics: Sequence[str],
    questions: Sequence[bytes],
    *,
    timeout_s: float = 60.0,
    dead_letters: str = "",
    on_answers: Callable[[Answers], None] | None = None,
) -> Answers:
    """Send the questions to all partitions in turn and return when each has an answer on every output topic.

    timeout_s: since the last answer that came; what is missing then is missing in the result. dead_letters: a topic
    whose records say why a question has none. on_answers: told of progress.
    """
    answers = Answers({topic: [[] for _ in questions] for topic in output_topics})
    with ExitStack() as stack:
        topics = [*output_topics, *([dead_letters] if dead_letters else [])]
        readers = [stack.enter_context(_from_end(kafka, topic)) for topic in topics]

        def read() -> list[Message]:
            return [message for reader in readers for message in reader.read(TURN_S / len(readers))]

        numbers, started = _send(kafka, input_topic, questions)
        last_news = time.monotonic()
        while answers.missing() and time.monotonic() - last_news < timeout_s:
            if _take(read(), numbers, answers, dead_letters):
                last_news = time.monotonic()
                answers.seconds = last_news - started
                if on_answers is not None:
                    on_answers(answers)
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled:
            _take(read(), numbers, answers, dead_letters)
    return answers


def _from_end(kafka: KafkaSettings, topic: str) -> TopicFollower:
    return TopicFollower(kafka, topic, {number: ends.high for number, ends in log_ends(kafka, topic).items()})


def _send(kafka: KafkaSettings, topic: str, questions: Sequence[bytes]) -> tuple[dict[str, int], float]:
    """Write the questions and return which place in the log (as `headrace-source` has it) is which question, and when
    the first one was there: a new producer needs a second before it may write.
    """
    places: dict[str, int] = {}
    failures: list[Any] = []
    confirmed: list[float] = []
    partitions = partitions_of(kafka, topic)
    producer = kafka.producer({"linger.ms": 5})

    def delivered(number: int) -> Callable[[Any, Message], None]:
        def report(error: Any, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                confirmed.append(time.monotonic())
                places[f"{topic}/{message.partition()}/{message.offset()}"] = number

        return report

    with kafka_errors(kafka, topic=topic):
        for number, question in enumerate(questions):
            partition = partitions[number % len(partitions)]
            producer.produce(topic, question, partition=partition, on_delivery=delivered(number))
            producer.poll(0)
        producer.flush(30.0)
    if failures:
        raise as_headrace_error(failures[0], kafka, topic=topic)
    if len(places) < len(questions):
        missing = len(questions) - len(places)
        raise Unavailable(
            error_pb2.REASON_NOT_DELIVERED,
            f"Kafka did not confirm {missing} of {len(questions)} records",
            count=missing,
        )
    return places, confirmed[0] if confirmed else time.monotonic()


def _take(messages: Sequence[Message], numbers: dict[str, int], answers: Answers, dead_letters: str) -> bool:
    """Put answers to our questions in their places; say whether there were any."""
    found = False
    for message in messages:
        headers = dict(message.headers() or [])
        number = numbers.get(_text(headers.get(SOURCE_HEADER)))
        if number is None:
            continue
        found = True
        if message.topic() == dead_letters:
            answers.dead_letters[number] = _text(headers.get(DEAD_LETTER_HEADER))
        else:
            answers.by_topic[message.topic() or ""][number].append(message.value() or b"")
    return found


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
