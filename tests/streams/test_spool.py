"""A stream as memory-mapped arrays: complete or not there, and read once."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import Cancelled, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from headrace.v1.deployment_pb2 import COUNT_MISMATCH_ACCEPT, SPLIT_ORDERED, SPLIT_SHUFFLED
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
    assert caught.value.message.startswith("4 of 6 records cannot be decoded")
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


def test_the_first_undecodable_records_are_those_of_the_first_partitions(
    kafka: KafkaSettings, topic: Topic, tmp_path: Path
) -> None:
    """Whatever partition is read first: the same records fail in the same words."""
    name = topic(3)
    bad = {0: [70], 1: [5], 2: [0, 1, 2, 3]}
    with StreamProducer(kafka, name, settings=FAST) as producer:
        for number in range(300):
            partition, offset = number % 3, number // 3
            value = b"?" if offset in bad[partition] else sample(number).tobytes()
            producer.send(partition, b"\x01", value)
        producer.flush()
    with pytest.raises(InvalidArgument) as caught:
        spool_stream(announce(name, 3, 100, record_count=300), kafka, tmp_path)
    facts = caught.value.metadata
    shown = [(facts[f"partition{one}"], facts[f"offset{one}"]) for one in ("", "_2", "_3")]
    assert shown == [("0", "70"), ("1", "5"), ("2", "0")]
    assert "1 bytes" in facts["cause_3"]


def test_a_part_has_the_same_digest_however_it_was_read(
    kafka: KafkaSettings, stream: StreamAnnouncement, topic: Topic, tmp_path: Path
) -> None:
    whole = spool_stream(stream, kafka, tmp_path / "whole")
    (one,) = [one for one in stream.ranges if one.partition == 1]
    alone = announce(one.topic)
    alone.ClearField("ranges")
    # In several ranges, and so in other batches.
    for start in range(0, one.end, 10):
        alone.ranges.add(topic=one.topic, partition=1, start=start, end=start + 10)
    again = spool_stream(alone, kafka, tmp_path / "alone")
    assert again.sources == [(one.topic, 1)]
    assert again.digests == [whole.digests[1]]
    assert len(set(whole.digests)) == 3
    alone.ranges.pop()
    assert spool_stream(alone, kafka, tmp_path / "less").digests != again.digests


def test_what_the_records_decided_is_kept(kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path) -> None:
    del stream.input_config["data_reshape"]
    spool = spool_stream(stream, kafka, tmp_path)
    assert spool.config["data_reshape"] == "6"
    assert spool.fields == ()
    assert spool.reading_s > 0
    assert open_spool(tmp_path, stream) == spool


ROW_BYTES = 6 * 4 + 1 + 20


def test_a_stream_that_is_larger_than_its_quota_is_refused_before_it_is_read(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    fits = spool_stream(stream, kafka, tmp_path / "fits", limit_bytes=ROWS * ROW_BYTES)
    assert fits.rows == ROWS
    nowhere = KafkaSettings("127.0.0.1:1")
    with pytest.raises(ResourceExhausted) as caught:
        spool_stream(stream, nowhere, tmp_path / "not", limit_bytes=ROWS * ROW_BYTES - 1)
    assert caught.value.reason_name == "SPOOL_LIMIT"
    assert caught.value.metadata == {
        "limit_bytes": str(ROWS * ROW_BYTES - 1),
        "needed_bytes": str(ROWS * ROW_BYTES),
    }


def test_a_quota_holds_where_nobody_said_how_much_would_come(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    stream.record_count = 0
    del stream.input_config["data_reshape"]  # so that not even the size of a row is known
    with pytest.raises(ResourceExhausted) as caught:
        spool_stream(stream, kafka, tmp_path, limit_bytes=100 * ROW_BYTES)
    assert caught.value.reason_name == "SPOOL_LIMIT"
    assert int(caught.value.metadata["needed_bytes"]) == ROWS * ROW_BYTES
    assert open_spool(tmp_path) is None


def test_the_records_of_a_topic_made_anew_are_not_those_that_were_announced(
    kafka: KafkaSettings, stream: StreamAnnouncement, tmp_path: Path
) -> None:
    spool_stream(stream, kafka, tmp_path)
    stream.topic_ids[stream.ranges[0].topic] = "another"
    assert open_spool(tmp_path, stream) is None
    with pytest.raises(FailedPrecondition) as caught:
        spool_stream(stream, kafka, tmp_path)
    assert caught.value.reason_name == "TOPIC_RECREATED"


def test_two_streams_in_one_partition_are_read_apart(kafka: KafkaSettings, topic: Topic, tmp_path: Path) -> None:
    name = topic()
    for number in range(0, 40, 4):
        for key, first in (("ours", number), ("theirs", number + 2)):
            write_labelled(kafka, name, range(first, first + 2), key)
    for key, wanted in (("ours", 0), ("theirs", 2)):
        spool = spool_stream(announce(name, per_partition=40, record_count=20, stream_key=key), kafka, tmp_path / key)
        assert numbers(spool) == [number for number in range(40) if number % 4 in (wanted, wanted + 1)]
        assert spool.others_count == 20


def write_labelled(kafka: KafkaSettings, topic: str, rows: range, key: str) -> None:
    with StreamProducer(kafka, topic, headers=[("headrace-stream", key)], settings=FAST) as producer:
        for number in rows:
            producer.send(0, b"\x01", sample(number).tobytes())
        producer.flush()


def test_classes_that_lie_in_partitions_of_their_own_are_in_every_part_in_proportion(
    kafka: KafkaSettings, topic: Topic, tmp_path: Path
) -> None:
    """As Kafka's default partitioner leaves them, because the key is the label."""
    classes, of_each = 5, 400
    name = topic(classes)
    with StreamProducer(kafka, name, settings={**FAST, "batch.num.messages": 20}) as producer:
        for number in range(classes * of_each):
            label = number // of_each
            producer.send(label, bytes([label]), sample(number).tobytes())
        producer.flush()
    stream = announce(name, classes, of_each, record_count=classes * of_each)
    by_turns = KafkaSettings(kafka.bootstrap_servers, {"max.partition.fetch.bytes": "2000"})
    splits, orders = [], []
    for folder, client in (("first", kafka), ("second", by_turns)):
        spool = spool_stream(stream, client, tmp_path / folder)
        rows = split_rows(spool, validation_rate=0.2, test_rate=0.1, seed=3, split=SPLIT_SHUFFLED)
        places = np.stack([spool.read("partitions"), spool.read("offsets")], axis=1)
        splits.append([places[part].tolist() for part in (rows.training, rows.validation, rows.test)])
        orders.append(places.tolist())
        labels = spool.read("labels")[:, 0]
        for part in (rows.training, rows.validation, rows.test):
            counts = np.bincount(labels[part], minlength=classes)
            assert abs(counts - len(part) / classes).max() < 5 * np.sqrt(len(part) / classes)
    assert orders[0] != orders[1], "read in another order, or this shows nothing"
    assert splits[0] == splits[1]


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
