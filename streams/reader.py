"""Reads exactly the records of some offset ranges."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.errors import Cancelled, HeadraceError, InvalidArgument, Unavailable
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import OffsetRange
from streams.control import STREAM_HEADER
from streams.kafka import KafkaSettings, as_headrace_error, headers_of, is_transient, kafka_errors
from streams.offsets import check_ranges, count_offsets, format_ranges
from streams.plan import Booleans, Integers, Place, plans_of
from streams.preflight import Preflight, Wait

log = logging.getLogger(__name__)

WAIT_S = 60.0

# How often the log's ends are asked for while records are not yet written.
_ASK_EVERY_S = 0.25
# How often Kafka is asked what the matter is while it sends nothing: it does not tell of a topic that is deleted.
_LOOK_EVERY_S = 1.0
# A cluster that answers and has everything may take so long to send it: it, or this machine, is busy.
_BUSY_S = 30.0
_POLL_S = 0.25
_FILL_S = 0.01
# A batch has at most so many records and, by the size of those before, about so many bytes: memory is bounded.
_MAX_BATCH = 10_000
_FIRST_BATCH = 500
_BATCH_BYTES = 8 * 1024 * 1024
# By the size of so many of them, as each takes a call.
_SIZED = 500
# Records between two ranges are read and dropped up to about so many bytes. A seek costs what is fetched ahead, and the
# answer to a fetch that is under way.
_GAP_BYTES = 4 * 1024 * 1024
_FIRST_RECORD_BYTES = 1000

# What exact reading rests on; no option changes it.
_EXACT = {
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
}
_DEFAULTS = {
    "queued.max.messages.kbytes": 32 * 1024,
    # The queue overshoots its bound by an answer; librdkafka's default is 50 MB.
    "fetch.max.bytes": 16 * 1024 * 1024,
    # Ranges are read to their end and no further: at the end of the log a fetch that waits only delays the next seek.
    "fetch.wait.max.ms": 10,
}


class Run(NamedTuple):
    """Records of one partition that follow each other in a batch: `[start, stop)`; place as in `RecordBatch.places`."""

    place: int
    start: int
    stop: int


class RecordBatch(list[Message]):
    """Records with what was found out about all of them at once, as arrays of the same length.

    offsets: int64; places: index in the reader's `places`.
    """

    def __init__(self, messages: Sequence[Message], offsets: Integers, places: Integers) -> None:
        super().__init__(messages)
        self.offsets = offsets
        self.places = places

    def where(self, keep: Booleans) -> RecordBatch:
        """Only the records at which `keep` is true."""
        if keep.all():
            return self
        kept = [message for message, kept in zip(self, keep.tolist(), strict=True) if kept]
        return RecordBatch(kept, self.offsets[keep], self.places[keep])


class RangeReader:
    """Reads the records of ranges, each once, in order within each partition. Use it as a context manager.

    A partition is done when its position is at or behind the end of its last range: by a record that was read, or by an
    end-of-partition event (transaction markers and compaction leave holes, also at the very end). Never by a count.

    ranges: checked here; raises InvalidArgument (INVALID_RANGE).
    topic_ids: topic → the id that it had when the ranges were announced, where known. A topic that is made anew while
        it is read is found out in any case.
    stream_key: only records whose header `headrace-stream` has this value or that have no such header; empty: all.
    wait_s: how long to wait for records that are not yet written, and for a cluster that is away.
    stop: ends the reading with Cancelled.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        ranges: Sequence[OffsetRange],
        *,
        topic_ids: Mapping[str, str] | None = None,
        stream_key: str = "",
        wait_s: float = WAIT_S,
        stop: threading.Event | None = None,
    ) -> None:
        check_ranges(ranges)
        self._kafka = kafka
        self._ranges = list(ranges)
        self._preflight = Preflight(kafka, {one.topic for one in ranges}, topic_ids or {}, wait_s)
        self._stream_key = stream_key.encode()
        self._wait_s = wait_s
        self._stop = stop or threading.Event()
        self._consumer: Consumer | None = None
        self.places: list[Place] = sorted({(one.topic, one.partition) for one in ranges})
        """The partitions that are read: what the numbers of `RecordBatch.places` stand for."""
        self._numbers = {place: number for number, place in enumerate(self.places)}
        self._one_topic = len({topic for topic, _ in self.places}) == 1
        self._partitions = np.array([partition for _, partition in self.places], np.int64)
        self._plans = plans_of(ranges)
        self._positions = {place: plan.start for place, plan in self._plans.items()}
        self._open: set[Place] = set(self._plans)
        self._busy_s = _BUSY_S
        self._last_progress = time.monotonic()
        self._last_look = self._last_progress
        self._batch_size = _FIRST_BATCH
        self._record_bytes = _FIRST_RECORD_BYTES
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
        return sum(plan.count_before(self._positions[place]) for place, plan in self._plans.items())

    def has_passed(self, place: Place, offset: int) -> bool:
        """Whether no record of the partition up to `offset`, inclusive, is still to come."""
        return place not in self._open or self._positions[place] > offset

    def __enter__(self) -> RangeReader:
        self._consumer = self._kafka.consumer(_EXACT, defaults=_DEFAULTS)
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
        (DATA_EXPIRED) when retention has deleted a part, (TOPIC_RECREATED) when the topic is another one than was
        announced, DeadlineExceeded (DATA_INCOMPLETE) when after `wait_s` a part is not written or hidden by an open
        transaction, Unavailable, Cancelled.
        """
        if not self.records_total:
            raise InvalidArgument(
                error_pb2.REASON_EMPTY_STREAM,
                f"the ranges {format_ranges(self._ranges) or '(none)'} hold no record",
                ranges=format_ranges(self._ranges),
            )
        deadline = time.monotonic() + self._wait_s
        wait = Wait(0, self.records_total)
        while True:
            missing, wait = self._what_is_missing(self._ranges, wait)
            if missing is None:
                return
            if time.monotonic() > deadline:
                raise missing
            if on_wait is not None:
                on_wait(wait)
            self._pause(_ASK_EVERY_S)

    def batches(self) -> Iterator[RecordBatch]:
        """The records, in batches of bounded size. Once.

        Raises what `check` raises, for what happens meanwhile, and Unavailable when the cluster is away for `wait_s`.
        """
        if not self._open:
            return
        if not self._preflight.knows_topics:
            self._check_topics()
        self._assign()
        while self._open:
            self._raise_if_stopped()
            batch = self._take(self._poll())
            if batch:
                self.records_read += len(batch)
                yield batch
                self._last_progress = time.monotonic()  # the caller's time is not the cluster's
        # Kafka goes on without a word when a topic is made anew behind our position.
        self._check_topics()

    def _what_is_missing(self, ranges: Sequence[OffsetRange], wait: Wait) -> tuple[HeadraceError | None, Wait]:
        """Why it is worth waiting, and for how much; as much as before (`wait`) where nobody answers.

        Raises where it is not.
        """
        try:
            return self._preflight.first_missing(ranges)
        except Unavailable as error:
            return error, wait

    def _check_topics(self) -> None:
        """Raises what `Preflight.check_topics` raises; Unavailable only after `wait_s`."""
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                return self._preflight.check_topics()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            self._pause(_ASK_EVERY_S)

    def _assign(self) -> None:
        with kafka_errors(self._kafka):
            self._open_consumer.assign([TopicPartition(*place, at) for place, at in self._positions.items()])
        self._last_progress = self._last_look = time.monotonic()

    def _poll(self) -> list[Message]:
        """Waits for one message and then hardly for more: `consume` would wait for a full batch at the end."""
        messages = self._open_consumer.consume(1, _POLL_S)
        if messages and self._batch_size > 1:
            with _no_collection():
                messages += self._open_consumer.consume(self._batch_size - 1, _FILL_S)
        return messages

    def _take(self, messages: list[Message]) -> RecordBatch:
        """The records of the ranges and of the stream; notes positions and handles events."""
        events: list[Message] = []
        if any(map(Message.error, messages)):
            events = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
        batch = self._batch_of(messages)
        self._plan_next_batch(batch)
        batch = self._wanted(batch)
        for event in events:  # after the records that came with them: they count from our position
            self._heed(event)
        self._go_on()
        return self._of_stream(batch) if self._stream_key else batch

    def _batch_of(self, messages: list[Message]) -> RecordBatch:
        offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        return RecordBatch(messages, offsets, self._place_numbers(messages))

    def _plan_next_batch(self, batch: RecordBatch) -> None:
        if batch:
            some = batch[:: max(1, len(batch) // _SIZED)]
            self._record_bytes = max(1, sum(map(len, some)) // len(some))
            self._batch_size = max(1, min(_MAX_BATCH, _BATCH_BYTES // self._record_bytes))

    def _wanted(self, batch: RecordBatch) -> RecordBatch:
        """The records that are in a range; the positions are behind all of them."""
        keep = np.ones(len(batch), np.bool_)
        for place, start, stop in runs_of(batch.places):
            keep[start:stop] = self._plans[self.places[place]].wanted(batch.offsets[start:stop])
            self._advance(self.places[place], int(batch.offsets[stop - 1]) + 1)
        return batch.where(keep)

    def _heed(self, event: Message) -> None:
        """Raises for errors that will not heal."""
        error, place = event.error(), _place(event)
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            self._advance(place, _offset(event))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._return_to_position(place)
        elif error.fatal() or not is_transient(error):
            raise as_headrace_error(error, self._kafka, topic=place[0])

    def _go_on(self) -> None:
        """Closes partitions that are done, seeks over large gaps, and asks what the matter is when nothing comes."""
        for place in [place for place in self._open if self._is_done(place)]:
            self._open.discard(place)
            self._open_consumer.pause([TopicPartition(*place)])
        for place in self._open:
            self._skip_gap(place)
        now = time.monotonic()
        if self._open and now - max(self._last_progress, self._last_look) > min(_LOOK_EVERY_S, self._wait_s):
            self._last_look = now
            self._explain_silence(now - self._last_progress)

    def _is_done(self, place: Place) -> bool:
        return self._positions[place] >= self._plans[place].end

    def _skip_gap(self, place: Place) -> None:
        """Seeks to the next range unless reading on is quicker."""
        position = self._positions[place]
        wanted = self._plans[place].next_wanted(position)
        if (wanted - position) * self._record_bytes > _GAP_BYTES:
            self._seek(place, wanted)

    def _return_to_position(self, place: Place) -> None:
        """Kafka had nothing at the position. Raises where that is for good; else goes on from the next range."""
        remaining = [one for one in self._remaining() if (one.topic, one.partition) == place]
        if not remaining:
            return  # it was read to its end meanwhile
        missing, _ = self._what_is_missing(remaining, Wait(0, 0))
        if missing is not None and not isinstance(missing, Unavailable):
            raise missing
        self._seek(place, remaining[0].start)

    def _seek(self, place: Place, position: int) -> None:
        with kafka_errors(self._kafka, topic=place[0]):
            # Not `seek`: a partition at whose position Kafka had nothing is stopped, and refuses it (_STATE).
            self._open_consumer.incremental_unassign([TopicPartition(*place)])
            self._open_consumer.incremental_assign([TopicPartition(*place, position)])
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

    def _advance(self, place: Place, position: int) -> None:
        if position > self._positions[place]:
            self._positions[place] = position
            self._last_progress = time.monotonic()

    def _remaining(self) -> list[OffsetRange]:
        """What is still to be read, of each partition from its position on as one range."""
        return [
            OffsetRange(topic=topic, partition=number, start=plan.next_wanted(position), end=plan.end)
            for (topic, number), plan in self._plans.items()
            if (position := self._positions[topic, number]) < plan.end
        ]

    def _explain_silence(self, silent_s: float) -> None:
        """Raises what is for good at once, and what may pass when it has not passed in time."""
        missing, _ = self._what_is_missing(self._remaining(), Wait(0, 0))
        if missing is not None and silent_s > self._wait_s:
            raise missing
        if silent_s > max(self._wait_s, self._busy_s):
            raise Unavailable(
                error_pb2.REASON_KAFKA_UNAVAILABLE,
                f"Kafka at {self._kafka.bootstrap_servers} says that all records are there, and has sent none for "
                f"{silent_s:.0f} s",
                bootstrap_servers=self._kafka.bootstrap_servers,
            )

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Cancelled(error_pb2.REASON_CANCELLED, "reading the stream was stopped")

    @property
    def _open_consumer(self) -> Consumer:
        assert self._consumer is not None, "use the reader in a with block"
        return self._consumer


@contextmanager
def _no_collection() -> Iterator[None]:
    """Thousands of records at once would start Python's collector a dozen times, and none of them is garbage.

    It made reading cost half as much again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def runs_of(places: Integers) -> Iterator[Run]:
    """The stretches of equal numbers. Kafka sends many records of one partition on end."""
    bounds = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    for start, stop in pairwise(bounds):
        if start < stop:
            yield Run(int(places[start]), start, stop)


def _place(message: Message) -> Place:
    return message.topic(), message.partition()  # type: ignore[return-value]  # only of errors without a partition


def _offset(message: Message) -> int:
    return message.offset()  # type: ignore[return-value]  # see above
