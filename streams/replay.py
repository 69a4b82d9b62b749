"""Sends records of one topic to another again, each exactly once, however often this is asked for or killed.

What was sent is kept in Kafka: the committed offsets of a group say from where on nothing was sent, and their metadata
says the same for single kinds of records that are further. Both commit in the transaction that sends. There is one
transactional id per topic, and the positions are read after it was taken over: who held it before commits no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition

from headrace.failpoints import fail_at
from headrace.v1.stream_pb2 import OffsetRange
from streams.committed import committed_soon
from streams.kafka import Headers, KafkaSettings, LogEnds, Message, log_ends
from streams.reader import RangeReader
from streams.writer import TransactionalWriter

BATCH_OFFSETS = 500
ASK_TIMEOUT_S = 10.0
# What the topic takes is for the broker to say: it took these records once.
ANY_SIZE = {"message.max.bytes": 1_000_000_000}


@dataclass(frozen=True)
class Copy:
    """A record as it is sent."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Position:
    """Up to where a partition was sent: all of it before `offset`, and of some kinds what is before their own."""

    offset: int
    kinds: dict[str, int] = field(default_factory=dict)

    def of(self, kind: str) -> int:
        """Of one kind, or of all for an empty one."""
        return max(self.offset, self.kinds.get(kind, 0))

    def advance(self, kind: str, offset: int) -> None:
        if kind:
            self.kinds[kind] = max(self.of(kind), offset)
        else:
            self.offset = max(self.offset, offset)
        self.kinds = {name: place for name, place in self.kinds.items() if place > self.offset}


@dataclass(frozen=True)
class Replayed:
    """What a call has done. done: nothing is left before the ends. gone: how many have no copy any more."""

    count: int
    done: bool
    gone: int = 0


class Replayer:
    """The records of `topic`.

    kind_of: what a record is, for those who replay one kind only.
    copy_of: what is sent of it, and where to; None where that cannot be had any more.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        kind_of: Callable[[Message], str],
        copy_of: Callable[[Message], Copy | None],
    ) -> None:
        self._kafka, self._topic = kafka, topic
        self._kind_of, self._copy_of = kind_of, copy_of
        self._name = f"headrace-replay.{topic}"

    def replay(self, ends: Mapping[int, int], kind: str = "", *, within_s: float) -> Replayed:
        """Send what stands before `ends` and was not sent before; of one kind, or all.

        Begins no further batch after `within_s`. Raises TransactionFenced where somebody else replays the topic now,
        NotFound (UNKNOWN_TOPIC), Unavailable, and what TransactionalWriter raises: then call it again.
        """
        deadline = time.monotonic() + within_s
        count = gone = 0
        with TransactionalWriter(self._kafka, self._name, settings=ANY_SIZE) as writer:
            consumer = self._kafka.consumer({"group.id": self._name})
            try:
                logs = log_ends(self._kafka, self._topic)
                positions = self._positions(consumer, logs)
                while left := _left(self._topic, positions, logs, ends, kind):
                    if time.monotonic() > deadline:
                        return Replayed(count, done=False, gone=gone)
                    records = self._read(left, positions, kind)
                    copies = [copy for record in records if (copy := self._copy_of(record)) is not None]
                    self._send(writer, consumer, copies, left, positions, kind)
                    count, gone = count + len(copies), gone + len(records) - len(copies)
            finally:
                consumer.close()
        return Replayed(count, done=True, gone=gone)

    def _send(
        self, writer: TransactionalWriter, consumer: Consumer, copies: list[Copy], ranges: list[OffsetRange],
        positions: dict[int, Position], kind: str,
    ) -> None:  # fmt: skip
        """One transaction."""
        writer.begin()
        for copy in copies:
            writer.produce(copy.topic, copy.key, copy.value, copy.headers, copy.partition)
        fail_at("replay_after_produce")
        for one in ranges:
            positions[one.partition].advance(kind, one.end)
        writer.send_own_offsets(
            [_committed(self._topic, one.partition, positions[one.partition]) for one in ranges], consumer
        )
        writer.commit()
        fail_at("replay_after_commit")

    def _read(self, ranges: list[OffsetRange], positions: Mapping[int, Position], kind: str) -> list[Message]:
        found: list[Message] = []
        with RangeReader(self._kafka, ranges, wait_s=ASK_TIMEOUT_S) as reader:
            for batch in reader.batches():
                for record, offset in zip(batch, batch.offsets.tolist(), strict=True):
                    what = self._kind_of(record)
                    partition = record.partition()
                    assert partition is not None
                    if (not kind or what == kind) and offset >= positions[partition].of(what):
                        found.append(record)
        return found

    def _positions(self, consumer: Consumer, logs: Mapping[int, LogEnds]) -> dict[int, Position]:
        """What was committed; a transaction that is being decided is waited for."""
        asked = [TopicPartition(self._topic, number) for number in logs]
        positions = {}
        for one in committed_soon(consumer, self._kafka, self._name, asked, ASK_TIMEOUT_S):
            kinds = json.loads(one.metadata) if one.offset >= 0 and one.metadata else {}
            positions[one.partition] = Position(max(one.offset, logs[one.partition].low), kinds)
        return positions


def _left(
    topic: str, positions: Mapping[int, Position], logs: Mapping[int, LogEnds], ends: Mapping[int, int], kind: str
) -> list[OffsetRange]:
    """The next offsets of each partition."""
    left = []
    for number, position in positions.items():
        start = position.of(kind)
        end = min(ends.get(number, 0), logs[number].stable, start + BATCH_OFFSETS)
        if start < end:
            left.append(OffsetRange(topic=topic, partition=number, start=start, end=end))
    return left


def _committed(topic: str, partition: int, position: Position) -> TopicPartition:
    metadata = json.dumps(position.kinds) if position.kinds else ""
    return TopicPartition(topic, partition, position.offset, metadata=metadata)
