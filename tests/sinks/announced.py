"""What was announced, and what a training would read of it."""

from pathlib import Path

import numpy as np

from headrace.v1.stream_pb2 import DIALECT_HEADRACE, StreamAnnouncement
from streams.codecs import Array
from streams.control import decode
from streams.kafka import KafkaSettings, headers_of, log_ends
from streams.reader import WAIT_S
from streams.spool import Spool, spool_stream
from tests.streams.log import offset_range, read

DEPLOYMENT = 7


def announced(kafka: KafkaSettings, control: str) -> list[StreamAnnouncement]:
    """All messages of the control topic that are committed; each is for the deployment 7."""
    messages = []
    for message in read(kafka, offset_range(control, 0, log_ends(kafka, control)[0].stable)):
        announcement, dialect = decode(message.key(), headers_of(message), message.value())
        assert dialect == DIALECT_HEADRACE
        assert message.key() == bytes([DEPLOYMENT])
        messages.append(announcement)
    return messages


def in_order(spool: Spool, name: str, partitions: int) -> Array:
    """The rows in the order in which they were sent to the partitions in turn, without gaps."""
    order = np.lexsort((spool.read("partitions"), positions(spool, partitions)))
    return spool.read(name)[order]


def positions(spool: Spool, partitions: int) -> Array:
    """The how-manyth record of its partition each is."""
    numbers, offsets = spool.read("partitions"), spool.read("offsets")
    found = np.empty(len(numbers), np.int64)
    for number in range(partitions):
        mine = np.flatnonzero(numbers == number)
        found[mine[np.argsort(offsets[mine])]] = np.arange(len(mine))
    return found


def read_samples(
    kafka: KafkaSettings, announcement: StreamAnnouncement, folder: Path, wait_s: float = WAIT_S
) -> list[object]:
    """The samples that a training reads, sorted. It checks the number."""
    return sorted(spool_stream(announcement, kafka, folder, wait_s=wait_s).read("samples").ravel().tolist())
