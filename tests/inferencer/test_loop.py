"""The loop on a real broker: nothing lost, nothing doubled, nothing out of order."""

import json
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from cli.broker import Broker
from headrace.errors import FailedPrecondition, HeadraceError
from headrace.v1 import error_pb2, inference_pb2
from headrace.v1.inference_pb2 import Inference
from inferencer.answers import Refusal
from inferencer.loop import Model, Models, is_permanent
from inferencer.models import Following
from inferencer.predictor import Answers
from inferencer.status import Status
from streams.follow import TopicFollower
from streams.group import GroupReader
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of, log_ends
from streams.topic_rules import TopicRules, fitting, rules_of
from streams.writer import BatchProducer
from tests.inferencer.faults.oracle import committed_offsets
from tests.inferencer.replica import Adder, AdderLoader, Fixed, question, run_replica
from tests.streams.log import offset_range, read
from tests.support import eventually

PARTITIONS = 4
Topics = tuple[str, str]


@pytest.fixture
def topics(kafka: KafkaSettings, topic: Callable[..., str]) -> Topics:
    """An input and an output of four partitions, and the dead letters of the input."""
    source = topic(partitions=PARTITIONS)
    ensure_topics(kafka, {source + ".dead-letters": 1})
    return source, topic(partitions=PARTITIONS)


def send(kafka: KafkaSettings, source: str, start: int, end: int) -> None:
    """Questions `start` to `end` in each partition, each with its place as a header."""
    with BatchProducer(kafka) as producer:
        for number in range(start, end):
            for partition in range(PARTITIONS):
                headers: list[tuple[str, str | bytes | None]] = [("n", f"{partition}:{number}".encode())]
                producer.produce(source, b"k%d" % number, question(partition, number), headers, partition)
        producer.flush()


def read_all(kafka: KafkaSettings, topic: str) -> list[Message]:
    """Every committed record."""
    ends = log_ends(kafka, topic)
    return read(kafka, *[offset_range(topic, 0, one.stable, number) for number, one in ends.items()])


def header(message: Message, name: str) -> bytes:
    value = dict(headers_of(message))[name]
    assert isinstance(value, bytes)
    return value


def read_until(follower: TopicFollower, count: int, timeout_s: float) -> list[Message]:
    """The first records, at least `count` of them."""
    found: list[Message] = []

    def enough() -> bool:
        found.extend(follower.read(0.2))
        return len(found) >= count

    eventually(enough, timeout_s=timeout_s)
    return found


def sources(messages: list[Message]) -> dict[int, list[int]]:
    """Partition to the offsets of the questions, in the order of their answers per partition of the output."""
    by_partition = defaultdict(list)
    for message in messages:
        _, partition, offset = header(message, "headrace-source").decode().split("/")
        by_partition[int(partition)].append(int(offset))
    return dict(by_partition)


def expect_each_once(answers: list[Message], count: int) -> None:
    found = sources(answers)
    assert {partition: sorted(offsets) for partition, offsets in found.items()} == {
        partition: list(range(count)) for partition in range(PARTITIONS)
    }


@contextmanager
def replica_thread(
    kafka: KafkaSettings, topics: Topics, slot: int = 0, **options: bool | float | TopicRules | Status | Models | Fixed
) -> Iterator[list[HeadraceError]]:
    """A replica on a thread; gives what ended it."""
    stop, errors = threading.Event(), list[HeadraceError]()

    def run() -> None:
        try:
            run_replica(kafka, *topics, slot, stop, **options)  # type: ignore[arg-type]
        except HeadraceError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=f"replica-{slot}")
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def committed(kafka: KafkaSettings, source: str) -> dict[int, int | None]:
    """The group's committed offsets."""
    with GroupReader(kafka, group_id=f"group-{source}", topic=source, slot="observer") as reader:
        eventually(lambda: reader.consume(1, 0.1) or len(reader.assigned) == PARTITIONS, timeout_s=30)
        return reader.committed()


@pytest.mark.parametrize("at_least_once", [False, True])
def test_every_record_is_answered_once_with_its_key_headers_and_source(
    kafka: KafkaSettings, topics: Topics, at_least_once: bool
) -> None:
    send(kafka, topics[0], 0, 100)
    with replica_thread(kafka, topics, at_least_once=at_least_once), TopicFollower(kafka, topics[1], {}) as follower:
        answers = read_until(follower, 400, 30)
    expect_each_once(answers, 100)
    for answer in answers:
        headers = dict(answer.headers() or [])
        partition, number = map(int, header(answer, "n").split(b":"))
        assert json.loads(answer.value() or b"") == {"values": [partition + number]}
        assert answer.key() == b"k%d" % number
        assert headers["headrace-source"] == f"{topics[0]}/{partition}/{number}".encode()
        assert headers["headrace-model"] == b"adder/1"


