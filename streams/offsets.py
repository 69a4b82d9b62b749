"""Ranges of offsets, half-open: `[start, end)`; as text `topic:partition:start:end`, joined by commas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import OffsetRange

# Kafka's rule for names.
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
MAX_PARTITION = 2**31 - 1
MAX_OFFSET = 2**63 - 1


def is_topic_name(text: str) -> bool:
    """Whether Kafka takes it for the name of a topic."""
    return _TOPIC.fullmatch(text) is not None and text not in (".", "..")


def parse_ranges(text: str) -> list[OffsetRange]:
    """The ranges of a text such as `mnist:0:0:70000,mnist:1:0:500`, checked.

    The fourth field is the exclusive end offset, whatever the paper calls it. Raises InvalidArgument (INVALID_RANGE).
    """
    ranges, open_topics = parse_topics(text)
    if open_topics:
        raise _malformed(open_topics[0])
    return ranges


def parse_topics(text: str) -> tuple[list[OffsetRange], list[str]]:
    """The ranges of a text, and the bare topic names in it: streams without an end."""
    ranges, open_topics = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if _TOPIC.fullmatch(part):
            open_topics.append(part)
        else:
            ranges.append(_parse_range(part))
    check_ranges(ranges)
    return ranges, open_topics


def format_ranges(ranges: Iterable[OffsetRange]) -> str:
    """`topic:partition:start:end`, joined by commas, as Kafka-ML writes it."""
    return ",".join(f"{r.topic}:{r.partition}:{r.start}:{r.end}" for r in ranges)


def check_ranges(ranges: Sequence[OffsetRange], field: str = "ranges") -> None:
    """Raise InvalidArgument (INVALID_RANGE) unless the ranges are ranges: none reversed, negative or overlapping.

    The error names every bad range, as `field[index]`. A range of no offset (`start == end`) is a range.
    """
    bad = [
        FieldViolation(f"{field}[{index}]", problem)
        for index, one in enumerate(ranges)
        if (problem := _problem(one)) is not None
    ]
    bad += _overlaps(ranges, field)
    if bad:
        first = ranges[int(bad[0].field.removeprefix(f"{field}[").removesuffix("]"))]
        raise InvalidArgument(
            error_pb2.REASON_INVALID_RANGE,
            "; ".join(violation.description for violation in bad[:3]),
            fields=bad,
            topic=first.topic,
            partition=first.partition,
            start=first.start,
            end=first.end,
        )


def count_offsets(ranges: Iterable[OffsetRange]) -> int:
    """How many offsets there are, which is how many records there are at most."""
    return sum(r.end - r.start for r in ranges)


def _problem(one: OffsetRange) -> str | None:
    text = format_ranges([one])
    if not is_topic_name(one.topic):
        return f"{one.topic!r} is no name of a topic"
    if one.partition < 0 or one.start < 0 or one.end < 0:
        return f"{text} has a negative number"
    if one.end < one.start:
        return f"{text} ends before it starts; the last number is the exclusive end offset"
    return None


def _overlaps(ranges: Sequence[OffsetRange], field: str) -> list[FieldViolation]:
    order = sorted(
        (index for index, one in enumerate(ranges) if one.start < one.end),
        key=lambda index: (ranges[index].topic, ranges[index].partition, ranges[index].start),
    )
    violations = []
    for first, second in pairwise(order):
        a, b = ranges[first], ranges[second]
        if (a.topic, a.partition) == (b.topic, b.partition) and b.start < a.end:
            problem = f"{format_ranges([b])} overlaps {format_ranges([a])}"
            violations.append(FieldViolation(f"{field}[{second}]", problem))
    return violations


def _parse_range(part: str) -> OffsetRange:
    topic, *numbers = part.rsplit(":", 3)
    if len(numbers) != 3 or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise _malformed(part)
    partition, start, end = map(int, numbers)
    if partition > MAX_PARTITION or max(start, end) > MAX_OFFSET or min(partition, start, end) < -MAX_PARTITION:
        raise _malformed(part)
    return OffsetRange(topic=topic, partition=partition, start=start, end=end)


def _malformed(part: str) -> InvalidArgument:
    return InvalidArgument(
        error_pb2.REASON_INVALID_RANGE,
        f"{part[:200]!r} is no range; a range is topic:partition:start:end, where end is the offset behind the last",
        range=part[:200],
    )
