"""Whether Kafka still holds the records of streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from headrace.errors import HeadraceError, NotFound
from headrace.v1 import stream_pb2
from streams.kafka import KafkaSettings, watermarks

log = logging.getLogger(__name__)

# A broker that is away makes a list slow, not fail.
ASK_TIMEOUT_S = 5.0

# Partition to (first offset, end offset); None: no such topic.
Ends = Mapping[int, tuple[int, int]] | None


async def add_availability(kafka: KafkaSettings, streams: Sequence[stream_pb2.Stream]) -> None:
    """Fill in `availability`; it stays UNSPECIFIED while the broker does not answer."""
    topics = sorted({one.topic for stream in streams for one in stream.ranges})
    ends = await asyncio.to_thread(_ends, kafka, topics)
    if ends is not None:
        for stream in streams:
            stream.availability = availability_of(stream.ranges, ends)


def availability_of(ranges: Sequence[stream_pb2.OffsetRange], ends: Mapping[str, Ends]) -> stream_pb2.Availability:
    """What the log's ends say of ranges. A deleted part weighs more than one that is not written yet."""
    if not ranges:
        return stream_pb2.AVAILABILITY_UNSPECIFIED
    found = [_of_range(one, ends[one.topic]) for one in ranges if one.start < one.end]
    if found and all(one == stream_pb2.AVAILABILITY_EXPIRED for one in found):
        return stream_pb2.AVAILABILITY_EXPIRED
    if stream_pb2.AVAILABILITY_EXPIRED in found or stream_pb2.AVAILABILITY_PARTLY_EXPIRED in found:
        return stream_pb2.AVAILABILITY_PARTLY_EXPIRED
    if stream_pb2.AVAILABILITY_NOT_WRITTEN in found:
        return stream_pb2.AVAILABILITY_NOT_WRITTEN
    return stream_pb2.AVAILABILITY_AVAILABLE


def _of_range(one: stream_pb2.OffsetRange, ends: Ends) -> stream_pb2.Availability:
    if ends is None or one.partition not in ends:
        return stream_pb2.AVAILABILITY_EXPIRED
    low, high = ends[one.partition]
    if low >= one.end:
        return stream_pb2.AVAILABILITY_EXPIRED
    if low > one.start:
        return stream_pb2.AVAILABILITY_PARTLY_EXPIRED
    if high < one.end:
        return stream_pb2.AVAILABILITY_NOT_WRITTEN
    return stream_pb2.AVAILABILITY_AVAILABLE


def _ends(kafka: KafkaSettings, topics: Sequence[str]) -> dict[str, Ends] | None:
    """Topic to its ends; None when the broker does not answer."""
    found: dict[str, Ends] = {}
    for topic in topics:
        try:
            found[topic] = watermarks(kafka, topic, ASK_TIMEOUT_S)
        except NotFound:
            found[topic] = None
        except HeadraceError as error:
            log.info("availability is not known", extra={"topic": topic, "cause": str(error)})
            return None
    return found
