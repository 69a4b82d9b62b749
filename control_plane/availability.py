"""Whether Kafka still holds the records of streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import HeadraceError, NotFound
from headrace.v1 import stream_pb2
from streams.control import topics_of
from streams.kafka import KafkaSettings, LogEnds, log_ends, topic_ids

log = logging.getLogger(__name__)

# A broker that is away makes a list slow, not fail.
ASK_TIMEOUT_S = 5.0

# From bad to good: what is gone for ever weighs more than what may come.
_WORST_FIRST = (
    stream_pb2.AVAILABILITY_UNSPECIFIED,
    stream_pb2.AVAILABILITY_EXPIRED,
    stream_pb2.AVAILABILITY_PARTLY_EXPIRED,
    stream_pb2.AVAILABILITY_NOT_WRITTEN,
    stream_pb2.AVAILABILITY_BLOCKED,
    stream_pb2.AVAILABILITY_AVAILABLE,
)


@dataclass(frozen=True)
class Topic:
    """A topic as it is now. ends: partition → where its log begins and ends."""

    id: str
    ends: Mapping[int, LogEnds]


# Name to the topic; None where there is none, no entry where Kafka does not tell.
Topics = Mapping[str, Topic | None]


async def add_availability(kafka: KafkaSettings, streams: Sequence[stream_pb2.Stream]) -> None:
    """Fill in `availability`; it stays UNSPECIFIED while the broker does not answer."""
    names = {name for stream in streams for name in topics_of(stream)}
    topics = await asyncio.to_thread(_topics, kafka, sorted(names))
    for stream in streams:
        stream.availability = availability_of(stream, topics)


def availability_of(stream: stream_pb2.Stream, topics: Topics) -> stream_pb2.Availability:
    """What the topics say of a stream. An open-ended one is there for as long as its topics are."""
    found = [*_of_ranges(stream, topics), *(_of_topic(stream, name, topics) for name in stream.open_topics)]
    if not found:
        return stream_pb2.AVAILABILITY_AVAILABLE
    worst = min(found, key=_WORST_FIRST.index)
    if worst == stream_pb2.AVAILABILITY_EXPIRED and any(one != worst for one in found):
        return stream_pb2.AVAILABILITY_PARTLY_EXPIRED
    return worst


def _of_ranges(stream: stream_pb2.Stream, topics: Topics) -> Iterable[stream_pb2.Availability]:
    for one in (*stream.ranges, *stream.unsupervised_ranges):
        if one.start < one.end:
            whole = _of_topic(stream, one.topic, topics)
            topic = topics.get(one.topic)
            yield whole if topic is None or whole != stream_pb2.AVAILABILITY_AVAILABLE else _of_range(one, topic)


def _of_topic(stream: stream_pb2.Stream, name: str, topics: Topics) -> stream_pb2.Availability:
    """Whether it is still the topic that was announced."""
    if name not in topics:
        return stream_pb2.AVAILABILITY_UNSPECIFIED
    topic, announced = topics[name], dict(stream.topic_ids).get(name)
    if topic is None or (announced and announced != topic.id):
        return stream_pb2.AVAILABILITY_EXPIRED
    return stream_pb2.AVAILABILITY_AVAILABLE


def _of_range(one: stream_pb2.OffsetRange, topic: Topic) -> stream_pb2.Availability:
    ends = topic.ends.get(one.partition)
    if ends is None or ends.low >= one.end:
        return stream_pb2.AVAILABILITY_EXPIRED
    if ends.low > one.start:
        return stream_pb2.AVAILABILITY_PARTLY_EXPIRED
    if ends.high < one.end:
        return stream_pb2.AVAILABILITY_NOT_WRITTEN
    if ends.stable < one.end:
        return stream_pb2.AVAILABILITY_BLOCKED
    return stream_pb2.AVAILABILITY_AVAILABLE


def _topics(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, Topic | None]:
    """Nothing of any topic when the broker does not answer; nothing of one that it does not tell of."""
    try:
        ids = topic_ids(kafka, names, ASK_TIMEOUT_S)
    except HeadraceError as error:
        log.info("availability is not known", extra={"cause": str(error)})
        return {}
    found: dict[str, Topic | None] = {}
    for name in names:
        try:
            found[name] = Topic(ids[name], log_ends(kafka, name, ASK_TIMEOUT_S)) if name in ids else None
        except NotFound:  # deleted at this moment
            found[name] = None
        except HeadraceError as error:
            log.info("availability is not known", extra={"topic": name, "cause": str(error)})
    return found
