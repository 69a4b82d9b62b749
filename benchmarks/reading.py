"""Reading a range into the spool: its rate against a bare `consume()` loop, and its memory.

The rate is easily measured wrong. With librdkafka's defaults a consumer that is slower than the network pauses for up
to a second whenever its queue is full (`fetch.queue.backoff.ms`), so that the bare loop takes one second or two by
chance; and the first reading of a topic warms up the broker's code and the page cache for the ones after it. So both
are run once before it counts, then in turn, each of them first in every other pair, against two bare loops: one with
the defaults, and one that never pauses, as ours does not.

Memory is what the process has allocated (RssAnon), not the pages of files that the kernel keeps as long as it has room.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks.report import Ratio
from headrace.v1 import stream_pb2
from streams.kafka import KafkaSettings, ensure_topics
from streams.spool import spool_stream
from streams.writer import StreamProducer

ROWS = 500_000
ROW_SHAPE = (28, 28)
PARTITIONS = 4
PAIRS = 7
NO_PAUSE = {"fetch.queue.backoff.ms": 10}
SPOOLED_BYTES = 4_000_000_000
LARGE_SHAPE = (948, 948)
MEMORY_LIMIT_MB = 300


def fill(
    kafka: KafkaSettings, topic: str, rows: int, shape: tuple[int, int] = ROW_SHAPE
) -> list[stream_pb2.OffsetRange]:
    """Writes random pictures with a label byte each; returns their ranges."""
    ensure_topics(kafka, {topic: PARTITIONS})
    some = min(1000, 100_000_000 // (shape[0] * shape[1]))
    pictures = np.random.default_rng(0).integers(0, 256, (some, *shape), dtype=np.uint8)
    values = [picture.tobytes() for picture in pictures]
    with StreamProducer(kafka, topic) as producer:
        for row in range(rows):
            producer.send(row % PARTITIONS, bytes([row % 10]), values[row % len(values)])
        producer.flush()
        return producer.ranges()


def stream_of(ranges: list[stream_pb2.OffsetRange], rows: int, shape: tuple[int, int] = ROW_SHAPE) -> stream_pb2.Stream:
    """The stream that a sink would have announced."""
    reshape = " ".join(map(str, shape))
    return stream_pb2.Stream(
        ranges=ranges,
        record_count=rows,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "uint8", "label_type": "uint8", "data_reshape": reshape, "label_reshape": ""},
    )


def measure(kafka: KafkaSettings) -> list[Ratio]:
    """Records per second of both, and the memory that it takes."""
    topic = f"bench-reading-{time.time_ns()}"
    stream = stream_of(fill(kafka, topic, ROWS), ROWS)
    return [
        _rate(kafka, stream, {}, "with librdkafka's defaults, which let it pause for up to a second"),
        _rate(kafka, stream, NO_PAUSE, "that never pauses"),
        _memory(kafka, ROW_SHAPE),
        _memory(kafka, LARGE_SHAPE),
    ]


def _rate(kafka: KafkaSettings, stream: stream_pb2.Stream, settings: dict[str, Any], which: str) -> Ratio:
    topic = stream.ranges[0].topic
    pairs = _warm_pairs(lambda: _spool(kafka, stream), lambda: _bare(kafka, topic, settings))
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(
        f"reading {ROWS:,} records of 784 B from {PARTITIONS} partitions into the spool,"
        f" against a bare consume() loop that throws the bytes away, {which}",
        f"{ours:,.0f} records/s",
        f"{bare:,.0f} records/s",
        tuple(mine / theirs for mine, theirs in pairs),
        "≥ 0.8 ×",
    )


def _warm_pairs(ours: Callable[[], float], baseline: Callable[[], float]) -> list[tuple[float, float]]:
    ours(), baseline()
    pairs = []
    for number in range(PAIRS):
        if number % 2:
            pairs.append((ours(), baseline()))
        else:
            theirs = baseline()
            pairs.append((ours(), theirs))
    return pairs


def _spool(kafka: KafkaSettings, stream: stream_pb2.Stream) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        spool = spool_stream(stream, kafka, Path(folder) / "spool", on_progress=lambda _: None)
        seconds = time.perf_counter() - started
        assert spool.rows == ROWS
    return ROWS / seconds


def _bare(kafka: KafkaSettings, topic: str, settings: dict[str, Any]) -> float:
    servers = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bench", "enable.auto.commit": False}
    consumer = Consumer({**servers, "enable.partition.eof": True, **settings})
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


def _memory(kafka: KafkaSettings, shape: tuple[int, int]) -> Ratio:
    row_bytes = shape[0] * shape[1]
    rows = SPOOLED_BYTES // row_bytes
    stream = stream_of(fill(kafka, f"bench-memory-{time.time_ns()}", rows, shape), rows, shape)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.spooling", kafka.bootstrap_servers, folder]
        done = subprocess.run(command, input=stream.SerializeToString(), capture_output=True, check=True)
    found = json.loads(done.stdout)
    above_mb = found["peak_mb"] - found["idle_mb"]
    return Ratio(
        f"peak memory (RssAnon) while spooling {rows:,} records of {row_bytes:,} B, {SPOOLED_BYTES / 1e9:.0f} GB,"
        f" above the idle process, against {MEMORY_LIMIT_MB} MB",
        f"{above_mb:,.0f} MB above {found['idle_mb']:,.0f} MB",
        f"{MEMORY_LIMIT_MB} MB",
        (above_mb / MEMORY_LIMIT_MB,),
        "≤ 1 ×",
    )
