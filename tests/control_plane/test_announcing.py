"""Announcing records that are in Kafka already, and announcing recorded streams again, on the real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from headrace.v1 import stream_catalog_pb2 as api
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_RAW,
    DIALECT_HEADRACE,
    DIALECT_KAFKA_ML,
    Dialect,
    OffsetRange,
    StreamAnnouncement,
    StreamSource,
)
from streams import control
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of, log_ends, topic_ids
from tests.control_plane.conftest import Plane, StartPlane, new_training
from tests.streams.log import delete_before, delete_topic, offset_range, read, write

Topic = Callable[..., str]
RAW = {"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", "label_reshape": ""}
HOUR = Duration(seconds=3600)


@pytest.fixture
async def plane(start_plane: StartPlane, kafka: KafkaSettings, control_topic: str) -> Plane:
    return await start_plane(kafka=kafka.bootstrap_servers, control_topic=control_topic)


@pytest.fixture
def control_topic(topic: Topic) -> str:
    return topic()


def request(**fields: Any) -> api.AnnounceStreamRequest:
    usual = api.AnnounceStreamRequest(deployment_id=7, input_format=DATA_FORMAT_RAW, input_config=RAW)
    for name in fields.keys() & {"deployment_id", "input_format", "input_config"}:
        usual.ClearField(name)
    usual.MergeFrom(api.AnnounceStreamRequest(**fields))
    return usual


def posted(kafka: KafkaSettings, control_topic: str) -> list[Message]:
    end = log_ends(kafka, control_topic)[0].high
    return read(kafka, offset_range(control_topic, 0, end)) if end else []


async def test_what_is_chosen_is_announced_as_offsets(
    plane: Plane, kafka: KafkaSettings, topic: Topic, control_topic: str
) -> None:
    first, second, third = topic(2), topic(), topic()
    write(kafka, first, [b"x"] * 5, partition=1)
    for name in (second, third):
        write(kafka, name, [b"x"] * 9)
    wish = request(
        ranges=[offset_range(third, 2, 4)],
        selections=[api.TopicSelection(topic=first), api.TopicSelection(topic=second, since=HOUR)],
        validation_rate=0.2, test_rate=0.1, description="chosen", restrictions="none",
    )  # fmt: skip
    expected = [offset_range(third, 2, 4), offset_range(first, 0, 5, partition=1), offset_range(second, 0, 9)]
    dry = await plane.catalog.AnnounceStream(api.AnnounceStreamRequest(**_fields(wish), validate_only=True))
    assert (list(dry.ranges), dry.offset_count, dry.HasField("source")) == (expected, 16, False)
    assert posted(kafka, control_topic) == []
    answer = await plane.catalog.AnnounceStream(wish)
    assert (list(answer.ranges), answer.offset_count) == (expected, 16)
    (message,) = posted(kafka, control_topic)
    assert (answer.source.topic, answer.source.offset) == (control_topic, 0)
    said, dialect = control.decode(message.key(), headers_of(message), message.value())
    assert (dialect, message.key()) == (DIALECT_HEADRACE, b"\x07")
    assert list(said.ranges) == expected
    assert dict(said.topic_ids) == topic_ids(kafka, [first, second, third])
    assert (said.record_count, said.stream_key, said.deployment_id) == (0, "", 7)
    assert (said.validation_rate, said.test_rate, said.description, said.restrictions) == (0.2, 0.1, "chosen", "none")
    assert dict(said.input_config) == RAW


def _fields(message: api.AnnounceStreamRequest) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


async def test_every_bad_field_is_named_at_once(plane: Plane) -> None:
    future = Timestamp(seconds=32_000_000_000)
    wish = request(
        deployment_id=0,
        ranges=[OffsetRange(topic="t", start=5, end=2), OffsetRange(topic="a b", end=1)],
        selections=[
            api.TopicSelection(topic="", partitions=[-1]),
            api.TopicSelection(topic="t", start_time=future),
            api.TopicSelection(topic="t", end_time=Timestamp(seconds=1), since=HOUR),
        ],
        input_config={"data_type": "quaternion", "data_reshape": "x"},
        validation_rate=2.0,
        description="x" * 5000,
    )
    with pytest.raises(InvalidArgument) as caught:
        await plane.catalog.AnnounceStream(wish)
    assert caught.value.reason_name == "INVALID_FIELD"
    assert [bad.field for bad in caught.value.fields] == [
        "deployment_id", "selections[0].topic", "selections[0].partitions[0]", "selections[1].start_time",
        "selections[2].end_time", "description", "ranges[0]", "ranges[1]", "validation_rate",
        "input_config.data_type", "input_config.data_reshape",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason", "names"),
    [
        ({}, "INVALID_FIELD", ["ranges"]),
        ({"input_format": 0}, "INVALID_FORMAT", ["input_format"]),
        ({"input_config": {}}, "INVALID_FORMAT", ["input_config.data_type"]),
        ({"ranges": [offset_range("t", 0, 5), offset_range("t", 4, 9)]}, "INVALID_RANGE", ["ranges[1]"]),
    ],
)
async def test_one_bad_field_keeps_its_reason(
    plane: Plane, fields: dict[str, Any], reason: str, names: list[str]
) -> None:
    if "ranges" not in fields and fields:
        fields = {"ranges": [offset_range("t", 0, 5)], **fields}
    with pytest.raises(InvalidArgument) as caught:
        await plane.catalog.AnnounceStream(request(**fields))
    assert (caught.value.reason_name, [bad.field for bad in caught.value.fields]) == (reason, names)


async def test_only_what_is_in_the_log_can_be_announced(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name, empty = topic(), topic()
    write(kafka, name, [b"x"] * 10)
    delete_before(kafka, name, 3)
    all_of_it = api.TopicSelection(topic=name)
    before = api.TopicSelection(topic=name, end_time=Timestamp(seconds=1))
    for wish, error, reason in (
        (request(selections=[api.TopicSelection(topic=empty)]), InvalidArgument, "EMPTY_STREAM"),
        (request(selections=[before]), InvalidArgument, "EMPTY_STREAM"),
        (request(ranges=[offset_range(name, 5, 5)]), InvalidArgument, "EMPTY_STREAM"),
        (request(selections=[all_of_it, all_of_it]), InvalidArgument, "INVALID_RANGE"),
        (request(selections=[api.TopicSelection(topic="no-such-topic")]), NotFound, "UNKNOWN_TOPIC"),
        (request(ranges=[offset_range("no-such-topic", 0, 5)]), NotFound, "UNKNOWN_TOPIC"),
        (request(ranges=[offset_range(name, 4, 5, partition=3)]), NotFound, "UNKNOWN_TOPIC"),
        (request(ranges=[offset_range(name, 2, 5)]), FailedPrecondition, "DATA_EXPIRED"),
        (request(ranges=[offset_range(name, 4, 11)]), FailedPrecondition, "DATA_INCOMPLETE"),
    ):
        with pytest.raises(error) as caught:
            await plane.catalog.AnnounceStream(wish)
        assert caught.value.reason_name == reason


async def test_a_training_that_has_its_stream_takes_no_other(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write(kafka, name, [b"x"] * 3)
    deployment = await plane.training("a")
    await recorded(plane, 0, offset_range(name, 0, 3), deployment_id=deployment.id)
    with pytest.raises(FailedPrecondition) as caught:
        await plane.catalog.AnnounceStream(
            request(deployment_id=deployment.id, selections=[api.TopicSelection(topic=name)])
        )
    assert caught.value.reason_name == "WRONG_STATE"


async def test_without_a_broker_it_is_said_which(start_plane: StartPlane) -> None:
    plane = await start_plane()
    with pytest.raises(Unavailable) as caught:
        await plane.catalog.AnnounceStream(request(selections=[api.TopicSelection(topic="t")]), timeout=20)
    assert caught.value.reason_name == "KAFKA_UNAVAILABLE"


async def recorded(
    plane: Plane, offset: int, *ranges: OffsetRange, dialect: Dialect = DIALECT_HEADRACE, **more: Any
) -> int:
    fields: dict[str, Any] = {"message_id": f"m{offset}", "input_format": DATA_FORMAT_RAW, "input_config": RAW} | more
    wish = api.RecordStreamRequest(
        source=StreamSource(topic="elsewhere", offset=offset),
        dialect=dialect,
        announcement=StreamAnnouncement(ranges=ranges, **fields),
    )
    stream_id: int = (await plane.catalog.RecordStream(wish)).stream.id
    return stream_id


async def test_a_stream_that_came_as_kafka_mls_is_replayed_as_kafka_ml_does(
    plane: Plane, kafka: KafkaSettings, control_topic: str
) -> None:
    more: dict[str, Any] = {
        "description": "Mnist dataset",
        "validation_rate": 0.1,
        "record_count": 70000,
        "restrictions": "{}",
    }
    stream_id = await recorded(plane, 0, offset_range("mnist", 0, 70000), dialect=DIALECT_KAFKA_ML, **more)
    deployment = await plane.training("a")
    await plane.catalog.ReplayStream(api.ReplayStreamRequest(id=stream_id, deployment_id=deployment.id))
    (message,) = posted(kafka, control_topic)
    assert (message.key(), headers_of(message)) == (bytes([deployment.id]), [])
    assert message.value() == (
        b'{"input_format": "RAW", "input_config": {"data_type": "uint8", "label_type": "uint8", "data_reshape": '
        b'"28 28", "label_reshape": ""}, "description": "Mnist dataset", "topic": "mnist:0:0:70000", '
        b'"validation_rate": 0.1, "test_rate": 0, "total_msg": 70000}'
    )
    assert list(json.loads(message.value() or b"")) == [
        "input_format", "input_config", "description", "topic", "validation_rate", "test_rate", "total_msg",
    ]  # fmt: skip


async def test_nothing_is_announced_that_its_training_does_not_allow(
    plane: Plane, kafka: KafkaSettings, topic: Topic, control_topic: str
) -> None:
    name = topic()
    write(kafka, name, [b"x"] * 3)
    stream_id = await recorded(plane, 0, offset_range(name, 0, 3))
    deployment = await plane.store.write(lambda: new_training("guarded", allowed_topics=["mine"]))
    chosen = api.AnnounceStreamRequest(
        deployment_id=deployment.id, ranges=[offset_range(name, 0, 3)], input_format=DATA_FORMAT_RAW, input_config=RAW
    )
    for asked in (
        plane.catalog.ReplayStream(api.ReplayStreamRequest(id=stream_id, deployment_id=deployment.id)),
        plane.catalog.AnnounceStream(chosen),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await asked
        assert (caught.value.reason_name, caught.value.metadata["topic"]) == ("TOPIC_NOT_ALLOWED", name)
    assert posted(kafka, control_topic) == []


async def test_a_stream_whose_topic_was_made_anew_is_not_replayed(
    plane: Plane, kafka: KafkaSettings, topic: Topic, control_topic: str
) -> None:
    name = topic()
    write(kafka, name, [b"x"] * 3)
    ids = topic_ids(kafka, [name])
    stream_id = await recorded(plane, 0, offset_range(name, 0, 3), dialect=DIALECT_KAFKA_ML, topic_ids=ids)
    await asyncio.to_thread(delete_topic, kafka, name)
    ensure_topics(kafka, {name: 1})
    deployment = await plane.training("a")
    with pytest.raises(FailedPrecondition) as caught:
        await plane.catalog.ReplayStream(api.ReplayStreamRequest(id=stream_id, deployment_id=deployment.id))
    assert (caught.value.reason_name, caught.value.metadata["announced"]) == ("TOPIC_RECREATED", ids[name])
    assert posted(kafka, control_topic) == []


async def test_a_page_of_large_streams_ends_early_and_goes_on(plane: Plane) -> None:
    ids = [await recorded(plane, n, offset_range("t", 0, 1), description="x" * 900_000) for n in range(5)]
    token, seen = "", []
    for _ in range(5):
        page = await plane.catalog.ListStreams(api.ListStreamsRequest(page_size=4, page_token=token))
        seen += [stream.id for stream in page.streams]
        if not (token := page.next_page_token):
            break
    assert seen == ids[::-1]
