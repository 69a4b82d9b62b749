"""`RawSink.send_batch` against a bare `produce()` loop."""

import itertools
import statistics
import time

import numpy as np
from confluent_kafka import Producer

from benchmarks.report import Ratio, paired
from sinks import RawSink
from streams.codecs import Array
from streams.kafka import KafkaSettings, ensure_topics

ROWS = 200_000
PARTITIONS = 4
PAIRS = 11


def measure(kafka: KafkaSettings) -> list[Ratio]:
    """Records per second of both, from the first record to the confirmation of the last; connecting does not count."""
    pictures = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)
    labels = (np.arange(ROWS) % 10).astype(np.uint8)
    values, keys = [picture.tobytes() for picture in pictures], [label.tobytes() for label in labels]
    pairs = paired(lambda: _sink(kafka, pictures, labels), lambda: _bare(kafka, values, keys), PAIRS)
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    return [
        Ratio(
            f"`RawSink.send_batch` of {ROWS:,} pictures of 784 B to {PARTITIONS} partitions, from an array to exact"
            " ranges, against a bare produce() loop over bytes that counts nothing",
            f"{ours:,.0f} records/s",
            f"{bare:,.0f} records/s",
            tuple(mine / theirs for mine, theirs in pairs),
            "≥ 0.8 ×",
        )
    ]


def _topic(kafka: KafkaSettings) -> str:
    topic = f"bench-sending-{time.time_ns()}"
    ensure_topics(kafka, {topic: PARTITIONS})
    return topic


def _sink(kafka: KafkaSettings, pictures: Array, labels: Array) -> float:
    sink = RawSink(kafka.bootstrap_servers, _topic(kafka), deployment_id=1, control_topic="bench-control")
    sink.send(pictures[0], labels[0])
    sink.flush()
    started = time.perf_counter()
    sink.send_batch(pictures, labels)
    sink.flush()
    seconds = time.perf_counter() - started
    sink.close()
    assert sink.announcement.record_count == ROWS + 1
    return ROWS / seconds


def _bare(kafka: KafkaSettings, values: list[bytes], keys: list[bytes]) -> float:
    settings = {"acks": "all", "compression.type": "lz4", "linger.ms": 5}
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **settings})
    topic = _topic(kafka)
    producer.produce(topic, values[0], keys[0], partition=0)
    producer.flush()
    started = time.perf_counter()
    for value, key, partition in zip(values, keys, itertools.cycle(range(PARTITIONS)), strict=False):
        while True:
            try:
                producer.produce(topic, value, key, partition=partition)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush()
    return ROWS / (time.perf_counter() - started)
