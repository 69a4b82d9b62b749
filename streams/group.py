"""A member of a consumer group that never loses its place.

The rules, and why (all were seen to matter on a real broker):

- Partitions are given and taken cooperatively, and membership is static by slot: a slot that comes back takes its
  partitions at once, and fences whoever still holds them.
- A partition begins at its committed offset, else where the caller says; never where a reset policy would jump.
- The group metadata is taken when records are polled. Kafka accepts a transactional commit of somebody who is no member
  of the group (generation -1) without a check, so metadata without generation and member id must never commit.
- Records of a partition that is taken away while they are collected are dropped: whoever has it now reads them.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from headrace.errors import Aborted, FailedPrecondition, HeadraceError
from headrace.v1 import error_pb2
from streams.committed import committed
from streams.kafka import KafkaSettings, as_headrace_error, is_transient, kafka_errors

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
LEAVE_TIMEOUT_S = 5.0
_METADATA_MAGIC = b"CGMDv2:"

# Partitions, as their numbers.
PartitionsCallback = Callable[[Sequence[int]], None]
_RebalanceCallback = Callable[[Consumer, list[TopicPartition]], None]

_FIXED: Mapping[str, Any] = {
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    # An end-of-partition event tells the position behind transaction markers; without it the lag of a partition whose
    # last offset is a marker would never be zero.
    "enable.partition.eof": True,
}
_DEFAULTS: Mapping[str, Any] = {
    "session.timeout.ms": 15000,
    "heartbeat.interval.ms": 1000,  # by its answer a member hears of a rebalance
    "max.poll.interval.ms": 300000,
    "queued.max.messages.kbytes": 16384,
}


@dataclass(frozen=True)
class GroupMetadata:
    """Who the reader was in its group when it polled: what a transactional commit is fenced by.

    raw: as librdkafka wrote it; generation: -1 and member_id: "" while it is no member.
    """

    raw: bytes
    group_id: str
    generation: int
    member_id: str

    @property
    def is_member(self) -> bool:
        return self.generation >= 0 and bool(self.member_id)

    @classmethod
    def parse(cls, raw: bytes) -> GroupMetadata:
        """librdkafka's format: magic, generation (int32, little-endian), group and member id ended by zeros, …"""
        if not raw.startswith(_METADATA_MAGIC):
            raise ValueError(f"unknown group metadata: {raw[:16]!r}")
        (generation,) = struct.unpack_from("<i", raw, len(_METADATA_MAGIC))
        group_id, member_id, _ = raw[len(_METADATA_MAGIC) + 4 :].split(b"\0", 2)
        return cls(raw, group_id.decode(), generation, member_id.decode())


