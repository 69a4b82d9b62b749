"""Reading a range into the spool, against a bare `consume()` loop that throws the bytes away."""

import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks.report import Ratio, paired
from headrace.v1 import stream_pb2
from streams.kafka import KafkaSettings, ensure_topics
from streams.spool import spool_stream
from streams.writer import StreamProducer

ROWS = 200_000
ROW_SHAPE = (28, 28)
PARTITIONS = 4
PAIRS = 3


def fill(kafka: KafkaSettings, topic: str, rows: int) -> list[stream_pb2.OffsetRange]:
    """Writes random 28×28 pictures with a label byte each; returns their ranges."""
    ensure_topics(kafka, {topic: PARTITIONS})
    pictures = np.random.default_rng(0).integers(0, 256, (1000, *ROW_SHAPE), dtype=np.uint8)
    values = [picture.tobytes() for picture in pictures]
    with StreamProducer(kafka, topic) as producer:
        for row in range(rows):
            producer.send(row % PARTITIONS, bytes([row % 10]), values[row % len(values)])
        producer.flush()
        return producer.ranges()


def stream_of(ranges: list[stream_pb2.OffsetRange], rows: int) -> stream_pb2.Stream:
    """The stream that a sink would have announced."""
    return stream_pb2.Stream(
        ranges=ranges,
        record_count=rows,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", "label_reshape": ""},
    )


def measure(kafka: KafkaSettings) -> list[Ratio]:
    """Records per second of both."""
    topic = f"bench-reading-{time.time_ns()}"
    stream = stream_of(fill(kafka, topic, ROWS), ROWS)
    pairs = paired(lambda: _spool(kafka, stream), lambda: _bare(kafka, topic), PAIRS)
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    return [
        Ratio(
            f"reading {ROWS:,} records of 784 B from {PARTITIONS} partitions into the spool,"
            " against a bare consume() loop that throws the bytes away",
            f"{ours:,.0f} records/s",
            f"{bare:,.0f} records/s",
            tuple(mine / theirs for mine, theirs in pairs),
            "≥ 0.8 ×",
        )
    ]


def _spool(kafka: KafkaSettings, stream: stream_pb2.Stream) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        spool = spool_stream(stream, kafka, Path(folder) / "spool", on_progress=lambda *_: None, stop=threading.Event())
        seconds = time.perf_counter() - started
        assert spool.rows == ROWS
    return ROWS / seconds


def _bare(kafka: KafkaSettings, topic: str) -> float:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    started = time.perf_counter()
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    rows = ended = 0
    while ended < PARTITIONS:
        for message in consumer.consume(1000, 1.0):
            error = message.error()
            if error is None:
                rows += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
    seconds = time.perf_counter() - started
    consumer.close()
    assert rows == ROWS
    return ROWS / seconds
