"""Dead letters as they are shown, and sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from confluent_kafka import TopicPartition

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1 import predictions_pb2 as api
from inferencer.answers import Refusal, dead_letter_headers
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of, log_ends
from streams.writer import BatchProducer
from tests.control_plane.conftest import Plane, StartPlane
from tests.control_plane.test_predictions import an_inference
from tests.streams.log import write_with_raw_header
from tests.support import eventually

REASONS = [error_pb2.REASON_DECODE_ERROR, error_pb2.REASON_WORKER_CRASHED]


@pytest.fixture
def topics(kafka: KafkaSettings, topic: Callable[..., str]) -> tuple[str, str]:
    """(input, output); 30 dead letters of the input, in turn over two partitions, in turn no sample and one."""
    source, target = topic(2), topic()
    ensure_topics(kafka, {f"{source}.dead-letters": 2})
    with BatchProducer(kafka) as producer:
        for number in range(30):
            refusal = Refusal(REASONS[number // 2 % 2], f"wrong {number}")
            headers = dead_letter_headers(
                [("n", b"%d" % number)], b"sums/1", b"%s/%d/%d" % (source.encode(), number % 2, number), refusal,
                request=b"headrace-inf-1/",
            )  # fmt: skip
            value = np.full(4, number, np.float32).tobytes() if number // 2 % 2 else b"text"
            producer.produce(f"{source}.dead-letters", b"\xff", value, headers, number % 2)
            producer.flush()
    return source, target


async def test_dead_letters_are_listed_newest_first_and_decoded(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    request = api.ListDeadLettersRequest(inference_id=inference.id, page_size=7)
    pages: list[list[api.DeadLetter]] = []
    while not pages or request.page_token:
        page = await plane.predictions.ListDeadLetters(request, timeout=30)
        pages.append(list(page.dead_letters))
        request.page_token = page.next_page_token
    letters = [letter for page in pages for letter in page]
    assert [len(page) for page in pages][:4] == [7] * 4
    for partition in (0, 1):
        offsets = [letter.source.offset for letter in letters if letter.source.partition == partition]
        assert offsets == list(range(28 + partition, -1, -2))
    by_number = {letter.source.offset: letter for letter in letters}
    text, sample = by_number[0], by_number[3]
    assert (text.reason, text.message, text.model, text.key) == ("DECODE_ERROR", "wrong 0", "sums/1", "ff")
    assert (text.value, text.HasField("sample")) == ("text", False)
    assert (sample.reason, sample.value_size_bytes) == ("WORKER_CRASHED", 16)
    assert [[each.number_value for each in row.list_value.values] for row in sample.sample.list_value.values] == [
        [3, 3],
        [3, 3],
    ]
    some = api.ListDeadLettersRequest(inference_id=inference.id, reason="WORKER_CRASHED")
    assert len((await plane.predictions.ListDeadLetters(some, timeout=30)).dead_letters) == 14
    with pytest.raises(InvalidArgument):
        await plane.predictions.ListDeadLetters(
            api.ListDeadLettersRequest(inference_id=inference.id, page_token="x"), timeout=30
        )


async def test_a_reason_that_there_is_not_is_refused_with_those_that_there_are(plane: Plane) -> None:
    inference = await an_inference(plane, ("in", "out"))
    for ask, request in (
        (plane.predictions.ListDeadLetters, api.ListDeadLettersRequest),
        (plane.predictions.ReplayDeadLetters, api.ReplayDeadLettersRequest),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await ask(request(inference_id=inference.id, reason="NOPE"))
        assert [bad.field for bad in caught.value.fields] == ["reason"]
        assert "DECODE_ERROR, SCHEMA_MISMATCH" in caught.value.message


async def test_dead_letters_go_to_their_partition_of_the_input_once(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    for reason, count in (("WORKER_CRASHED", 14), ("", 16), ("", 0)):
        request = api.ReplayDeadLettersRequest(inference_id=inference.id, reason=reason)
        replayed = await plane.predictions.ReplayDeadLetters(request, timeout=60)
        assert (replayed.replayed_count, replayed.done) == (count, True)
    found: list[Message] = []
    with TopicFollower(kafka, topics[0], {}) as follower:
        while len(found) < 30:
            found += follower.read(10)
    assert sum(ends.stable > 0 for ends in log_ends(kafka, topics[0]).values()) == 2
    numbers = []
    for record in found:
        ((name, number),) = headers_of(record)
        assert isinstance(number, bytes)
        assert (name, record.key(), record.partition()) == ("n", b"\xff", int(number) % 2)
        numbers.append(int(number))
    assert sorted(numbers) == list(range(30))


async def test_of_a_dead_letter_that_was_cut_the_whole_question_is_sent_again(
    start_plane: StartPlane, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    source, large = topic(1, max_message_bytes=str(4 * 2**20)), b"x" * 2 * 2**20
    ensure_topics(kafka, {f"{source}.dead-letters": 1})
    with BatchProducer(kafka, settings={"message.max.bytes": 4 * 2**20}) as producer:
        for value in (b"deleted", large):
            producer.produce(source, b"key", value, [("n", b"7")], 0)
        for offset in (0, 1):
            refusal = Refusal(error_pb2.REASON_DECODE_ERROR, "wrong")
            place = f"{source}/0/{offset}".encode()
            headers = dead_letter_headers([], b"sums/1", place, refusal, request=b"headrace-inf-1/", is_cut=True)
            producer.produce(f"{source}.dead-letters", None, None, headers, 0)
        producer.flush()
    admin = kafka.admin()
    for deleted in admin.delete_records([TopicPartition(source, 0, 1)]).values():
        await asyncio.to_thread(deleted.result, 10)
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, (source, topic()))
    replayed = await plane.predictions.ReplayDeadLetters(
        api.ReplayDeadLettersRequest(inference_id=inference.id), timeout=60
    )
    assert (replayed.replayed_count, replayed.gone_count, replayed.done) == (1, 1, True)
    with TopicFollower(kafka, source, {0: 2}) as follower:
        (again,) = follower.read(10)
    assert (again.key(), again.value(), headers_of(again)) == (b"key", large, [("n", b"7")])


async def test_records_of_strangers_among_dead_letters_are_shown_and_sent_again_without_headers(
    start_plane: StartPlane, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    source = topic(1)
    letters = f"{source}.dead-letters"
    ensure_topics(kafka, {letters: 1})
    write_with_raw_header(kafka, letters, b"text", b"no \xff text")
    with BatchProducer(kafka) as producer:
        producer.produce(letters, None, b"more", [("headrace-source", b"t1/99999999999999/1")])
        producer.flush()
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, (source, topic()))
    page = await plane.predictions.ListDeadLetters(api.ListDeadLettersRequest(inference_id=inference.id), timeout=30)
    assert [(letter.value, letter.HasField("source")) for letter in page.dead_letters] == [
        ("more", False),
        ("text", False),
    ]
    request = api.ReplayDeadLettersRequest(inference_id=inference.id)
    assert (await plane.predictions.ReplayDeadLetters(request, timeout=60)).replayed_count == 2
    with TopicFollower(kafka, source, {}) as follower:
        again = eventually(lambda: follower.read(1))
    assert [(record.value(), headers_of(record)) for record in again] == [(b"text", []), (b"more", [])]