class GroupReader:
    """Reads one topic as one member of a group. Use it as a context manager, on one thread.

    group_id: of this inference and no other.
    slot: the member's number in the group, as text; two processes of one slot fence each other. Empty: a dynamic
        member.
    start_offsets: partition → where it begins while the group has committed nothing there; a partition that is missing
        here begins at its first record.
    on_assign, on_revoke, on_lost: called from within `consume`, `keep_alive` and `leave`, with the partitions. In
        `on_revoke` they still are ours: commit what was answered. In `on_lost` they are somebody else's: abort. In both
        cases forget their records that are not answered.
    settings: librdkafka's properties, over ours.
    """

    def __init__(  # noqa: PLR0913
        self,
        kafka: KafkaSettings,
        *,
        group_id: str,
        topic: str,
        slot: str = "",
        start_offsets: Mapping[int, int] | None = None,
        on_assign: PartitionsCallback | None = None,
        on_revoke: PartitionsCallback | None = None,
        on_lost: PartitionsCallback | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._kafka = kafka
        self.topic = topic
        self.group_id = group_id
        self._start_offsets = dict(start_offsets or {})
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}
        membership = {"group.id": group_id} | ({"group.instance.id": slot} if slot else {})
        self._settings = {**_FIXED, **membership, **(settings or {})}
        self._consumer: Consumer | None = None
        self._assigned: set[int] = set()
        self._paused = False
        self._closing = False
        self._collected: list[Message] = []  # polled and not yet handed out
        self._next: dict[int, int] = {}  # partition → the position behind what was polled
        self._failure: HeadraceError | None = None
        self._metadata = GroupMetadata(b"", group_id, -1, "")

    def __enter__(self) -> GroupReader:
        self._closing, self._failure = False, None
        self._consumer = self._kafka.consumer(self._settings, defaults=_DEFAULTS)
        self._consumer.subscribe(
            [self.topic],
            on_assign=self._while_open(self._on_assign),
            on_revoke=self._while_open(self._on_revoke),
            on_lost=self._while_open(self._on_lost),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that are ours now."""
        return frozenset(self._assigned)

    @property
    def metadata(self) -> GroupMetadata:
        """Of the last `consume` or `keep_alive`: the commit of offsets is fenced by it.

        It holds for all records whose partitions no callback has taken away.
        """
        return self._metadata

    def consume(self, max_rows: int, max_wait_s: float) -> list[Message]:
        """Up to `max_rows` records: waits up to `max_wait_s` for the first one, then takes what is at hand.

        All records are of partitions that are ours when it returns, in order within each. Raises FailedPrecondition
        (OFFSET_EXPIRED) where the position is no longer in the log, Aborted (FENCED) when another process has taken the
        slot, NotFound, PermissionDenied; a broker that is away is waited for.
        """
        deadline = time.monotonic() + max_wait_s
        while not self._collected:
            self._collect(1, max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                break
        if 0 < len(self._collected) < max_rows:
            self._collect(max_rows - len(self._collected), 0.0)
        records, self._collected = self._collected[:max_rows], self._collected[max_rows:]
        return records

    def keep_alive(self) -> None:
        """Serve the group (heartbeats, rebalances) without taking records. Call it while a slow batch is waited for,
        more often than `max.poll.interval.ms`; `pause` before, or records pile up here.
        """
        self._collect(1, 0.0)

    def fail(self, error: HeadraceError) -> None:
        """From any thread: the next `consume` or `keep_alive` raises it."""
        self._failure = error

    def pause(self) -> None:
        """Fetch nothing until `resume`; also from partitions that are given to us meanwhile."""
        self._paused = True
        self._open_consumer.pause(self._topic_partitions(self._assigned))

    def resume(self) -> None:
        self._paused = False
        self._open_consumer.resume(self._topic_partitions(self._assigned))

    def committed(self) -> dict[int, int | None]:
        """The group's committed offset of each of our partitions; None where there is none.

        Waits for a pending transaction of the group to be decided. Raises Unavailable (TRANSACTION_UNDECIDED,
        KAFKA_UNAVAILABLE).
        """
        offsets = self._committed(self._assigned)
        return {number: None if offset == OFFSET_INVALID else offset for number, offset in offsets.items()}

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit partition → next offset, without a transaction; of partitions that are not ours, nothing.

        Raises Aborted when the group has moved on: `rewind` and go on.
        """
        offsets = [
            TopicPartition(self.topic, number, at) for number, at in positions.items() if number in self._assigned
        ]
        if not offsets:
            return
        try:
            done = self._open_consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise self._commit_error(error.args[0]) from error
        for partition in done or []:
            if partition.error is not None:
                raise self._commit_error(partition.error)

    def rewind(self) -> None:
        """Go back to the committed offsets in all our partitions: after an abort, or when an outcome was unknown."""
        self._collected.clear()
        if not self._assigned:
            return
        with kafka_errors(self._kafka, group=self.group_id, topic=self.topic):
            starts = self._starts(self._assigned)
            self._open_consumer.incremental_unassign(self._topic_partitions(self._assigned))
            self._assign(starts)

    def lag(self) -> dict[int, int]:
        """Partition → offsets that are written and not yet handed out, by what the last fetches told; asks nobody."""
        lags = {}
        for number in sorted(self._assigned):
            low, high = self._open_consumer.get_watermark_offsets(TopicPartition(self.topic, number), cached=True)
            # Before its first record or its end was polled, a partition that begins at its beginning has no position.
            lags[number] = max(0, high - self._next.get(number, max(0, low))) if high >= 0 else 0
        for record in self._collected:
            lags[_number(record)] += 1
        return lags

    def leave(self) -> None:
        """Give the partitions to the others now and close.

        A static member that only closes keeps them until its session is over, for a process that comes back; use
        this when none will.
        """
        consumer = self._open_consumer
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        consumer.unsubscribe()
        while (self._assigned or consumer.memberid()) and time.monotonic() < deadline:
            consumer.poll(0.05)
        self.close()

    def close(self) -> None:
        """Close without a word to the callbacks: settle the open transaction before. The slot's partitions stay its own
        until the session is over.
        """
        self._closing = True
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.close()
        self._assigned.clear()
        self._collected.clear()

    @property
    def _open_consumer(self) -> Consumer:
        assert self._consumer is not None, "use the reader in a with block"
        return self._consumer

    def _collect(self, count: int, wait_s: float) -> None:
        messages = self._open_consumer.consume(count, wait_s)
        # Current for records that wait for their answer too: whatever a rebalance took from us, a callback has told.
        self._metadata = GroupMetadata.parse(self._open_consumer.consumer_group_metadata())
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        # By identity: to compare an error with None leaves an exception behind that hits whatever is called next.
        if all(message.error() is None for message in messages):
            self._take(messages)
            return
        for message in messages:
            if (error := message.error()) is None:
                self._take([message])
            else:
                self._on_error(error, message)

    def _take(self, records: list[Message]) -> None:
        """Column by column: what is done for each record alone is most of what small ones cost."""
        partitions = cast(list[int], list(map(Message.partition, records)))
        if not self._assigned.issuperset(partitions):
            records = [record for record in records if _number(record) in self._assigned]
            partitions = list(map(_number, records))
        self._collected += records
        last = zip(partitions, map(_offset, records), strict=True)
        self._next.update((number, offset + 1) for number, offset in dict(last).items())

    def _on_error(self, error: KafkaError, message: Message) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._next[_number(message)] = _offset(message)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            raise self._offset_expired(message)
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            log.warning("the group took this member for dead: it polled too late", extra={"group": self.group_id})
        elif _SLOT_TAKEN in error.str():
            raise Aborted(
                error_pb2.REASON_FENCED,
                f"another process has taken over this member of the group {self.group_id!r}",
                group=self.group_id,
            )
        elif error.fatal() or not is_transient(error):
            raise as_headrace_error(error, self._kafka, group=self.group_id, topic=self.topic)

    def _offset_expired(self, message: Message) -> HeadraceError:
        number = _number(message)
        partition = TopicPartition(self.topic, number)
        low, high = self._open_consumer.get_watermark_offsets(partition, timeout=REQUEST_TIMEOUT_S)
        offset = _offset(message)
        return FailedPrecondition(
            error_pb2.REASON_OFFSET_EXPIRED,
            f"the group {self.group_id!r} stands at offset {offset} of {self.topic}/{number}, but the log there "
            f"begins at {low} and ends at {high}; choose where to go on",
            topic=self.topic, partition=number, offset=offset, low=low, high=high, group=self.group_id,
        )  # fmt: skip

    def _commit_error(self, error: KafkaError) -> HeadraceError:
        mapped = as_headrace_error(error, self._kafka, group=self.group_id, topic=self.topic)
        if error.code() in _NOT_OURS_ANYMORE:
            facts: Mapping[str, Any] = mapped.metadata
            return Aborted(error_pb2.REASON_WRONG_STATE, f"the group moved on: {error.str()}", **facts)
        return mapped

    def _while_open(self, callback: _RebalanceCallback) -> _RebalanceCallback:
        """A rebalance that comes up while the consumer closes is confluent-kafka's own: what `callback` would ask, the
        consumer no longer answers, and an error of that would come out of `close` in place of the one that led there.
        """
        return lambda consumer, partitions: None if self._closing else callback(consumer, partitions)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        try:
            with kafka_errors(self._kafka, group=self.group_id, topic=self.topic):
                self._assign(self._starts(numbers))
        except HeadraceError as error:  # not through librdkafka's call: `consume` raises it
            self._failure = error
            consumer.incremental_assign([])  # else confluent-kafka assigns them for us, anywhere
            return
        self._assigned.update(numbers)
        log.info("partitions assigned", extra={"group": self.group_id, "partitions": numbers})
        self._call("assign", numbers)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._drop_collected(numbers)
        # The group is a generation further already, and until this callback returns the partitions are given to nobody
        # else: a commit in it is fenced by the new generation.
        self._metadata = GroupMetadata.parse(consumer.consumer_group_metadata())
        self._call("revoke", numbers)
        self._forget(numbers)
        consumer.incremental_unassign(partitions)
        log.info("partitions revoked", extra={"group": self.group_id, "partitions": numbers})

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._drop_collected(numbers)
        self._forget(numbers)
        self._call("lost", numbers)
        consumer.incremental_unassign(partitions)
        log.warning("partitions lost", extra={"group": self.group_id, "partitions": numbers})

    def _call(self, event: str, numbers: Sequence[int]) -> None:
        callback = self._callbacks[event]
        if callback is None:
            return
        try:
            callback(numbers)
        except HeadraceError as error:
            self._failure = error

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._assigned.discard(number)
            self._next.pop(number, None)

    def _drop_collected(self, numbers: Sequence[int]) -> None:
        self._collected = [message for message in self._collected if message.partition() not in numbers]

    def _assign(self, starts: Mapping[int, int]) -> None:
        partitions = [TopicPartition(self.topic, number, offset) for number, offset in starts.items()]
        self._open_consumer.incremental_assign(partitions)
        if self._paused:
            self._open_consumer.pause(partitions)
        self._next.update({number: offset for number, offset in starts.items() if offset >= 0})

    def _starts(self, numbers: Iterable[int]) -> dict[int, int]:
        """Where to begin in each partition: committed, else as the caller said, else at the first record."""
        return {
            number: offset if offset >= 0 else self._start_offsets.get(number, OFFSET_BEGINNING)
            for number, offset in self._committed(numbers).items()
        }

    def _committed(self, numbers: Iterable[int]) -> dict[int, int]:
        if not (partitions := self._topic_partitions(numbers)):
            return {}
        found = committed(self._open_consumer, self._kafka, self.group_id, partitions, REQUEST_TIMEOUT_S)
        return {one.partition: one.offset for one in found}

    def _topic_partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]


# librdkafka turns this error into the general _FATAL and leaves only its text.
_SLOT_TAKEN = "Static consumer fenced by other consumer"
_NOT_OURS_ANYMORE = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
})  # fmt: skip


def _number(message: Message) -> int:
    number = message.partition()
    assert number is not None
    return number


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
