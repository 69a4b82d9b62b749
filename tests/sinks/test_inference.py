"""Questions and their answers over a real broker: matched by their place in the log, counted exactly."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from headrace.errors import DeadlineExceeded, InvalidArgument, NotFound
from sinks import Answer, InferenceSink
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message
from streams.writer import TransactionalWriter
from tests.streams.log import flush
from tests.support import eventually, on_thread

Topic = Callable[..., str]
Replies = Callable[[Message], list[tuple[str, bytes]]]


@contextmanager
def answering(kafka: KafkaSettings, topic: str, answer: Replies) -> Iterator[None]:
    """Answers every question of the topic, until the block ends, with what `answer` says: (topic, value) pairs."""
    producer = kafka.producer({"linger.ms": 0})

    def run(stop: threading.Event) -> None:
        with TopicFollower(kafka, topic, {}) as questions:
            while not stop.is_set():
                for question in questions.read(0.05):
                    source = f"{question.topic()}/{question.partition()}/{question.offset()}"
                    for output_topic, value in answer(question):
                        headers: dict[str, str | bytes | None] = {"headrace-source": source, "headrace-model": "m:1"}
                        if value.startswith(b"!"):
                            headers |= {"headrace-error": "DECODE_ERROR", "headrace-error-message": "too odd"}
                        producer.produce(output_topic, value, headers=headers)
                producer.flush(5)

    with on_thread(run, "answering"):
        yield


def doubled(topic: str) -> Replies:
    """Answers `{"values": [2 x]}` to the number x."""
    return lambda message: [(topic, b'{"values": [%d]}' % (2 * np.frombuffer(message.value() or b"", np.int64)[0]))]


def test_every_question_gets_its_own_answer_of_each_topic(kafka: KafkaSettings, topic: Topic) -> None:
    questions, upper, lower = topic(partitions=3), topic(partitions=2), topic()

    def answer(message: Message) -> list[tuple[str, bytes]]:
        return [*doubled(upper)(message), (lower, message.value() or b"")]

    with (
        answering(kafka, questions, answer),
        InferenceSink(kafka.bootstrap_servers, questions, [upper, lower]) as sink,
    ):
        answers = list(sink.ask(np.arange(20)))
        again = list(sink.ask(np.arange(3), keys=["a", "b", "c"]))
    assert {each.key: each.values for each in answers if each.topic == upper} == {n: [2 * n] for n in range(20)}
    assert {each.key: each.value for each in answers if each.topic == lower} == {
        number: np.int64(number).tobytes() for number in range(20)
    }
    assert Counter(each.key for each in again) == {"a": 2, "b": 2, "c": 2}
    assert {each.model for each in answers} == {"m:1"}
    assert sink.seconds > 0
    assert sink.in_flight == 0


def test_more_questions_than_may_be_in_flight_are_asked_as_answers_come(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(2), topic()
    seen = []
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers, max_in_flight=10) as sink,
    ):
        got = {}
        for each in sink.ask(np.arange(100)):
            got[each.key] = each.values
            seen.append(sink.in_flight)
    assert got == {number: [2 * number] for number in range(100)}
    assert max(seen) < 10


def test_samples_that_come_one_by_one_are_asked_at_once(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        got = {each.key: each.values for each in sink.ask_each(iter([5, 6, 7]), keys="abc")}
    assert got == {"a": [10], "b": [12], "c": [14]}


def test_an_answer_does_not_wait_for_the_next_sample(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    answered = threading.Event()

    def samples() -> Iterator[int]:
        """The next number comes only when the one before is answered."""
        for number in range(3):
            yield number
            if not answered.wait(30):
                raise TimeoutError
            answered.clear()

    got = []
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        for each in sink.ask_each(samples()):
            got.append(each.values)
            answered.set()
    assert got == [[0], [2], [4]]


def test_what_a_source_raises_is_raised_where_answers_are_taken(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()

    def samples() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        with pytest.raises(ZeroDivisionError):
            list(sink.ask_each(samples()))
        assert [each.values for each in sink.ask_each(iter([4]))] == [[8]]


def test_who_stops_iterating_leaves_no_thread(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        asked = sink.ask_each(itertools.count())
        next(asked)
        asked.close()  # type: ignore[attr-defined]
        eventually(lambda: "inference-samples" not in {thread.name for thread in threading.enumerate()})


def test_many_samples_that_come_one_by_one_do_not_wait_for_each_other(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers, max_in_flight=1000) as sink,
    ):
        asked = sink.ask_each(iter(range(1000)))
        next(asked)
        # A question that is confirmed by itself has its answer before many others are asked.
        assert sink.in_flight > 20
        assert len(list(asked)) == 999


def test_an_answer_to_an_ask_that_was_refused_is_in_no_later_one(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with (
        answering(kafka, questions, doubled(answers)),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        with pytest.raises(InvalidArgument):
            list(sink.ask_each([1, [2, 3]]))
        assert [(each.key, each.values) for each in sink.ask(np.array([4]), settle_s=0.5)] == [(0, [8])]


def test_two_clients_of_one_topic_get_each_their_own(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    found: dict[int, list[Answer]] = {}

    def ask(first: int) -> None:
        with InferenceSink(kafka.bootstrap_servers, questions, answers) as sink:
            found[first] = list(sink.ask(np.arange(first, first + 50)))

    with answering(kafka, questions, doubled(answers)):
        clients = [threading.Thread(target=ask, args=(first,)) for first in (0, 1000)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    for first, got in found.items():
        assert {each.key: each.values for each in got} == {n: [2 * (first + n)] for n in range(50)}
        assert len(got) == 50


def test_an_answer_too_many_is_seen(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with (
        answering(kafka, questions, lambda message: [(answers, b"one"), (answers, b"two")]),
        InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
    ):
        got = list(sink.ask([1], settle_s=1.0))
    assert [(each.value, each.repeated) for each in got] == [(b"one", False), (b"two", True)]


def test_an_answer_that_is_not_committed_is_not_seen(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers = topic(), topic()
    with TransactionalWriter(kafka, f"answers-{answers}") as writer:

        def answer(message: Message) -> list[tuple[str, bytes]]:
            headers: list[tuple[str, str | bytes | None]] = [("headrace-source", f"{questions}/0/{message.offset()}")]
            for value, commit in ((b"aborted", False), (b"committed", True)):
                writer.begin()
                writer.produce(answers, None, value, headers)
                flush(writer)
                writer.commit() if commit else writer.abort()
            return []

        with (
            answering(kafka, questions, answer),
            InferenceSink(kafka.bootstrap_servers, questions, answers) as sink,
        ):
            assert [each.value for each in sink.ask([1])] == [b"committed"]


def test_what_is_not_answered_is_told_and_a_dead_letter_says_why(kafka: KafkaSettings, topic: Topic) -> None:
    questions, answers, dead = topic(), topic(), topic()
    replies = {0: [(answers, b"yes")], 1: [(dead, b"!odd")], 2: []}

    def answer(message: Message) -> list[tuple[str, bytes]]:
        return replies[int(np.frombuffer(message.value() or b"", np.int64)[0])]

    got: list[Answer] = []
    with (
        answering(kafka, questions, answer),
        InferenceSink(kafka.bootstrap_servers, questions, answers, dead_letters=dead, answer_timeout_s=1) as sink,
        pytest.raises(DeadlineExceeded) as caught,
    ):
        got.extend(sink.ask([0, 1, 2], keys=["good", "odd", "ignored"]))
    assert caught.value.metadata["missing"] == "1"
    assert "ignored" in caught.value.message
    by_key = {each.key: each for each in got}
    assert by_key["good"].value == b"yes"
    assert not by_key["good"].is_dead_letter
    assert (by_key["odd"].reason, by_key["odd"].message) == ("DECODE_ERROR", "too odd")


def test_topics_that_do_not_exist_are_told_at_once(kafka: KafkaSettings, topic: Topic) -> None:
    for topics in ((topic(), "no-such-answers"), ("no-such-questions", topic())):
        with pytest.raises(NotFound) as caught, InferenceSink(kafka.bootstrap_servers, *topics):
            pass
        assert caught.value.reason_name == "UNKNOWN_TOPIC"


def test_samples_unlike_the_configuration_are_refused(kafka: KafkaSettings, topic: Topic) -> None:
    config = {"data_type": "uint8", "data_reshape": "8 8"}
    with InferenceSink(kafka.bootstrap_servers, topic(), topic(), input_config=config) as sink:
        with pytest.raises(InvalidArgument) as caught:
            list(sink.ask(np.zeros((2, 7, 7), np.uint8)))
        assert caught.value.reason_name == "SCHEMA_MISMATCH"
        with pytest.raises(InvalidArgument) as caught:
            list(sink.ask(np.zeros((2, 8, 8), np.uint8), keys=["one"]))
        assert caught.value.reason_name == "SCHEMA_MISMATCH"