def test_replicas_that_come_and_go_lose_and_double_nothing(kafka: KafkaSettings, topics: Topics) -> None:
    source, target = topics
    with TopicFollower(kafka, target, {}) as follower:
        answers: list[Message] = []

        def answered(count: int) -> bool:
            answers.extend(follower.read(0.2))
            return len(answers) >= count

        with replica_thread(kafka, topics, 0):
            send(kafka, source, 0, 300)
            eventually(lambda: answered(200), timeout_s=30)
            with replica_thread(kafka, topics, 1):
                send(kafka, source, 300, 600)
                eventually(lambda: answered(1500), timeout_s=30)
                send(kafka, source, 600, 800)
            eventually(lambda: answered(3200), timeout_s=40)
    assert not read_all(kafka, source + ".dead-letters")
    expect_each_once(answers, 800)


class Patient(Adder):
    """Answers once `until` is true, and serves the group meanwhile."""

    def __init__(self, until: Callable[[], object]) -> None:
        super().__init__()
        self._until = until

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        def is_over() -> object:
            keep_alive()
            return self._until()

        eventually(is_over, timeout_s=30)
        return super().answer(keep_alive)


def test_partitions_that_are_taken_while_a_slow_model_answers_are_answered_by_one_replica_only(
    kafka: KafkaSettings, topics: Topics
) -> None:
    send(kafka, topics[0], 0, 100)
    first, *others = (Status(slot) for slot in range(PARTITIONS))
    patient = Patient(lambda: all(other.snapshot().partitions for other in others))
    with TopicFollower(kafka, topics[1], {}) as follower, ExitStack() as replicas:
        # The batch that waits for the first one has records of two partitions; one partition is left to this replica.
        model = Fixed(Model(b"adder/1", 1, 1, patient))
        replicas.enter_context(replica_thread(kafka, topics, 0, status=first, models=model, max_rows=101))
        eventually(lambda: len(first.snapshot().partitions) == PARTITIONS, timeout_s=30)
        for slot, status in enumerate(others, 1):
            replicas.enter_context(replica_thread(kafka, topics, slot, status=status))
        read_until(follower, PARTITIONS * 100, 40)
    expect_each_once(read_all(kafka, topics[1]), 100)


