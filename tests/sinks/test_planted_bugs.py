"""The check that sinks have to pass proves itself: what sinks with a bug that others have had would leave is caught."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import HeadraceError
from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, OffsetRange, StreamAnnouncement
from streams.control import encode
from streams.kafka import KafkaSettings
from streams.writer import StreamProducer
from tests.sinks.announced import DEPLOYMENT
from tests.sinks.producing import PART, PARTITIONS, ROWS
from tests.sinks.test_faults import assert_whole_or_nothing
from tests.streams.log import offset_range

Topic = Callable[..., str]
HALF = ROWS // PARTITIONS
STRANGER = (np.int64(-1).tobytes(), None, 0)


def records(start: int, stop: int) -> list[tuple[bytes, bytes | None, int]]:
    """The numbers as the producer of these tests sends them."""
    return [(np.int64(number).tobytes(), None, number % PARTITIONS) for number in range(start, stop)]


def announce(producer: StreamProducer, control: str, *ranges: OffsetRange, count: int = ROWS) -> None:
    announcement = StreamAnnouncement(
        message_id="planted", deployment_id=DEPLOYMENT, ranges=ranges, input_format=DATA_FORMAT_RAW,
        input_config={"data_type": "int64", "data_reshape": "1"}, record_count=count,
    )  # fmt: skip
    headers, value = encode(announcement)
    producer.announce(control, bytes([DEPLOYMENT]), value, headers)


def halves(topic: str) -> list[OffsetRange]:
    """As long as the numbers of records that were sent to each partition."""
    return [offset_range(topic, 0, HALF, partition) for partition in range(PARTITIONS)]


def is_right(producer: StreamProducer, control: str) -> None:
    producer.send_all(records(0, ROWS))
    producer.flush()
    announce(producer, control, *producer.ranges())


def announces_before_it_sends(producer: StreamProducer, control: str) -> None:
    """And is killed between."""
    announce(producer, control, *halves(producer.topic))
    producer.send_all(records(0, PART))


def announces_what_it_sent_and_not_what_was_delivered(producer: StreamProducer, control: str) -> None:
    """The broker has lost the last part."""
    producer.send_all(records(0, ROWS - PART))
    producer.flush()
    announce(producer, control, *producer.ranges())


def takes_the_number_of_records_for_the_length(producer: StreamProducer, control: str) -> None:
    """Somebody else writes between them."""
    producer.send_all([*records(0, PART), STRANGER, *records(PART, ROWS)])
    producer.flush()
    announce(producer, control, *halves(producer.topic))


def sends_again_what_was_not_confirmed_in_time(producer: StreamProducer, control: str) -> None:
    """Though it was written."""
    producer.send_all([*records(0, PART), *records(0, ROWS)])
    producer.flush()
    announce(producer, control, *producer.ranges())


def announces_a_part_by_itself(producer: StreamProducer, control: str) -> None:
    """And is killed before the rest."""
    producer.send_all(records(0, PART))
    producer.flush()
    announce(producer, control, *producer.ranges(), count=PART)


@pytest.mark.parametrize(
    "send",
    [
        announces_before_it_sends,
        announces_what_it_sent_and_not_what_was_delivered,
        takes_the_number_of_records_for_the_length,
        sends_again_what_was_not_confirmed_in_time,
        announces_a_part_by_itself,
    ],
)
def test_a_planted_bug_is_caught(
    kafka: KafkaSettings, topic: Topic, control: str, tmp_path: Path, send: Callable[[StreamProducer, str], None]
) -> None:
    with StreamProducer(kafka, topic(PARTITIONS)) as producer:
        send(producer, control)
        producer.flush()
    with pytest.raises((AssertionError, HeadraceError)):
        assert_whole_or_nothing(kafka, control, tmp_path, wait_s=0.5)


def test_the_same_without_a_bug_passes(kafka: KafkaSettings, topic: Topic, control: str, tmp_path: Path) -> None:
    with StreamProducer(kafka, topic(PARTITIONS)) as producer:
        is_right(producer, control)
    assert len(assert_whole_or_nothing(kafka, control, tmp_path, wait_s=0.5)) == 1
