"""A stream as memory-mapped arrays: complete or not there, and read once."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import Cancelled, FailedPrecondition, InvalidArgument, NotFound
from headrace.v1.deployment_pb2 import COUNT_MISMATCH_ACCEPT, SPLIT_ORDERED
from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, StreamAnnouncement
from streams.kafka import KafkaSettings
from streams.reader import RangeReader
from streams.split import split_rows
from streams.spool import Progress, Spool, open_spool, spool_stream
from streams.writer import StreamProducer
from tests.streams.log import delete_before, write

Topic = Callable[..., str]
ROWS = 300
CONFIG = {"data_type": "float32", "data_reshape": "2 3", "label_type": "uint8", "label_reshape": ""}
FAST = {"enable.idempotence": False, "linger.ms": 0}


def sample(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.arange(6, dtype=np.float32).reshape(2, 3) + number


def announce(topic: str, partitions: int = 1, per_partition: int = ROWS, **changes: object) -> StreamAnnouncement:
    announcement = StreamAnnouncement(input_format=DATA_FORMAT_RAW, input_config=CONFIG)
    for partition in range(partitions):
        announcement.ranges.add(topic=topic, partition=partition, start=0, end=per_partition)
    for name, value in changes.items():
        setattr(announcement, name, value)
    return announcement


@pytest.fixture
def stream(kafka: KafkaSettings, topic: Topic) -> StreamAnnouncement:
    """ROWS records in three partitions; the label is the number modulo 10."""
    name = topic(3)
    with StreamProducer(kafka, name, settings=FAST) as producer:
        for number in range(ROWS):
            producer.send(number % 3, bytes([number % 10]), sample(number).tobytes())
        producer.flush()
    return announce(name, 3, ROWS // 3, record_count=ROWS)


def numbers(spool: Spool) -> list[int]:
    return [int(row[0, 0]) for row in spool.read("samples")]


def test_rows_labels_and_places_belong_together(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    progress: list[Progress] = []
    spool = spool_stream(stream, kafka, tmp_path, on_progress=progress.append)
    assert sorted(numbers(spool)) == list(range(ROWS))
    samples, labels = np.load(spool.samples, mmap_mode="r"), spool.read("labels")
    assert (samples.shape, samples.dtype) == ((ROWS, 2, 3), np.float32)
    assert (labels.shape, labels.dtype.name) == ((ROWS, 1), "uint8")
    for number, row, label, partition, offset in zip(
        numbers(spool), samples, labels, spool.read("partitions"), spool.read("offsets"), strict=True
    ):
        np.testing.assert_array_equal(row, sample(number))
        assert (label[0], spool.sources[partition][1], offset) == (number % 10, number % 3, number // 3)
    assert spool.read("timestamps").min() > 1_600_000_000_000
    assert (progress[-1].read, progress[-1].total, progress[-1].left_s) == (ROWS, ROWS, 0)
    assert progress[-1].records_per_s > 0


def test_a_spool_is_read_once(kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path) -> None:
    first = spool_stream(stream, kafka, tmp_path)
    for one in stream.ranges:
        delete_before(kafka, one.topic, one.end, one.partition)
    assert spool_stream(stream, kafka, tmp_path) == first
    assert open_spool(tmp_path) == first


def test_the_spool_of_another_stream_is_not_taken(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    spool_stream(stream, kafka, tmp_path)
    stream.ranges[0].end -= 10
    stream.record_count -= 10
    assert open_spool(tmp_path, stream) is None
    assert spool_stream(stream, kafka, tmp_path).rows == ROWS - 10


@pytest.mark.parametrize("name", ["samples.npy", "labels.npy", "offsets.npy", "manifest.json"])
def test_a_damaged_spool_is_not_taken(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path, name: str
) -> None:
    whole = spool_stream(stream, kafka, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 0x40
    (tmp_path / name).write_bytes(content)
    assert open_spool(tmp_path, stream) is None
    assert sorted(numbers(spool_stream(stream, kafka, tmp_path))) == list(range(whole.rows))


def test_a_spool_that_was_interrupted_is_not_taken(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        spool_stream(stream, kafka, tmp_path, stop=stop)
    assert open_spool(tmp_path) is None
    assert spool_stream(stream, kafka, tmp_path).rows == ROWS


def test_the_first_undecodable_records_are_named(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic()
    good = sample(0).tobytes()
    write(kafka, name, [good, good[:-1], good, b"", good + b"x", b"y"])
    stream = announce(name, per_partition=6)
    del stream.input_config["label_type"]
    with pytest.raises(InvalidArgument) as caught:
        spool_stream(stream, kafka, tmp_path)
    assert caught.value.reason_name == "DECODE_ERROR"
    facts = caught.value.metadata
    assert (facts["topic"], facts["partition"], facts["offset"], facts["count"]) == (name, "0", "1", "4")
    assert (facts["offset_2"], facts["offset_3"]) == ("3", "4")
    assert f"{name}/0 offset 1" in caught.value.message
    assert "23 bytes" in caught.value.message


def test_undecodable_records_within_the_limit_are_counted(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic()
    with StreamProducer(kafka, name, settings=FAST) as producer:
        for number in range(10):
            key = None if number == 3 else b"\x01\x02" if number == 5 else b"\x01"
            producer.send(0, key, sample(number).tobytes() if number != 7 else b"?")
        producer.flush()
    stream = announce(name, per_partition=10, record_count=10)
    spool = spool_stream(stream, kafka, tmp_path, decode_error_limit=0.3)
    assert numbers(spool) == [0, 1, 2, 4, 6, 8, 9]
    assert len(spool.read("labels")) == len(spool.read("offsets")) == spool.rows == 7
    assert (spool.decode_error_count, spool.record_count) == (3, 10)
    assert open_spool(tmp_path, stream) == spool
    with pytest.raises(InvalidArgument):
        spool_stream(stream, kafka, tmp_path, decode_error_limit=0.2)


def test_a_number_that_was_not_announced_is_refused_unless_accepted(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    stream.record_count = ROWS + 1
    with pytest.raises(FailedPrecondition) as caught:
        spool_stream(stream, kafka, tmp_path)
    assert caught.value.reason_name == "COUNT_MISMATCH"
    assert (caught.value.metadata["announced"], caught.value.metadata["read"]) == (str(ROWS + 1), str(ROWS))
    assert spool_stream(stream, kafka, tmp_path, count_mismatch=COUNT_MISMATCH_ACCEPT).rows == ROWS


def test_a_range_of_other_records_only_is_empty(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic()
    write(kafka, name, [sample(1).tobytes()] * 3, stream_key="theirs")
    with pytest.raises(FailedPrecondition) as caught:
        spool_stream(announce(name, per_partition=3, stream_key="ours"), kafka, tmp_path)
    assert caught.value.reason_name == "EMPTY_STREAM"


def test_a_length_that_was_left_open_is_found(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic()
    write(kafka, name, [np.arange(4, dtype="<i2").tobytes()] * 3)
    stream = announce(name, per_partition=3)
    stream.input_config.clear()
    stream.input_config["data_type"] = "int16"
    spool = spool_stream(stream, kafka, tmp_path)
    assert spool.sample_spec.shape == (4,)
    assert (spool.labels, spool.label_spec) == (None, None)
    assert open_spool(tmp_path, stream) == spool


def test_what_the_reader_refuses_is_refused(kafka: KafkaSettings, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        spool_stream(announce("nowhere"), kafka, tmp_path)
    assert open_spool(tmp_path) is None


def test_a_split_of_a_spool_does_not_depend_on_how_it_was_read(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    validations = []
    for folder in ("first", "second"):
        if folder == "second":
            stream.ranges.reverse()
        spool = spool_stream(stream, kafka, tmp_path / folder)
        rows = split_rows(spool, validation_rate=0.2, test_rate=0.1, seed=7, split=0)
        validations.append([numbers(spool)[row] for row in rows.validation])
    assert validations[0] == validations[1]
    ordered = split_rows(spool, validation_rate=0.2, test_rate=0.1, seed=7, split=SPLIT_ORDERED)
    times = spool.read("timestamps")
    assert times[ordered.training].max() <= times[ordered.test].min()


def test_a_stream_larger_than_a_batch_is_whole(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic(2)
    with StreamProducer(kafka, name, settings=FAST) as producer:
        for number in range(30_000):
            producer.send(number % 2, b"\x01", sample(number).tobytes())
        producer.flush()
    stream = announce(name, 2, 15_000)
    with RangeReader(kafka, stream.ranges) as reader:
        assert sum(1 for _ in reader.batches()) > 1
    assert sorted(numbers(spool_stream(stream, kafka, tmp_path))) == list(range(30_000))
