"""Reads exactly the records of some offset ranges."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.errors import Cancelled, DeadlineExceeded, FailedPrecondition, HeadraceError, InvalidArgument, Unavailable
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import OffsetRange
from streams.control import STREAM_HEADER
from streams.kafka import (
    KafkaSettings,
    LogEnds,
    as_headrace_error,
    headers_of,
    is_transient,
    kafka_errors,
    log_ends,
    unknown_topic,
)
from streams.offsets import check_ranges, count_offsets, format_ranges

log = logging.getLogger(__name__)

WAIT_S = 60.0
Integers = np.ndarray[Any, np.dtype[np.int64]]
# (topic, partition)
Place = tuple[str, int]

# How often the log's ends are asked for while records are not yet written.
_ASK_EVERY_S = 0.25
_POLL_S = 0.25
_FILL_S = 0.01
# A batch has at most so many records and, by the size of those before, about so many bytes: memory is bounded.
_MAX_BATCH = 10_000
_FIRST_BATCH = 500
_BATCH_BYTES = 16 * 1024 * 1024

_DEFAULTS = {
    "queued.max.messages.kbytes": 32 * 1024,
    "fetch.wait.max.ms": 100,
}


@dataclass(frozen=True)
class Wait:
    """What is not yet written: `written` of `total` offsets are there and may be read."""

    written: int
    total: int


class RecordBatch(list[Message]):
    """Records with what was found out about all of them at once, as arrays of the same length.

    offsets: int64; places: index in the reader's `places`.
    """

    def __init__(self, messages: Sequence[Message], offsets: Integers, places: Integers) -> None:
        super().__init__(messages)
        self.offsets = offsets
        self.places = places

    def where(self, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> RecordBatch:
        """Only the records at which `keep` is true."""
        if keep.all():
            return self
        kept = [message for message, kept in zip(self, keep.tolist(), strict=True) if kept]
        return RecordBatch(kept, self.offsets[keep], self.places[keep])


class RangeReader:
    """Reads the records of ranges, each once, in order within each partition. Use it as a context manager.

    A partition is done when its position is at or behind the range's end: by a record that was read, or by an
    end-of-partition event (transaction markers and compaction leave holes, also at the very end). Never by a count.

    ranges: checked here; raises InvalidArgument (INVALID_RANGE).
    stream_key: only records whose header `headrace-stream` has this value or that have no such header; empty: all.
    wait_s: how long to wait for records that are not yet written, and for a cluster that is away.
    stop: ends the reading with Cancelled.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        ranges: Sequence[OffsetRange],
        *,
        stream_key: str = "",
        wait_s: float = WAIT_S,
        stop: threading.Event | None = None,
    ) -> None:
        check_ranges(ranges)
        self._kafka = kafka
        self._ranges = list(ranges)
        self._stream_key = stream_key.encode()
        self._wait_s = wait_s
        self._stop = stop or threading.Event()
        self._consumer: Consumer | None = None
        self.places = sorted({(one.topic, one.partition) for one in ranges})
        """The partitions that are read: what the numbers of `RecordBatch.places` stand for."""
        self._numbers = {place: number for number, place in enumerate(self.places)}
        self._one_topic = len({topic for topic, _ in self.places}) == 1
        self._partitions = np.array([partition for _, partition in self.places], np.int64)
        # Of the ranges that are being read.
        self._starts: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._positions: dict[Place, int] = {}
        self._end_of_place = np.empty(0, np.int64)  # by number
        self._offsets_before = 0
        self._wait = Wait(0, 0)
        self._batch_size = _FIRST_BATCH
        self.records_read = 0
        """Records handed out so far."""
        self.records_of_others = 0
        """Records in the ranges that belong to other streams."""

    @property
    def records_total(self) -> int:
        """How many records the ranges hold at most: their offsets."""
        return count_offsets(self._ranges)

    @property
    def offsets_done(self) -> int:
        """How many of those offsets are behind us, records or holes."""
        return self._offsets_before + sum(
            min(self._positions[at], end) - self._starts[at] for at, end in self._ends.items()
        )

    def __enter__(self) -> RangeReader:
        self._consumer = self._kafka.consumer({"enable.partition.eof": True}, defaults=_DEFAULTS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def check(self, on_wait: Callable[[Wait], None] | None = None) -> None:
        """Return when every offset of the ranges is in the log and may be read.

        Raises InvalidArgument (EMPTY_STREAM) for ranges without an offset, NotFound (UNKNOWN_TOPIC), FailedPrecondition
        (DATA_EXPIRED) when retention has deleted a part, DeadlineExceeded (DATA_INCOMPLETE) when after `wait_s` a part
        is not written or hidden by an open transaction, Cancelled.
        """
        if not self.records_total:
            raise InvalidArgument(
                error_pb2.REASON_EMPTY_STREAM,
                f"the ranges {format_ranges(self._ranges) or '(none)'} hold no record",
                ranges=format_ranges(self._ranges),
            )
        deadline = time.monotonic() + self._wait_s
        while (missing := self._what_is_missing()) is not None:
            if time.monotonic() > deadline:
                raise missing
            if on_wait is not None:
                on_wait(self._wait)
            if self._stop.wait(_ASK_EVERY_S):
                raise _cancelled()

    def batches(self) -> Iterator[RecordBatch]:
        """The records, in batches of bounded size.

        Raises what `check` raises, for what happens meanwhile, and Unavailable when the cluster is away for `wait_s`.
        """
        for ranges in _rounds(self._ranges):
            self._assign(ranges)
            yield from self._read_round()
            self._offsets_before += count_offsets(ranges)
            self._ends = {}

    def _what_is_missing(self) -> HeadraceError | None:
        """Why it is worth waiting. Raises where it is not."""
        try:
            missing = self._first_missing()
        except Unavailable as error:
            return error
        return missing and _incomplete(*missing, self._wait_s)

    def _first_missing(self) -> tuple[OffsetRange, LogEnds] | None:
        """The first range that is not yet written in full. Raises for those that never will be."""
        topics = sorted({one.topic for one in self._ranges})
        ends = {topic: log_ends(self._kafka, topic) for topic in topics}
        missing, written = None, 0
        for one in self._ranges:
            if one.partition not in ends[one.topic]:
                raise unknown_topic(one.topic, one.partition)
            log_of_it = ends[one.topic][one.partition]
            if one.start < one.end and log_of_it.low > one.start:
                raise _expired(one.topic, one.partition, one.start, log_of_it.low)
            written += max(0, min(log_of_it.stable, one.end) - one.start)
            if log_of_it.stable < one.end:
                missing = missing or (one, log_of_it)
        self._wait = Wait(written, self.records_total)
        return missing

    def _assign(self, ranges: Sequence[OffsetRange]) -> None:
        self._starts = {(one.topic, one.partition): one.start for one in ranges}
        self._ends = {(one.topic, one.partition): one.end for one in ranges}
        self._positions = dict(self._starts)
        self._end_of_place = np.array([self._ends.get(place, 0) for place in self.places], np.int64)
        partitions = [TopicPartition(*at, start) for at, start in self._starts.items()]
        with kafka_errors(self._kafka):
            self._open_consumer.assign(partitions)
            self._open_consumer.resume(partitions)  # a round before may have paused one

    def _read_round(self) -> Iterator[RecordBatch]:
        open_partitions = set(self._ends)
        last_progress = time.monotonic()
        while open_partitions:
            if self._stop.is_set():
                raise _cancelled()
            messages = self._poll()
            if messages:
                batch = self._take(messages)
                self._batch_size = _next_batch_size(batch)
                last_progress = time.monotonic()
                self._close_done(open_partitions)
                if batch:
                    self.records_read += len(batch)
                    yield batch
                    last_progress = time.monotonic()  # the caller's time is not the cluster's
            elif time.monotonic() - last_progress > self._wait_s:
                self._explain_silence()

    def _poll(self) -> list[Message]:
        """Waits for one message and then hardly for more: `consume` would wait for a full batch at the end."""
        messages = self._open_consumer.consume(1, _POLL_S)
        if messages and self._batch_size > 1:
            messages += self._open_consumer.consume(self._batch_size - 1, _FILL_S)
        return messages

    def _take(self, messages: list[Message]) -> RecordBatch:
        """The records of the ranges and of the stream; notes positions and handles events."""
        if any(map(Message.error, messages)):
            messages = [message for message in messages if self._is_record(message)]
        offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        batch = RecordBatch(messages, offsets, self._place_numbers(messages))
        self._advance_all(batch)
        batch = batch.where(batch.offsets < self._end_of_place[batch.places])
        return self._of_stream(batch) if self._stream_key else batch

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        at = _place(message)
        if error.code() == KafkaError._PARTITION_EOF:
            self._advance(at, _offset(message))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._gone(at)
        elif error.fatal() or not is_transient(error):
            raise as_headrace_error(error, self._kafka, topic=at[0])
        return False

    def _advance_all(self, batch: RecordBatch) -> None:
        behind = np.full(len(self.places), -1, np.int64)
        np.maximum.at(behind, batch.places, batch.offsets + 1)
        for place, position in zip(self.places, behind.tolist(), strict=True):
            self._advance(place, position)

    def _place_numbers(self, messages: list[Message]) -> Integers:
        """The number of each record's partition; a call per record and field is what reading costs most."""
        if len(self.places) == 1:
            return np.zeros(len(messages), np.int64)
        if self._one_topic:
            partitions = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
            return np.searchsorted(self._partitions, partitions)
        numbers = self._numbers
        return np.fromiter((numbers[_place(message)] for message in messages), np.int64, len(messages))

    def _of_stream(self, batch: RecordBatch) -> RecordBatch:
        ours = batch.where(np.fromiter(map(self._is_ours, batch), np.bool_, len(batch)))
        self.records_of_others += len(batch) - len(ours)
        return ours

    def _is_ours(self, message: Message) -> bool:
        keys = [value for name, value in headers_of(message) if name == STREAM_HEADER]
        return not keys or keys[0] == self._stream_key

    def _advance(self, at: Place, position: int) -> None:
        if position > self._positions.get(at, position):
            self._positions[at] = position

    def _close_done(self, open_partitions: set[Place]) -> None:
        done = [at for at in open_partitions if self._positions[at] >= self._ends[at]]
        if done:
            open_partitions.difference_update(done)
            self._open_consumer.pause([TopicPartition(*at) for at in done])

    def _explain_silence(self) -> None:
        """Nothing came for `wait_s`: raise why."""
        for one in self._ranges:
            at = one.topic, one.partition
            if at not in self._ends or self._positions[at] >= self._ends[at]:
                continue
            ends = log_ends(self._kafka, one.topic)[one.partition]
            if ends.low > self._positions[at]:
                raise _expired(*at, self._positions[at], ends.low)
            if ends.stable < one.end:
                raise _incomplete(one, ends, self._wait_s)
        raise Unavailable(
            error_pb2.REASON_KAFKA_UNAVAILABLE,
            f"Kafka at {self._kafka.bootstrap_servers} has sent nothing for {self._wait_s:g} s",
            bootstrap_servers=self._kafka.bootstrap_servers,
        )

    def _gone(self, at: Place) -> HeadraceError:
        """Kafka has no record at our position: deleted, or the topic was made anew."""
        topic, partition = at
        position = self._positions[at]
        ends = log_ends(self._kafka, topic).get(partition)
        if ends is None:
            return unknown_topic(topic, partition)
        if ends.low > position:
            return _expired(topic, partition, position, ends.low)
        wanted = OffsetRange(topic=topic, partition=partition, start=position, end=self._ends[at])
        return _incomplete(wanted, ends, self._wait_s)

    @property
    def _open_consumer(self) -> Consumer:
        assert self._consumer is not None, "use the reader in a with block"
        return self._consumer


def _rounds(ranges: Sequence[OffsetRange]) -> Iterator[list[OffsetRange]]:
    """Ranges that can be read at once: at most one of each partition. Empty ones need no reading."""
    by_partition: dict[Place, list[OffsetRange]] = defaultdict(list)
    for one in sorted(ranges, key=lambda one: (one.topic, one.partition, one.start)):
        if one.start < one.end:
            by_partition[one.topic, one.partition].append(one)
    for together in zip_longest(*by_partition.values()):
        yield [one for one in together if one is not None]


def _next_batch_size(batch: Sequence[Message]) -> int:
    if not batch:
        return _FIRST_BATCH
    size = max(1, sum(map(len, batch)) // len(batch))
    return max(1, min(_MAX_BATCH, _BATCH_BYTES // size))


def _place(message: Message) -> Place:
    return message.topic(), message.partition()  # type: ignore[return-value]  # only of errors without a partition


def _offset(message: Message) -> int:
    return message.offset()  # type: ignore[return-value]  # see above


def _expired(topic: str, partition: int, start: int, low: int) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_DATA_EXPIRED,
        f"Kafka has deleted a part of {topic}/{partition}: the range needs offset {start}, and the log begins at "
        f"{low}; send the data again, and keep it longer (retention.ms)",
        topic=topic, partition=partition, start=start, low=low,
    )  # fmt: skip


def _incomplete(one: OffsetRange, ends: LogEnds, wait_s: float) -> DeadlineExceeded:
    why = (
        f"a transaction that is still open hides what is behind offset {ends.stable}"
        if ends.high >= one.end
        else f"the log ends at {ends.high}"
    )
    return DeadlineExceeded(
        error_pb2.REASON_DATA_INCOMPLETE,
        f"{one.topic}/{one.partition} is not written up to offset {one.end} after {wait_s:g} s: {why}",
        topic=one.topic, partition=one.partition, start=one.start, end=one.end, high=ends.high, stable=ends.stable,
    )  # fmt: skip


def _cancelled() -> Cancelled:
    return Cancelled(error_pb2.REASON_CANCELLED, "reading the stream was stopped")
