"""Questions and their answers over a real broker: matched by their place in the log, counted exactly."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.questions import ask
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message


@contextmanager
def _answering(
    kafka: KafkaSettings, topic: str, answer: Callable[[Message], list[tuple[str, bytes]]]
) -> Iterator[None]:
    """Answers every question of the topic, until the block ends, with what `answer` says: (topic, value) pairs."""
    stop = threading.Event()
    producer = kafka.producer()

    def run() -> None:
        with TopicFollower(kafka, topic, {}) as questions:
            while not stop.is_set():
                for question in questions.read(0.05):
                    source = f"{question.topic()}/{question.partition()}/{question.offset()}"
                    for output_topic, value in answer(question):
                        headers: dict[str, str | bytes | None] = {
                            "headrace-source": source,
                            "headrace-error-message": "too odd",
                        }
                        producer.produce(output_topic, value, headers=headers)
                producer.flush(5)

    thread = threading.Thread(target=run, name="answering")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_every_question_gets_its_own_answer_of_each_topic(kafka: KafkaSettings, topic: Callable[..., str]) -> None:
    questions, upper, lower = topic(partitions=3), topic(partitions=2), topic()

    def answer(message: Message) -> list[tuple[str, bytes]]:
        value = message.value() or b""
        return [(upper, value.upper()), (lower, value)]

    asked = [f"question {number}".encode() for number in range(20)]
    with _answering(kafka, questions, answer):
        first = ask(kafka, questions, [upper, lower], asked, timeout_s=10)
        again = ask(kafka, questions, [upper, lower], asked[:3], timeout_s=10)
    assert first.missing() == 0
    assert first.first(upper) == [each.upper() for each in asked]
    assert first.first(lower) == asked
    assert first.seconds > 0
    assert [len(each) for each in again.by_topic[lower]] == [1, 1, 1]


def test_an_answer_too_many_is_seen(kafka: KafkaSettings, topic: Callable[..., str]) -> None:
    questions, answers = topic(), topic()
    with _answering(kafka, questions, lambda message: [(answers, b"one"), (answers, b"two")]):
        got = ask(kafka, questions, [answers], [b"why?"], timeout_s=10)
    assert got.by_topic[answers] == [[b"one", b"two"]]


def test_what_is_not_answered_is_missing_and_a_dead_letter_says_why(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    questions, answers, dead = topic(), topic(), topic()

    def answer(message: Message) -> list[tuple[str, bytes]]:
        known: dict[bytes, list[tuple[str, bytes]]] = {b"odd": [(dead, b"odd")], b"good": [(answers, b"yes")]}
        return known.get(message.value() or b"", [])

    with _answering(kafka, questions, answer):
        got = ask(kafka, questions, [answers], [b"good", b"odd", b"ignored"], timeout_s=1, dead_letters=dead)
    assert got.first(answers) == [b"yes", None, None]
    assert got.dead_letters == {1: "too odd"}
    assert got.missing() == 1
