"""Streams: recorded once, given to their deployments, replayed; what Kafka still holds of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from functools import partial

import pytest
from google.protobuf import duration_pb2

from control_plane.store import Store, deployments, results, streams
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from headrace.v1 import deployment_pb2, model_pb2, stream_pb2
from headrace.v1 import stream_catalog_pb2 as api
from streams import control
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, headers_of
from streams.writer import StreamProducer
from tests.control_plane.conftest import Plane, StartPlane, new_training

AVAILABLE = stream_pb2.AVAILABILITY_AVAILABLE
EXPIRED = stream_pb2.AVAILABILITY_EXPIRED
NOT_WRITTEN = stream_pb2.AVAILABILITY_NOT_WRITTEN


def a_range(topic: str = "digits", partition: int = 0, start: int = 0, end: int = 10) -> stream_pb2.OffsetRange:
    return stream_pb2.OffsetRange(topic=topic, partition=partition, start=start, end=end)


def announced(
    offset: int, deployment_id: int = 1, message_id: str = "", *ranges: stream_pb2.OffsetRange
) -> api.RecordStreamRequest:
    announcement = stream_pb2.StreamAnnouncement(
        message_id=message_id or str(uuid.uuid4()),
        deployment_id=deployment_id,
        ranges=ranges or [a_range()],
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "uint8"},
        record_count=10,
        validation_rate=0.1,
    )
    source = stream_pb2.StreamSource(topic="control", partition=0, offset=offset)
    return api.RecordStreamRequest(source=source, dialect=stream_pb2.DIALECT_HEADRACE, announcement=announcement)


async def positions(plane: Plane) -> dict[int, int]:
    return await plane.store.read(partial(streams.positions, "control"))


async def test_an_announcement_is_recorded_with_its_position(plane: Plane) -> None:
    request = announced(7)
    recorded = await plane.catalog.RecordStream(request)
    assert recorded.created
    assert recorded.stream.range_string == "digits:0:0:10"
    assert recorded.stream.message_id == request.announcement.message_id
    assert dict(recorded.stream.input_config) == {"data_type": "uint8"}
    assert await positions(plane) == {0: 8}
    listed = await plane.catalog.ListStreams(api.ListStreamsRequest(deployment_id=1))
    assert list(listed.streams) == [recorded.stream]
    assert not (await plane.catalog.ListStreams(api.ListStreamsRequest(deployment_id=2))).streams


async def test_the_same_place_and_the_same_message_are_recorded_once(plane: Plane) -> None:
    first = await plane.catalog.RecordStream(announced(7, message_id="m"))
    again = await plane.catalog.RecordStream(announced(7, message_id="m"))
    assert (again.created, again.stream) == (False, first.stream)
    elsewhere = await plane.catalog.RecordStream(announced(9, message_id="m"))
    assert (elsewhere.created, elsewhere.stream.id) == (False, first.stream.id)
    assert await positions(plane) == {0: 10}
    # An older message again does not turn the position back.
    await plane.catalog.RecordStream(announced(7, message_id="m"))
    assert await positions(plane) == {0: 10}


async def test_an_id_of_another_deployment_is_refused(plane: Plane) -> None:
    await plane.catalog.RecordStream(announced(7, 1, "m"))
    with pytest.raises(InvalidArgument, match="announced for deployment 1 already; give another stream_id") as caught:
        await plane.catalog.RecordStream(announced(8, 2, "m"))
    assert caught.value.reason_name == "INVALID_FIELD"
    assert await positions(plane) == {0: 8}


async def test_the_same_message_about_topics_made_anew_is_another_stream(plane: Plane) -> None:
    def told(offset: int, **topic_ids: str) -> api.RecordStreamRequest:
        request = announced(offset, message_id="m")
        request.announcement.topic_ids.update(topic_ids)
        return request

    requests = [told(0, digits="a"), told(1, digits="a"), told(2, digits="b"), told(3, digits="b"), told(4)]
    recorded = [await plane.catalog.RecordStream(request) for request in requests]
    assert [one.created for one in recorded] == [True, False, True, False, False]
    assert dict(recorded[3].stream.topic_ids) == {"digits": "b"}
    assert recorded[4].stream.id == recorded[0].stream.id


async def test_recording_the_same_at_once_creates_one(plane: Plane) -> None:
    request = announced(7, message_id="m")
    answers = await asyncio.gather(*(plane.catalog.RecordStream(request) for _ in range(8)))
    assert sum(answer.created for answer in answers) == 1
    assert len({answer.stream.id for answer in answers}) == 1


async def test_a_message_without_announcement_keeps_only_the_position(plane: Plane) -> None:
    source = stream_pb2.StreamSource(topic="control", partition=0, offset=3)
    answer = await plane.catalog.RecordStream(api.RecordStreamRequest(source=source))
    assert (answer.created, answer.HasField("stream")) == (False, False)
    assert await positions(plane) == {0: 4}


async def test_a_wrong_announcement_is_refused_and_the_position_stays(plane: Plane) -> None:
    request = announced(-1, 1, "", a_range(start=10, end=5))
    request.source.topic = ""
    request.dialect = stream_pb2.DIALECT_UNSPECIFIED
    with pytest.raises(InvalidArgument) as caught:
        await plane.catalog.RecordStream(request)
    assert {bad.field for bad in caught.value.fields} == {
        "source.topic",
        "source.offset",
        "dialect",
        "announcement.ranges[0]",
    }
    request = announced(3, 1, "", a_range(start=10, end=5))
    with pytest.raises(InvalidArgument) as caught:
        await plane.catalog.RecordStream(request)
    assert caught.value.reason_name == "INVALID_RANGE"
    request = announced(3)
    request.announcement.validation_rate = float("nan")
    request.announcement.record_count = -1
    with pytest.raises(InvalidArgument) as caught:
        await plane.catalog.RecordStream(request)
    assert {bad.field for bad in caught.value.fields} == {"validation_rate", "record_count"}
    assert await positions(plane) == {}


async def test_a_deployment_that_waits_gets_its_stream_and_its_waiters_hear_of_it(plane: Plane) -> None:
    deployment = await plane.training("a")
    waiting = [
        asyncio.ensure_future(plane.catalog.AwaitStream(api.AwaitStreamRequest(deployment_id=deployment.id)))
        for _ in range(3)
    ]
    recorded = await plane.catalog.RecordStream(announced(0, deployment.id))
    for answer in await asyncio.gather(*waiting):
        assert answer.stream == recorded.stream
    assert (await plane.store.read(partial(deployments.get, deployment.id))).stream_id == recorded.stream.id


async def test_waiting_ends_without_a_stream_after_its_time(plane: Plane) -> None:
    deployment = await plane.training("a")
    request = api.AwaitStreamRequest(deployment_id=deployment.id, wait=duration_pb2.Duration(nanos=50_000_000))
    assert not (await plane.catalog.AwaitStream(request)).HasField("stream")
    with pytest.raises(NotFound):
        await plane.catalog.AwaitStream(api.AwaitStreamRequest(deployment_id=99))


async def test_a_stream_announced_before_its_deployment_is_found(store: Store) -> None:
    await store.write(partial(streams.record, announced(0, 1)))
    newest = await store.write(partial(streams.record, announced(1, 1)))
    assert newest.stream is not None
    deployment = await store.write(partial(new_training, "a"))
    assert deployment.stream_id == newest.stream.id
    found = await store.read(partial(streams.of_deployment, deployment.id))
    assert found is not None
    assert found.id == newest.stream.id


async def test_a_stream_chosen_on_creation_wins_over_an_announced_one(store: Store) -> None:
    chosen = await store.write(partial(streams.record, announced(0, 50)))
    await store.write(partial(streams.record, announced(1, 1)))
    assert chosen.stream is not None
    deployment = await store.write(partial(new_training, "a", stream_id=chosen.stream.id))
    assert deployment.stream_id == chosen.stream.id


async def test_a_second_announcement_and_one_after_the_end_change_nothing(plane: Plane) -> None:
    deployment = await plane.training("a")
    first = await plane.catalog.RecordStream(announced(0, deployment.id))
    await plane.catalog.RecordStream(announced(1, deployment.id))
    assert (await plane.store.read(partial(deployments.get, deployment.id))).stream_id == first.stream.id
    ended = await plane.training("b")
    (result_id,) = ended.result_ids
    await plane.store.write(partial(results.set_state, result_id, deployment_pb2.STATE_CANCELLED))
    await plane.catalog.RecordStream(announced(2, ended.id))
    assert (await plane.store.read(partial(deployments.get, ended.id))).stream_id == 0


async def test_a_stream_that_is_trained_on_is_not_forgotten(plane: Plane) -> None:
    deployment = await plane.training("a")
    recorded = await plane.catalog.RecordStream(announced(0, deployment.id))
    with pytest.raises(FailedPrecondition) as caught:
        await plane.catalog.DeleteStream(api.DeleteStreamRequest(id=recorded.stream.id))
    assert caught.value.metadata["used_by_ids"] == str(deployment.id)
    await plane.store.write(partial(results.set_state, deployment.result_ids[0], deployment_pb2.STATE_CANCELLED))
    await plane.catalog.DeleteStream(api.DeleteStreamRequest(id=recorded.stream.id))
    with pytest.raises(NotFound):
        await plane.catalog.GetStream(api.GetStreamRequest(id=recorded.stream.id))


async def test_without_a_broker_availability_is_not_known(plane: Plane) -> None:
    recorded = await plane.catalog.RecordStream(announced(0))
    stream = await plane.catalog.GetStream(api.GetStreamRequest(id=recorded.stream.id))
    assert stream.availability == stream_pb2.AVAILABILITY_UNSPECIFIED


async def test_availability_comes_from_the_log(
    start_plane: StartPlane, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    plane, name = await start_plane(kafka=kafka.bootstrap_servers), topic(2)
    with StreamProducer(kafka, name) as producer:
        for _ in range(10):
            producer.send(1, None, b"x")
        producer.flush()
    written = await plane.catalog.RecordStream(announced(0, 1, "", a_range(name, 1)))
    early = await plane.catalog.RecordStream(announced(1, 1, "", a_range(name, 0)))
    gone = await plane.catalog.RecordStream(announced(2, 1, "", a_range("no-such-topic", 0)))
    listed = await plane.catalog.ListStreams(api.ListStreamsRequest(view=model_pb2.VIEW_FULL))
    found = {stream.id: stream.availability for stream in listed.streams}
    assert found == {written.stream.id: AVAILABLE, early.stream.id: NOT_WRITTEN, gone.stream.id: EXPIRED}
    one = await plane.catalog.GetStream(api.GetStreamRequest(id=written.stream.id))
    assert one.availability == AVAILABLE


async def test_a_replay_announces_the_stream_for_another_deployment(
    start_plane: StartPlane, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    control_topic = topic()
    plane = await start_plane(kafka=kafka.bootstrap_servers, control_topic=control_topic)
    first, second = await plane.training("a"), await plane.training("b")
    original = (await plane.catalog.RecordStream(announced(0, first.id))).stream
    replay = api.ReplayStreamRequest(id=original.id, deployment_id=second.id)
    answer = await plane.catalog.ReplayStream(replay)
    assert (answer.source.topic, answer.source.partition, answer.source.offset) == (control_topic, 0, 0)
    with TopicFollower(kafka, control_topic, {}) as follower:
        (message,) = await asyncio.to_thread(follower.read, 10.0)
    announcement, dialect = control.decode(message.key(), headers_of(message), message.value())
    assert dialect == stream_pb2.DIALECT_HEADRACE
    assert message.key() == bytes([second.id])
    assert announcement.deployment_id == second.id
    assert announcement.message_id != original.message_id
    assert announcement.ranges == original.ranges
    assert dict(announcement.input_config) == {"data_type": "uint8"}
    # The logger brings it back, and the deployment has its stream.
    recorded = await plane.catalog.RecordStream(
        api.RecordStreamRequest(source=answer.source, dialect=dialect, announcement=announcement)
    )
    assert recorded.created
    deployment = await plane.store.read(partial(deployments.get, second.id))
    assert deployment.stream_id == recorded.stream.id
    with pytest.raises(FailedPrecondition):
        await plane.catalog.ReplayStream(replay)
    replay.deployment_id = 99
    with pytest.raises(NotFound):
        await plane.catalog.ReplayStream(replay)


async def test_a_replay_without_a_broker_says_which(plane: Plane) -> None:
    deployment = await plane.training("a")
    recorded = await plane.catalog.RecordStream(announced(0, 50))
    with pytest.raises(Unavailable) as caught:
        await plane.catalog.ReplayStream(
            api.ReplayStreamRequest(id=recorded.stream.id, deployment_id=deployment.id), timeout=20
        )
    assert caught.value.reason_name == "KAFKA_UNAVAILABLE"
    assert caught.value.metadata["bootstrap_servers"] == "127.0.0.1:1"
