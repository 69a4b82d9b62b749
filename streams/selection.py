"""Records chosen by topic and time, as ranges of offsets. Resolved once: what is written later is not in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import FieldViolation
from headrace.v1.stream_catalog_pb2 import TopicSelection
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import REQUEST_TIMEOUT_S, KafkaSettings, log_ends, offsets_at, unknown_topic
from streams.offsets import MAX_PARTITION, is_topic_name

# A caller's clock may be ahead of ours by so much before his "now" is called the future.
CLOCK_SKEW_NS = 60 * 10**9
# 0001-01-01 to 9999-12-31, as protobuf has it.
_TIMES_S = range(-62_135_596_800, 253_402_300_800)
_NANOS = range(10**9)


def bad_selection(selection: TopicSelection, now_ns: int, field: str) -> Iterator[FieldViolation]:
    """What is wrong with it whatever Kafka holds; `field` is its path in the request."""
    if not is_topic_name(selection.topic):
        yield FieldViolation(f"{field}.topic", f"{selection.topic[:100]!r} is no name of a topic")
    yield from _bad_partitions(selection.partitions, f"{field}.partitions")
    yield from _bad_since(selection, f"{field}.since")
    times = [name for name in ("start_time", "end_time") if selection.HasField(name)]
    bad = [violation for name in times for violation in _bad_time(getattr(selection, name), now_ns, f"{field}.{name}")]
    yield from bad
    if not bad and selection.HasField("end_time") and _start_ns(selection, now_ns) >= _ns(selection.end_time):
        yield FieldViolation(f"{field}.end_time", "must be later than the start")


def resolve(
    kafka: KafkaSettings, selection: TopicSelection, now_ns: int, timeout_s: float = REQUEST_TIMEOUT_S
) -> list[OffsetRange]:
    """The ranges of a selection without faults, by partition; of partitions without records in it, none.

    A record's time is Kafka's timestamp of it; where those are not in order, everything between the first record that
    is not older than the start and the first that is not older than the end belongs to it. Without an end it ends at
    the last stable offset: an open transaction is not in it. Raises NotFound (UNKNOWN_TOPIC), Unavailable.
    """
    topic = selection.topic
    ends = log_ends(kafka, topic, timeout_s)
    for number in selection.partitions:
        if number not in ends:
            raise unknown_topic(topic, number)
    starts = {number: one.low for number, one in ends.items()}
    stops = {number: one.stable for number, one in ends.items()}
    if selection.HasField("start_time") or selection.HasField("since"):
        starts = offsets_at(kafka, topic, _ms(_start_ns(selection, now_ns)), timeout_s)
    if selection.HasField("end_time"):
        stops = offsets_at(kafka, topic, _ms(_ns(selection.end_time)), timeout_s)
    found = [
        OffsetRange(
            topic=topic,
            partition=number,
            start=max(starts[number], ends[number].low),
            end=min(stops[number], ends[number].stable),
        )
        for number in sorted(set(selection.partitions) or ends)
    ]
    return [one for one in found if one.start < one.end]


def _bad_partitions(partitions: Sequence[int], field: str) -> Iterator[FieldViolation]:
    for index, number in enumerate(partitions):
        if not 0 <= number <= MAX_PARTITION:
            yield FieldViolation(f"{field}[{index}]", f"must not be negative, not {number}")
        elif number in partitions[:index]:
            yield FieldViolation(f"{field}[{index}]", f"{number} is given twice")


def _bad_since(selection: TopicSelection, field: str) -> Iterator[FieldViolation]:
    if not selection.HasField("since"):
        return
    if selection.HasField("start_time"):
        yield FieldViolation(field, "cannot be given with start_time")
    if selection.since.seconds < 0 or selection.since.nanos not in _NANOS or not _since_ns(selection):
        yield FieldViolation(field, "must be longer than 0 s")


def _bad_time(time: Timestamp, now_ns: int, field: str) -> Iterator[FieldViolation]:
    if time.seconds not in _TIMES_S or time.nanos not in _NANOS:
        yield FieldViolation(field, "must be a time from year 1 to 9999")
    elif _ns(time) > now_ns + CLOCK_SKEW_NS:
        yield FieldViolation(field, f"{time.ToJsonString()} is in the future; only what is written can be chosen")


def _start_ns(selection: TopicSelection, now_ns: int) -> int:
    """Since 1970; without a start, before anything."""
    if selection.HasField("since"):
        return now_ns - _since_ns(selection)
    return _ns(selection.start_time) if selection.HasField("start_time") else _TIMES_S.start * 10**9


def _since_ns(selection: TopicSelection) -> int:
    return selection.since.seconds * 10**9 + selection.since.nanos


def _ns(time: Timestamp) -> int:
    return time.seconds * 10**9 + time.nanos


def _ms(time_ns: int) -> int:
    """The first millisecond, as Kafka counts, that is not older. Nothing is older than 1970."""
    return max(0, -(-time_ns // 10**6))