PLACES = ["after_consume@3", "after_predict@2", "after_produce@2", "before_commit@2", "after_commit@1"]


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_place_loses_and_doubles_nothing(
    kafka: KafkaSettings, topics: Topics, place: str, tmp_path: Path
) -> None:
    source, target = topics
    send(kafka, source, 0, 100)
    name, _, pass_number = place.partition("@")
    environment = {"HEADRACE_FAIL": f"{name}:exit@{pass_number}", "HEADRACE_FAIL_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "tests.inferencer.replica", kafka.bootstrap_servers, source, target, "0"]
    killed, sent = subprocess.Popen(command, env=environment), 100

    def has_ended() -> bool:
        nonlocal sent
        send(kafka, source, sent, sent + 1)  # Who answers all at once commits only once.
        sent += 1
        return killed.poll() is not None

    try:
        eventually(has_ended, timeout_s=60, every_s=0.2)
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL
    send(kafka, source, sent, sent + 10)  # Something is left to answer, wherever it was killed.
    again = subprocess.Popen(command, env=environment)
    try:
        with TopicFollower(kafka, target, {}) as follower:
            answers = read_until(follower, (sent + 10) * PARTITIONS, 40)
        again.terminate()
        assert again.wait(20) == 0
    finally:
        again.kill()
    expect_each_once(read_all(kafka, target), sent + 10)
    for offsets in sources(answers).values():
        assert offsets == sorted(offsets)
    assert committed(kafka, source) == dict.fromkeys(range(PARTITIONS), sent + 10)


def test_a_bad_record_becomes_a_dead_letter_in_its_place_and_the_others_are_answered(
    kafka: KafkaSettings, topics: Topics
) -> None:
    source, target = topics
    send(kafka, source, 0, 40)
    with BatchProducer(kafka) as producer:
        producer.produce(source, b"poison", b"abc", [("trace", b"7")], 2)
        producer.flush()
    send(kafka, source, 40, 60)
    with replica_thread(kafka, topics), TopicFollower(kafka, target, {}) as follower:
        answers = read_until(follower, 240, 30)
    (letter,) = read_all(kafka, source + ".dead-letters")
    headers = dict(letter.headers() or [])
    assert (letter.key(), letter.value(), headers["trace"]) == (b"poison", b"abc", b"7")
    assert headers["headrace-error"] == b"DECODE_ERROR"
    assert headers["headrace-source"] == f"{source}/2/40".encode()
    assert sources(answers)[2] == [*range(40), *range(41, 61)]


def test_a_question_without_a_key_is_no_answer_for_a_compacted_topic(
    kafka: KafkaSettings, topics: Topics, topic: Callable[..., str]
) -> None:
    """Kafka refuses the whole batch that such an answer is in, each time that it comes."""
    source, target = topics[0], topic(partitions=PARTITIONS, cleanup_policy="compact")
    send(kafka, source, 0, 5)
    with BatchProducer(kafka) as producer:
        producer.produce(source, None, question(1, 5), None, 1)
        producer.flush()
    send(kafka, source, 5, 10)
    running = replica_thread(kafka, (source, target), rules=rules_of(kafka, target))
    with running as errors, TopicFollower(kafka, target, {}) as follower:
        answers = read_until(follower, 40, 30)
    (letter,) = read_all(kafka, source + ".dead-letters")
    assert (header(letter, "headrace-source"), header(letter, "headrace-error")) == (
        f"{source}/1/5".encode(),
        b"INVALID_FIELD",
    )
    assert b"is compacted" in header(letter, "headrace-error-message")
    assert sources(answers)[1] == [*range(5), *range(6, 11)]
    assert not errors


def test_more_answers_than_one_batch_of_the_output_may_have_are_several(
    kafka: KafkaSettings, topics: Topics, topic: Callable[..., str]
) -> None:
    source, target = topics[0], topic(partitions=PARTITIONS, max_message_bytes="1000")
    send(kafka, source, 0, 100)
    fitted = fitting(kafka, rules_of(kafka, target), rules_of(kafka, source))
    running = replica_thread(fitted, (source, target), max_rows=1024)
    with running as errors, TopicFollower(kafka, target, {}) as follower:
        answers = read_until(follower, 400, 30)
    expect_each_once(answers, 100)
    assert not errors


def test_a_replica_that_may_wait_long_for_records_hears_what_else_happens(kafka: KafkaSettings, topics: Topics) -> None:
    status = Status(0)
    with replica_thread(kafka, topics, status=status, max_wait_s=60.0):
        eventually(lambda: len(status.snapshot().partitions) == PARTITIONS, timeout_s=20)


class Held(Adder):
    """Answers its first batch at once, and every other one when it is released. Takes every error for its worker's."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self._is_first = True

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        while not self._is_first and not self.released.wait(0.02):
            with suppress(HeadraceError):
                keep_alive()
        self._is_first = False
        return super().answer(keep_alive)


@pytest.mark.parametrize("at_least_once", [False, True])
def test_answers_are_committed_while_the_model_is_slow_with_the_next_ones(
    kafka: KafkaSettings, topics: Topics, at_least_once: bool
) -> None:
    send(kafka, topics[0], 0, 20)
    held, status = Held(), Status(0)
    models = Fixed(Model(b"held/1", 1, 1, held))
    with replica_thread(kafka, topics, models=models, status=status, at_least_once=at_least_once):
        try:
            eventually(lambda: status.snapshot().answered_count > 0, timeout_s=20)
        finally:
            held.released.set()
        eventually(lambda: status.snapshot().answered_count == 20 * PARTITIONS, timeout_s=20)
    expect_each_once(read_all(kafka, topics[1]), 20)


def test_a_replica_whose_slot_is_taken_while_its_model_is_slow_ends(kafka: KafkaSettings, topics: Topics) -> None:
    send(kafka, topics[0], 0, 20)
    held, status, successor = Held(), Status(0), Status(0)
    with replica_thread(kafka, topics, models=Fixed(Model(b"held/1", 1, 1, held)), status=status) as errors:
        try:
            eventually(lambda: status.snapshot().answered_count > 0, timeout_s=20)
            with replica_thread(kafka, topics, status=successor):
                eventually(lambda: bool(errors), timeout_s=20)
                answered = status.snapshot().answered_count
                eventually(lambda: successor.snapshot().answered_count == 20 * PARTITIONS - answered, timeout_s=20)
        finally:
            held.released.set()
    assert errors[0].reason_name == "FENCED"
    expect_each_once(read_all(kafka, topics[1]), 20)


def answers_with(status: Status, version: int) -> bool:
    return status.snapshot().model_version == version


def test_models_that_take_over_while_data_flow_lose_and_double_nothing(kafka: KafkaSettings, topics: Topics) -> None:
    loader, status, versions, count = AdderLoader(), Status(0), 20, 400
    models = Following(loader, status).start(Inference(result_id=1), threading.Event())
    sending = threading.Thread(target=lambda: send(kafka, topics[0], 0, count), name="send")
    with models, replica_thread(kafka, topics, status=status, models=models):
        sending.start()
        for version in range(2, versions + 1):
            models.wish(Inference(result_id=version))
            eventually(partial(answers_with, status, version), timeout_s=20)
        sending.join()
        send(kafka, topics[0], count, count + 5)
        with TopicFollower(kafka, topics[1], {}) as follower:
            answers = read_until(follower, PARTITIONS * (count + 5), 30)
        eventually(lambda: len(loader.ended) == versions - 1, timeout_s=5)
    expect_each_once(answers, count + 5)
    for partition in range(PARTITIONS):
        labels = [header(one, "headrace-model") for one in answers if one.partition() == partition]
        seen = [int(label.removeprefix(b"adder/")) for label in labels]
        assert seen == sorted(seen)
        assert seen[-1] == versions


def test_an_input_that_is_bad_as_a_whole_stops_the_replica_before_it_commits(
    kafka: KafkaSettings, topics: Topics
) -> None:
    source, _ = topics
    with BatchProducer(kafka) as producer:
        for _ in range(200):
            producer.produce(source, None, b"abc", None, 0)
        producer.flush()
    with replica_thread(kafka, topics, max_rows=64) as errors:
        eventually(lambda: bool(errors), timeout_s=30)
    assert isinstance(errors[0], FailedPrecondition)
    assert errors[0].reason_name == "SCHEMA_MISMATCH"
    assert not read_all(kafka, source + ".dead-letters")


class Forgetful(Adder):
    """Breaks its promise of one answer per row."""

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        return super().answer(keep_alive)[1:]


def test_a_replica_ends_before_an_answer_goes_to_another_record(kafka: KafkaSettings, topics: Topics) -> None:
    send(kafka, topics[0], 0, 5)
    with replica_thread(kafka, topics, models=Fixed(Model(b"forgetful/1", 1, 1, Forgetful()))) as errors:
        eventually(lambda: bool(errors), timeout_s=30)
    assert errors[0].reason_name == "INTERNAL_ERROR"
    assert not read_all(kafka, topics[1])


def test_the_policy_skip_counts_and_goes_on_and_stop_stops(kafka: KafkaSettings, topics: Topics) -> None:
    source, target = topics
    with BatchProducer(kafka) as producer:
        producer.produce(source, None, b"abc", None, 0)
        producer.produce(source, None, question(0, 1), None, 0)
        producer.flush()
    with replica_thread(kafka, topics, on_error=inference_pb2.ERROR_POLICY_STOP) as errors:
        eventually(lambda: bool(errors), timeout_s=30)
    assert errors[0].reason_name == "DECODE_ERROR"
    assert errors[0].metadata["offset"] == "0"
    skipping = replica_thread(kafka, topics, on_error=inference_pb2.ERROR_POLICY_SKIP)
    with skipping, TopicFollower(kafka, target, {}) as follower:
        eventually(lambda: bool(follower.read(0.2)), timeout_s=30)
    assert not read_all(kafka, source + ".dead-letters")


BAD = {1: (30, 40), 3: (50,)}
"""Partition to the numbers of its questions that have no answer."""
OUTCOMES: dict[str, bytes | Refusal] = {
    "WORKER_CRASHED": Refusal(error_pb2.REASON_WORKER_CRASHED, "as if"),
    "INVALID_FIELD": b"x" * 2_000_000,  # larger than Kafka takes
}


class Picky(Adder):
    """Has this for an answer to the bad ones."""

    def __init__(self, outcome: bytes | Refusal) -> None:
        super().__init__()
        self._outcome = outcome

    def answer(self, keep_alive: Callable[[], None]) -> Answers:
        (rows,) = self._asked.values()
        are_bad = [number in BAD.get(partition, ()) for partition, number in rows.tolist()]
        answers = super().answer(keep_alive)
        return [self._outcome if is_bad else answer for is_bad, answer in zip(are_bad, answers, strict=True)]


@pytest.mark.parametrize("at_least_once", [False, True])
@pytest.mark.parametrize("reason", OUTCOMES)
@pytest.mark.parametrize("max_rows", [16, 1000])
def test_the_policy_stop_answers_each_partition_up_to_its_first_bad_record_and_names_one(
    kafka: KafkaSettings, topics: Topics, reason: str, at_least_once: bool, max_rows: int
) -> None:
    source, target = topics
    send(kafka, source, 0, 60)
    stopping = replica_thread(
        kafka,
        topics,
        models=Fixed(Model(b"picky/1", 1, 1, Picky(OUTCOMES[reason]))),
        on_error=inference_pb2.ERROR_POLICY_STOP,
        at_least_once=at_least_once,
        max_rows=max_rows,
    )
    with stopping as errors:
        eventually(lambda: bool(errors), timeout_s=30)
    facts = errors[0].metadata
    assert errors[0].reason_name == reason
    assert is_permanent(errors[0])
    stopped_at = int(facts["partition"])
    assert facts == {"topic": source, "partition": str(stopped_at), "offset": str(BAD[stopped_at][0])}
    next_ones = committed_offsets(kafka, f"group-{source}", source, PARTITIONS)
    assert next_ones[stopped_at] == BAD[stopped_at][0]
    assert all(next_ones[partition] <= bad[0] for partition, bad in BAD.items())
    answered = {number: sorted(set(offsets)) for number, offsets in sources(read_all(kafka, target)).items()}
    if not (at_least_once and reason == "INVALID_FIELD"):  # there, what is sent cannot be taken back
        assert answered == {number: list(range(at)) for number, at in next_ones.items() if at > 0}
    with replica_thread(kafka, topics, at_least_once=at_least_once), TopicFollower(kafka, target, {}) as follower:
        seen: dict[int, set[int]] = defaultdict(set)

        def all_are_answered() -> bool:
            for number, offsets in sources(follower.read(0.2)).items():
                seen[number].update(offsets)
            return sum(map(len, seen.values())) == 60 * PARTITIONS

        eventually(all_are_answered, timeout_s=30)
    if not at_least_once:
        expect_each_once(read_all(kafka, target), 60)


@pytest.mark.parametrize("at_least_once", [False, True])
def test_an_output_that_kafka_refuses_ends_the_replica_and_nothing_counts_as_answered(
    kafka: KafkaSettings, topics: Topics, at_least_once: bool
) -> None:
    source, _ = topics
    with BatchProducer(kafka) as producer:
        producer.produce(source, b"k", question(0, 1), None, 0)
        producer.flush()
    status = Status(0)
    refusing = replica_thread(kafka, (source, "__consumer_offsets"), at_least_once=at_least_once, status=status)
    with refusing as errors:
        eventually(lambda: bool(errors), timeout_s=20)
    assert is_permanent(errors[0])
    assert errors[0].reason_name in ("KAFKA_FORBIDDEN", "INVALID_FIELD")
    assert errors[0].metadata["topics"] == "__consumer_offsets"
    assert status.snapshot().answered_count == 0


def test_answers_are_counted(kafka: KafkaSettings, topics: Topics) -> None:
    send(kafka, topics[0], 0, 5)
    status = Status(0)
    with replica_thread(kafka, topics, status=status):
        eventually(lambda: status.snapshot().answered_count == 5 * PARTITIONS, timeout_s=20)
    assert status.snapshot().dead_letter_count == 0


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.chaos)])
def test_a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    own_broker: Callable[[], Broker], kills: int
) -> None:
    broker = own_broker()
    kafka, source, target = KafkaSettings(broker.bootstrap_servers), "questions", "answers"
    ensure_topics(kafka, {source: PARTITIONS, target: PARTITIONS, source + ".dead-letters": 1})
    with replica_thread(kafka, (source, target)) as errors:
        for start in range(0, 200 * kills, 200):
            send(kafka, source, start, start + 100)
            broker.kill()
            broker.start()
            broker.wait_ready()
            send(kafka, source, start + 100, start + 200)
        with TopicFollower(kafka, target, {}) as follower:
            read_until(follower, 200 * kills * PARTITIONS, 90)
    assert not errors
    expect_each_once(read_all(kafka, target), 200 * kills)
