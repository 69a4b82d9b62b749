"""What can go wrong with control messages: a broker, a logger, a catalog and its database, all real."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from control_plane.store import deployments
from control_plane.store.connections import database
from headrace.client import connect
from headrace.errors import from_status
from headrace.v1 import stream_catalog_pb2 as api
from headrace.v1.result_collector_pb2 import WatchResultsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_pb2 import (
    AVAILABILITY_EXPIRED,
    DATA_FORMAT_RAW,
    DIALECT_HEADRACE,
    DIALECT_KAFKA_ML,
    OffsetRange,
    StreamAnnouncement,
)
from streams import control
from streams.kafka import KafkaSettings, ensure_topics, headers_of, topic_ids
from tests.control_plane.conftest import new_training
from tests.control_plane.recording import Control, Recording, recording, source_of
from tests.logger.test_recorder import logger_process
from tests.streams.log import delete_topic, write_with_raw_header
from tests.support import eventually

RAW = {"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", "label_reshape": ""}


def announcement(number: int, deployment_id: int = 0, topic: str = "data") -> StreamAnnouncement:
    return StreamAnnouncement(
        message_id=f"m{number}",
        deployment_id=deployment_id or number,
        ranges=[OffsetRange(topic=topic, partition=0, start=number, end=number + 10)],
        input_format=DATA_FORMAT_RAW,
        input_config=RAW,
        record_count=10,
    )


def ours(number: int, deployment_id: int = 0, topic: str = "data") -> Control:
    headers, value = control.encode(announcement(number, deployment_id, topic))
    return Control(None, value, headers)


def legacy(number: int, deployment_id: int = 0, topic: str = "data") -> Control:
    key, value = control.encode_legacy(announcement(number, deployment_id, topic))
    return Control(key, value, [])


def body(**change: object) -> bytes:
    """A message of Kafka-ML with some keys changed."""
    _, value = control.encode_legacy(announcement(1))
    return json.dumps({**json.loads(value), **change}).encode()


# What is wrong with a message, and the reason that its deployment shows.
REFUSED = {
    "reversed": (body(topic="data:0:10:5"), "INVALID_RANGE"),
    "negative": (body(topic="data:0:-1:5"), "INVALID_RANGE"),
    "malformed": (body(topic="data:0:5"), "INVALID_RANGE"),
    "overlapping": (body(topic="data:0:0:5,data:0:4:9"), "INVALID_RANGE"),
    "huge": (body(topic=f"data:0:0:{10**30}"), "INVALID_RANGE"),
    "a bad rate": (body(validation_rate=2), "INVALID_FIELD"),
    "an unknown format": (body(input_format="XML"), "INVALID_FORMAT"),
    "no JSON": (b"{ not json", "MALFORMED_REQUEST"),
}


@pytest.fixture
def start(kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Recording]]:
    """Starts a control plane for a control topic: `start(busy_timeout_s=…)`; settings of the topic as keywords."""
    with ExitStack() as stack:

        def make(busy_timeout_s: float = 5.0, **config: str) -> Recording:
            return stack.enter_context(recording(kafka, topic(**config), tmp_path, busy_timeout_s))

        yield make


def test_duplicates_of_both_dialects_are_recorded_once(start: Callable[..., Recording]) -> None:
    world = start()
    world.send([ours(1), legacy(2), ours(3), legacy(300)] * 10)
    with world.logger():
        world.await_all()
    assert [stream.deployment_id for stream in world.streams()] == [1, 2, 3, 300]
    assert [stream.source.offset for stream in world.streams()] == [0, 1, 2, 3]
    assert world.dead_letters() == []


def test_messages_before_their_deployment_are_parked_and_in_any_order_matched(start: Callable[..., Recording]) -> None:
    world = start()
    world.send([legacy(3), ours(1), ours(4), legacy(2)])
    with world.logger():
        world.await_all()
        made = [world.store.write_now(partial(new_training, f"model-{n}")) for n in range(5)]
        by_deployment = {stream.deployment_id: stream.id for stream in world.streams()}
        assert [one.stream_id for one in made] == [by_deployment.get(one.id, 0) for one in made]
        assert by_deployment.keys() == {1, 2, 3, 4}
        world.send([ours(50, deployment_id=5)])
        world.await_all()
    assert world.read(partial(deployments.get, 5)).stream_id == world.streams()[-1].id


_HEADERS: list[tuple[str, str | bytes | None]] = [("headrace-message", b"headrace.v1.StreamAnnouncement")]
_NESTED = b'{"topic":' * 50_000
MALFORMED = [
    ("JSON cut off", Control(b"\x01", body()[:-5], []), "MALFORMED_REQUEST"),
    ("nothing", Control(None, None, []), "MALFORMED_REQUEST"),
    ("no key", Control(None, body(), []), "MALFORMED_REQUEST"),
    ("Avro", Control(b"\x01", b"Obj\x01\x04\x14avro.codec\x08null\x16avro.schema", []), "MALFORMED_REQUEST"),
    ("protobuf cut off", Control(None, ours(1).value[:-3], _HEADERS), "MALFORMED_REQUEST"),  # type: ignore[index]
    ("protobuf of nothing", Control(None, b"", _HEADERS), "INVALID_FIELD"),
    ("a later version", Control(None, b"", [("headrace-message", b"headrace.v9.Any")]), "MALFORMED_REQUEST"),
    ("wrong types", Control(b"\x01", body(topic=7, total_msg="x"), []), "INVALID_FIELD"),
    ("an array", Control(b"\x01", b"[1, 2]", []), "MALFORMED_REQUEST"),
    ("deep nesting", Control(b"\x01", _NESTED, []), "MALFORMED_REQUEST"),
    ("NaN", Control(b"\x01", body(validation_rate=float("nan")), []), "MALFORMED_REQUEST"),
    ("Infinity", Control(b"\x01", body(test_rate=float("inf")), []), "MALFORMED_REQUEST"),
    ("start after end", Control(b"\x01", body(topic="t:0:9:5"), []), "INVALID_RANGE"),
    ("negative offset", Control(b"\x01", body(topic="t:0:-9:5"), []), "INVALID_RANGE"),
    ("negative partition", Control(b"\x01", body(topic="t:-1:0:5"), []), "INVALID_RANGE"),
    ("overlapping ranges", Control(b"\x01", body(topic="t:0:0:5,t:0:4:9"), []), "INVALID_RANGE"),
    ("an unknown format", Control(b"\x01", body(input_format="TELEGRAF"), []), "INVALID_FORMAT"),
    ("not UTF-8", Control(b"\x01", b'{"topic": "\xff"}', []), "MALFORMED_REQUEST"),
]


def test_every_malformed_message_is_kept_with_its_reason_and_the_service_goes_on(
    start: Callable[..., Recording],
) -> None:
    world = start()
    world.send([*(bad for _, bad, _ in MALFORMED), ours(7)])
    with world.logger():
        world.await_all()
    assert [stream.deployment_id for stream in world.streams()] == [7]
    letters = world.dead_letters()
    assert [source_of(letter) for letter in letters] == list(range(len(MALFORMED)))
    for (name, sent, reason), letter in zip(MALFORMED, letters, strict=True):
        headers = dict(headers_of(letter))
        assert headers["headrace-error"] == reason.encode(), name
        assert headers["headrace-error-message"], name
        assert (letter.key(), letter.value()) == (sent.key, sent.value), name
        assert headers_of(letter)[: len(sent.headers)] == sent.headers, name


def test_a_message_as_large_as_the_broker_takes_does_not_stop_the_service(start: Callable[..., Recording]) -> None:
    world = start(max_message_bytes="12000000")
    large = Control(b"\x01", body(description="x" * 10_000_000), [])
    settings: dict[str, object] = {"message.max.bytes": 12_000_000, "compression.type": "none"}
    world.send([large, ours(7)], **settings)
    with world.logger():
        world.await_all()
    (letter,) = world.dead_letters()
    assert (source_of(letter), letter.value()) == (0, None)  # it says where the whole message is
    assert [stream.deployment_id for stream in world.streams()] == [7]


def test_a_header_whose_name_is_no_text_does_not_stop_the_service(start: Callable[..., Recording]) -> None:
    world = start()
    write_with_raw_header(world.kafka, world.topic, b"garbage", b"no \xff text")
    world.send([ours(7)])
    with world.logger():
        world.await_all()
    (letter,) = world.dead_letters()
    assert (source_of(letter), letter.value()) == (0, b"garbage")
    assert [stream.deployment_id for stream in world.streams()] == [7]


def test_an_unknown_topic_is_recorded_and_the_availability_says_so(
    start: Callable[..., Recording], topic: Callable[..., str]
) -> None:
    world, known = start(), topic()
    no_partition = announcement(2, topic=known)
    no_partition.ranges[0].partition = 9
    headers, value = control.encode(no_partition)
    world.send([legacy(1, topic="no-such-topic"), Control(None, value, headers)])
    with world.logger():
        world.await_all()
    for stream in world.streams():
        found = world.catalog.GetStream(api.GetStreamRequest(id=stream.id))
        assert found.availability == AVAILABILITY_EXPIRED


def test_a_message_without_the_ids_of_its_topics_gets_them(
    start: Callable[..., Recording], topic: Callable[..., str]
) -> None:
    world, known = start(), topic()
    told = announcement(4, topic=known)
    told.topic_ids[known] = "told"
    told_headers, told_value = control.encode(told)
    world.send(
        [
            legacy(1, topic=known),
            legacy(2, topic="no-such-topic"),
            ours(3, topic=known),
            Control(None, told_value, told_headers),
        ]
    )
    with world.logger():
        world.await_all()
    ids = topic_ids(world.kafka, [known])
    assert [dict(stream.topic_ids) for stream in world.streams()] == [ids, {}, ids, {known: "told"}]
    assert [stream.dialect for stream in world.streams()[:3]] == [DIALECT_KAFKA_ML, DIALECT_KAFKA_ML, DIALECT_HEADRACE]


def test_a_locked_database_makes_recording_wait_and_loses_nothing(start: Callable[..., Recording]) -> None:
    world = start(busy_timeout_s=0.1)
    with world.logger() as logger:
        world.send([ours(1)])
        world.await_all()
        with sqlite3.connect(world.store.path, isolation_level=None) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            world.send([legacy(2), ours(3), Control(None, b"garbage", []), ours(4)])
            eventually(lambda: not logger.ready, timeout_s=30)
            assert world.recorded_up_to() == 1
            holder.execute("ROLLBACK")
        world.await_all()
    assert [stream.deployment_id for stream in world.streams()] == [1, 2, 3, 4]
    assert {source_of(letter) for letter in world.dead_letters()} == {3}


def test_a_full_database_makes_recording_wait_and_loses_nothing(start: Callable[..., Recording]) -> None:
    world = start()
    large = announcement(2)
    large.description = "x" * 200_000
    headers, value = control.encode(large)
    with world.logger() as logger:
        world.send([ours(1)])
        world.await_all()
        pages = world.store.write_now(lambda: int(database.pragma("page_count")))
        world.store.write_now(lambda: database.pragma("max_page_count", pages + 2))
        world.send([Control(None, value, headers), ours(3)])
        eventually(lambda: not logger.ready, timeout_s=30)
        assert [stream.deployment_id for stream in world.streams()] == [1]
        world.store.write_now(lambda: database.pragma("max_page_count", pages + 10_000))
        world.await_all()
    assert [stream.deployment_id for stream in world.streams()] == [1, 2, 3]


def test_a_kill_behind_the_commit_records_nothing_twice(start: Callable[..., Recording], tmp_path: Path) -> None:
    world = start()
    world.send([ours(1), Control(None, b"garbage", []), legacy(2)])
    fail = {"HEADRACE_FAIL": "after_record:exit,after_dead_letter:exit", "HEADRACE_FAIL_FOLDER": str(tmp_path)}
    port = int(world.address.rpartition(":")[2])
    for _ in range(2):
        with logger_process(world.kafka, port, world.topic, more=fail) as process:
            assert process.wait(60) == -signal.SIGKILL
    assert world.recorded_up_to() == 1
    with world.logger():
        world.await_all()
    assert [stream.deployment_id for stream in world.streams()] == [1, 2]
    assert {source_of(letter) for letter in world.dead_letters()} == {1}


def test_a_control_topic_that_is_made_anew_is_read_from_its_start(start: Callable[..., Recording]) -> None:
    world = start()
    with world.logger():
        world.send([ours(1), ours(2), legacy(3)])
        world.await_all()
        delete_topic(world.kafka, world.topic)
        ensure_topics(world.kafka, {world.topic: 1})
        world.send([ours(4)])  # at the offset where ours(1) was
        eventually(lambda: len(world.streams()) == 4, timeout_s=30)
    # While nobody listens, too; and what was announced before under the same id is not announced again.
    delete_topic(world.kafka, world.topic)
    ensure_topics(world.kafka, {world.topic: 1})
    world.send([ours(2), ours(5), ours(6)])
    with world.logger():
        eventually(lambda: len(world.streams()) == 6, timeout_s=30)
    assert [stream.deployment_id for stream in world.streams()] == [1, 2, 3, 4, 5, 6]
    assert [stream.source.offset for stream in world.streams()] == [0, 1, 2, 0, 1, 2]
    assert world.recorded_up_to() == 3


def test_a_deployment_that_waits_shows_the_announcement_that_was_refused(start: Callable[..., Recording]) -> None:
    one = start()
    ids = [one.store.write_now(partial(new_training, name)).id for name in REFUSED]
    keys = map(control.deployment_key, ids)
    one.send([Control(key, value, []) for key, (value, _) in zip(keys, REFUSED.values(), strict=True)])
    with one.logger():
        one.await_all()
    letters = one.dead_letters()
    for offset, (number, (_, reason)) in enumerate(zip(ids, REFUSED.values(), strict=True)):
        shown = one.read(partial(deployments.get, number)).refused_announcement
        error = from_status(shown.error)
        assert (error.reason_name, shown.deployment_id) == (reason, number)
        assert dict(headers_of(letters[offset]))["headrace-error-message"] == error.message.encode()
        assert (shown.source.topic, shown.source.partition, shown.source.offset) == (one.topic, 0, offset)
        assert shown.source.HasField("time")


def test_an_id_that_another_deployment_has_is_a_dead_letter_and_told(start: Callable[..., Recording]) -> None:
    one = start()
    first, second = (one.store.write_now(partial(new_training, name)).id for name in ("a", "b"))
    one.send([ours(5, first), ours(5, second)])
    with one.logger():
        one.await_all()
    shown = one.read(lambda: deployments.get(second)).refused_announcement
    assert f"was announced for deployment {first} already" in from_status(shown.error).message
    assert len(one.dead_letters()) == len(one.streams()) == 1


def test_a_deployment_takes_streams_of_the_topics_that_it_allows_and_no_forged_ones(
    start: Callable[..., Recording],
) -> None:
    one = start()
    guarded = one.store.write_now(lambda: new_training("a", allowed_topics=["mine", "also-mine"]))
    open_ended = announcement(3, guarded.id, topic="mine")
    open_ended.unsupervised_open_topics.append("of-others")
    headers, value = control.encode(open_ended)
    one.send([ours(1, guarded.id, topic="of-others"), legacy(2, guarded.id, topic="of-others")])
    one.send([Control(None, value, headers), ours(4, topic="of-others")])
    with one.logger():
        one.await_all()
        letters = one.dead_letters()
        assert [source_of(letter) for letter in letters] == [0, 1, 2]
        assert {dict(headers_of(letter))["headrace-error"] for letter in letters} == {b"TOPIC_NOT_ALLOWED"}
        told = from_status(one.read(lambda: deployments.get(guarded.id)).refused_announcement.error)
        assert (told.reason_name, "takes records of mine, also-mine only, not of of-others" in told.message) == (
            "TOPIC_NOT_ALLOWED", True,
        )  # fmt: skip
        one.send([ours(5, guarded.id, topic="mine")])
        one.await_all()
    assert [stream.message_id for stream in one.streams()] == ["m4", "m5"]
    shown = one.read(lambda: deployments.get(guarded.id))
    assert (shown.stream_id, shown.HasField("refused_announcement")) == (one.streams()[-1].id, False)


def test_the_last_refusal_is_shown_until_a_right_announcement_comes(start: Callable[..., Recording]) -> None:
    one = start()
    deployment = one.store.write_now(lambda: new_training("a"))
    other = one.store.write_now(lambda: new_training("b"))
    bad = announcement(1, deployment.id)
    bad.ranges[0].end = 0
    headers, value = control.encode(bad)
    key = control.deployment_key(deployment.id)
    one.send([Control(key, b"{ not json", []), Control(None, value, headers), Control(b"\xff" * 9, b"{", [])])
    with one.logger():
        one.await_all()
        shown = one.read(lambda: deployments.get(deployment.id))
        assert shown.refused_announcement.source.offset == 1
        assert from_status(shown.refused_announcement.error).reason_name == "INVALID_RANGE"
        assert not one.read(lambda: deployments.get(other.id)).HasField("refused_announcement")
        one.send([ours(5, deployment.id), Control(key, b"{ too late", [])])
        one.await_all()
    shown = one.read(lambda: deployments.get(deployment.id))
    assert shown.stream_id
    assert not shown.HasField("refused_announcement")


def test_watchers_are_told_of_a_refusal_when_it_comes_and_when_they_begin(start: Callable[..., Recording]) -> None:
    one = start()
    deployment = one.store.write_now(lambda: new_training("a"))
    request = WatchResultsRequest(deployment_id=deployment.id)
    with connect(one.address) as channel, one.logger():
        collector = ResultCollectorStub(channel)
        live = collector.WatchResults(request, timeout=30)
        next(live)
        one.send([Control(control.deployment_key(deployment.id), b"{ not json", [])])
        told = next(event for event in live if event.HasField("refused_announcement"))
        late = collector.WatchResults(request, timeout=30)
        again = next(event for event in late if event.HasField("refused_announcement"))
    assert told.refused_announcement == again.refused_announcement
    assert told.result_id == deployment.result_ids[0]
    assert "{" not in told.refused_announcement.error.message
