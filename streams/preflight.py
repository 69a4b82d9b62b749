"""Whether ranges can be read: what Kafka says about them before, while and after they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headrace.errors import DeadlineExceeded, FailedPrecondition
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import KafkaSettings, LogEnds, log_ends, topic_ids, unknown_topic

# So many topics are asked about at once.
_AT_ONCE = 8


@dataclass(frozen=True)
class Wait:
    """What is not yet written: `written` of `total` offsets are there and may be read; `why` names the first range."""

    written: int
    total: int
    why: str = field(default="", compare=False)


class Preflight:
    """What Kafka says about some topics, which must stay the ones that they were.

    announced: topic → the id that it had when its offsets were announced. The others are held to the id that they have
        when they are first asked about.
    wait_s: only said in errors.
    """

    def __init__(
        self, kafka: KafkaSettings, topics: Iterable[str], announced: Mapping[str, str], wait_s: float
    ) -> None:
        self._kafka = kafka
        self._topics = sorted(set(topics))
        self._ids = {topic: announced[topic] for topic in self._topics if announced.get(topic)}
        self._wait_s = wait_s

    @property
    def knows_topics(self) -> bool:
        """Whether every topic has an id that it is held to."""
        return len(self._ids) == len(self._topics)

    def check_topics(self) -> None:
        """Raise NotFound (UNKNOWN_TOPIC) for a topic that is not there, FailedPrecondition (TOPIC_RECREATED) for one
        that was made anew; Unavailable, PermissionDenied.
        """
        found = topic_ids(self._kafka, self._topics)
        for topic in self._topics:
            if topic not in found:
                raise unknown_topic(topic)
            if self._ids.setdefault(topic, found[topic]) != found[topic]:
                raise _recreated(topic, self._ids[topic], found[topic])

    def first_missing(self, ranges: Sequence[OffsetRange]) -> tuple[DeadlineExceeded | None, Wait]:
        """What is worth a wait: the first of the ranges that is not yet written in full, and how much of all is.

        Raises for those that never will be: what `check_topics` raises, and FailedPrecondition (DATA_EXPIRED).
        """
        self.check_topics()
        ends = self._log_ends({one.topic for one in ranges})
        missing, written = None, 0
        for one in ranges:
            if one.partition not in ends[one.topic]:
                raise unknown_topic(one.topic, one.partition)
            if one.start == one.end:
                continue  # Nothing of it has to be there, wherever it is.
            log = ends[one.topic][one.partition]
            if log.low > one.start:
                raise _expired(one, log.low)
            written += max(0, min(log.stable, one.end) - one.start)
            if log.stable < one.end:
                missing = missing or self._incomplete(one, log)
        why = "" if missing is None else _why(missing)
        return missing, Wait(written, sum(one.end - one.start for one in ranges), why)

    def _log_ends(self, topics: Iterable[str]) -> dict[str, dict[int, LogEnds]]:
        asked = sorted(topics)
        with ThreadPoolExecutor(min(_AT_ONCE, len(asked)) or 1, thread_name_prefix="log-ends") as pool:
            return dict(zip(asked, pool.map(lambda topic: log_ends(self._kafka, topic), asked), strict=True))

    def _incomplete(self, one: OffsetRange, ends: LogEnds) -> DeadlineExceeded:
        why = (
            f"a transaction that is still open hides what is behind offset {ends.stable}"
            if ends.high >= one.end
            else f"the log ends at {ends.high}"
        )
        return DeadlineExceeded(
            error_pb2.REASON_DATA_INCOMPLETE,
            f"{one.topic}/{one.partition} is not written up to offset {one.end} after {self._wait_s:g} s: {why}",
            topic=one.topic, partition=one.partition, start=one.start, end=one.end, high=ends.high, stable=ends.stable,
        )  # fmt: skip


def _why(missing: DeadlineExceeded) -> str:
    """`digits/0 is written up to offset 5 of 10`."""
    said = missing.metadata
    hidden = int(said["high"]) >= int(said["end"])
    place = f"{said['topic']}/{said['partition']}"
    end = f"a transaction that is open hides what is behind offset {said['stable']}" if hidden else ""
    return f"{place} is to be written up to offset {said['end']}; {end or 'it ends at ' + said['high']}"


def _expired(one: OffsetRange, low: int) -> FailedPrecondition:
    part = "all" if low >= one.end else "a part"
    return FailedPrecondition(
        error_pb2.REASON_DATA_EXPIRED,
        f"Kafka has deleted {part} of {one.topic}/{one.partition}: the range needs the offsets {one.start} to "
        f"{one.end}, and the log begins at {low}; send the data again, and keep it longer (retention.ms)",
        topic=one.topic, partition=one.partition, start=one.start, end=one.end, low=low,
    )  # fmt: skip


def _recreated(topic: str, announced: str, found: str) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_TOPIC_RECREATED,
        f"the topic {topic!r} was deleted and made anew: its offsets are other records now (its id was {announced} "
        f"when the stream was announced, and is {found}); send the data again",
        topic=topic, announced=announced, found=found,
    )  # fmt: skip
