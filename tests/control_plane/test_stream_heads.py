"""The first records of streams, through the API, on the real broker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from control_plane import stream_heads
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace.v1 import stream_catalog_pb2 as api
from headrace.v1.stream_pb2 import (
    AVAILABILITY_PARTLY_EXPIRED,
    DATA_FORMAT_RAW,
    DIALECT_HEADRACE,
    OffsetRange,
    StreamAnnouncement,
    StreamSource,
)
from streams.kafka import KafkaSettings, ensure_topics, topic_ids
from streams.writer import StreamProducer, TransactionalWriter
from tests.control_plane.conftest import Plane, StartPlane
from tests.streams.log import STREAM_KEY, delete_before, delete_topic, offset_range, write_in_transaction

Topic = Callable[..., str]
PAIRS = {"data_type": "uint8", "data_reshape": "2", "label_type": "uint8", "label_reshape": "1"}

_offsets = itertools.count()


@pytest.fixture
async def plane(start_plane: StartPlane, kafka: KafkaSettings) -> Plane:
    return await start_plane(kafka=kafka.bootstrap_servers)


async def recorded(plane: Plane, *ranges: OffsetRange, config: dict[str, str] | None = None, **more: Any) -> int:
    """The id of a recorded stream."""
    number = next(_offsets)
    announcement = StreamAnnouncement(
        message_id=str(number), ranges=ranges, input_format=DATA_FORMAT_RAW, input_config=config or PAIRS, **more
    )
    source = StreamSource(topic="control", offset=number)
    request = api.RecordStreamRequest(source=source, dialect=DIALECT_HEADRACE, announcement=announcement)
    stream_id: int = (await plane.catalog.RecordStream(request)).stream.id
    return stream_id


async def head(plane: Plane, stream_id: int, count: int = 0) -> api.GetStreamHeadResponse:
    request = api.GetStreamHeadRequest(id=stream_id, record_count=count)
    response: api.GetStreamHeadResponse = await plane.catalog.GetStreamHead(request)
    return response


def send(
    kafka: KafkaSettings, topic: str, records: Sequence[tuple[bytes, bytes | None]], partition: int = 0, key: str = ""
) -> None:
    """(sample, label) each."""
    with StreamProducer(kafka, topic, headers=[(STREAM_KEY, key)] if key else None) as producer:
        for sample, label in records:
            producer.send(partition, label, sample)
        producer.flush()


def places(response: api.GetStreamHeadResponse) -> list[tuple[int, int]]:
    return [(record.partition, record.offset) for record in response.records]


async def test_the_first_records_of_each_partition_are_decoded(
    plane: Plane, kafka: KafkaSettings, topic: Topic
) -> None:
    name = topic(3)
    send(kafka, name, [(bytes([n, n + 1]), bytes([n])) for n in range(30)])
    send(kafka, name, [(bytes([100, n]), b"\x09") for n in range(2)], partition=2)
    stream_id = await recorded(
        plane, offset_range(name, 5, 30), offset_range(name, 0, 2, 2), offset_range(name, 0, 0, 1)
    )
    response = await head(plane, stream_id, 6)
    assert places(response) == [(0, 5), (0, 6), (0, 7), (0, 8), (2, 0), (2, 1)]
    first = response.records[0]
    assert (list(first.sample), list(first.label), first.topic, first.decode_error) == ([5, 6], [5], name, "")
    assert abs(first.time.ToSeconds() - time.time()) < 3600
    assert (response.sample.dtype, list(response.sample.shape)) == ("uint8", [2])
    assert (response.label.dtype, list(response.label.shape)) == ("uint8", [1])
    assert len((await head(plane, stream_id)).records) == 10
    assert len((await head(plane, stream_id, 100)).records) == 27


async def test_records_of_others_and_holes_are_looked_through(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [(b"xx", b"x")] * 3000, key="theirs")
    with TransactionalWriter(kafka, name) as writer:
        write_in_transaction(writer, name, [b"no"] * 500, commit=False)
    send(kafka, name, [(b"ab", b"c")] * 5, key="ours")
    stream_id = await recorded(plane, offset_range(name, 0, 3506), stream_key="ours")
    assert places(await head(plane, stream_id, 3)) == [(0, 3501), (0, 3502), (0, 3503)]


async def test_looking_ends_after_its_time(
    plane: Plane, kafka: KafkaSettings, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_heads, "READ_S", 0.0)
    name = topic()
    send(kafka, name, [(b"xx", b"x")] * 10)
    assert not (await head(plane, await recorded(plane, offset_range(name, 0, 10)))).records


async def test_a_record_that_cannot_be_decoded_says_why(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [(b"ab", b"c"), (b"abc", b"c"), (b"ab", None), (b"", b"cc")])
    response = await head(plane, await recorded(plane, offset_range(name, 0, 4)))
    good, long, unlabelled, empty = response.records
    assert (good.decode_error, list(good.sample)) == ("", [97, 98])
    assert "3 bytes" in long.decode_error
    assert list(long.label) == [99]
    assert "key" in unlabelled.decode_error
    assert empty.decode_error.count(";") == 1
    assert (len(empty.sample), len(empty.label)) == (0, 0)


async def test_texts_are_shown_as_texts(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [("größer".encode(), b"up"), (b"less", b"down")])
    config = {"data_type": "string", "label_type": "string"}
    response = await head(plane, await recorded(plane, offset_range(name, 0, 2), config=config))
    assert [(one.sample_text, one.label_text) for one in response.records] == [("größer", "up"), ("less", "down")]
    assert response.sample.dtype == "string"
    assert not response.records[0].sample


async def test_lengths_that_are_open_and_records_without_labels(
    plane: Plane, kafka: KafkaSettings, topic: Topic
) -> None:
    name = topic()
    send(kafka, name, [(np.array([0.5, -1, np.inf], "<f4").tobytes(), None)])
    response = await head(plane, await recorded(plane, offset_range(name, 0, 1), config={"data_type": "float32"}))
    assert list(response.records[0].sample) == [0.5, -1, np.inf]
    assert list(response.sample.shape) == [3]
    assert not response.HasField("label")


async def test_large_samples_fill_an_answer_and_no_more(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [(bytes(200_000), None)] * 4)
    config = {"data_type": "uint8", "data_reshape": "200000"}
    assert places(await head(plane, await recorded(plane, offset_range(name, 0, 4), config=config))) == [(0, 0)]
    config["data_reshape"] = "500000"
    send(kafka, name, [(bytes(500_000), None)])
    (only,) = (await head(plane, await recorded(plane, offset_range(name, 4, 5), config=config))).records
    assert not only.sample
    assert "500000 numbers" in only.decode_error


async def test_what_is_left_and_written_is_shown(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [(b"ab", b"c")] * 10)
    partly = await recorded(plane, offset_range(name, 0, 10))
    early = await recorded(plane, offset_range(name, 9, 20))
    later = await recorded(plane, offset_range(name, 15, 20))
    open_ended = await recorded(plane, open_topics=[name], incremental=True)
    delete_before(kafka, name, 8)
    left = await head(plane, partly)
    assert (places(left), left.availability) == ([(0, 8), (0, 9)], AVAILABILITY_PARTLY_EXPIRED)
    assert places(await head(plane, early)) == [(0, 9)]
    assert places(await head(plane, later)) == []
    assert places(await head(plane, open_ended)) == [(0, 8), (0, 9)]
    delete_before(kafka, name, 10)
    with pytest.raises(FailedPrecondition) as caught:
        await head(plane, partly)
    assert caught.value.reason_name == "DATA_EXPIRED"


async def test_why_there_is_no_head_is_told(plane: Plane, kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    send(kafka, name, [(b"ab", b"c")])
    stream_id = await recorded(plane, offset_range(name, 0, 1), topic_ids=topic_ids(kafka, [name]))
    with pytest.raises(InvalidArgument) as caught:
        await head(plane, stream_id, 101)
    assert [bad.field for bad in caught.value.fields] == ["record_count"]
    with pytest.raises(InvalidArgument) as caught:
        await head(plane, await recorded(plane, offset_range(name, 0, 1), config={"data_type": "quaternion"}))
    assert caught.value.reason_name == "INVALID_FORMAT"
    with pytest.raises(NotFound):
        await head(plane, 999)
    delete_topic(kafka, name)
    with pytest.raises(NotFound) as missing:
        await head(plane, stream_id)
    assert missing.value.reason_name == "UNKNOWN_TOPIC"
    ensure_topics(kafka, {name: 1})
    with pytest.raises(FailedPrecondition) as remade:
        await head(plane, stream_id)
    assert remade.value.reason_name == "TOPIC_RECREATED"
