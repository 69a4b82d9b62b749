"""Producers of streams: they know which offsets their records got, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import HeadraceError
from headrace.v1 import stream_pb2
from streams.delivery import (
    DELIVERY_TIMEOUT_S,
    FLUSH_GRACE_S,
    POLL_EVERY,
    OpenProducer,
    Tally,
    check_size,
    enqueue,
    flush,
    message_limit,
    not_delivered,
)
from streams.kafka import Headers, KafkaSettings, kafka_errors
from streams.runs import Lane

# A record: (value, key, partition).
Record = tuple[bytes | None, bytes | None, int]
# Runs are announced in a control message; they may take half of what a record may have.
_ANNOUNCED_BYTES = 500_000
_NUMBERS_BYTES = 30

BOUNDED: Mapping[str, Any] = {
    # librdkafka's own bound is 1 GiB. What does not fit makes `send` wait.
    "queue.buffering.max.kbytes": 64 * 1024,
    "queue.buffering.max.messages": 100_000,
    # A batch is filled; a flush does not wait for it.
    "linger.ms": 20,
}


class RecordProducer(Protocol):
    """What sends the records of a stream and then its announcement: with transactions or without."""

    def __enter__(self) -> RecordProducer: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def records(self) -> StreamRecords:
        """The records so far."""

    def send_all(self, records: Iterable[Record], topic: str | None = None, *, marked: bool = False) -> None: ...
    def flush(self, timeout_s: float | None = None, on_turn: Callable[[], None] | None = None) -> None: ...
    def announce(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None: ...


class StreamRecords:
    """The records of one stream, in one topic or several: it gives them to a client and keeps book of their offsets.

    headers: on every record; with `when_shared` only on `marked` ones, and on all from when somebody else was seen
        writing to the same partitions. A header costs as much as all the rest of sending a small record, and nobody
        needs it where `ranges` are exact.
    """

    def __init__(self, kafka: KafkaSettings, headers: Headers | None = None, *, when_shared: bool = False) -> None:
        self._kafka = kafka
        self._headers = headers
        self._when_shared = when_shared
        self._limit_bytes = message_limit(kafka)
        self._tally = Tally()
        self._lanes: dict[str, _Lanes] = {}

    @property
    def sent(self) -> int:
        """Records given to librdkafka."""
        return self._tally.sent

    @property
    def delivered(self) -> int:
        """Records that Kafka has confirmed, as far as their reports were served."""
        return sum(lane.delivered for lanes in self._lanes.values() for lane in lanes.all())

    @property
    def failure(self) -> KafkaError | None:
        """Why a record was refused; None while none was."""
        return self._tally.failure

    def check_size(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Raise InvalidArgument where the record is too large to be sent."""
        check_size(topic, key, value, self._limit_bytes)

    def delivered_to(self, topic: str) -> int:
        """Records of one topic that Kafka has confirmed."""
        return sum(lane.delivered for lane in self._lanes_of(topic))

    def ranges(self, topic: str, most: int | None = None) -> list[stream_pb2.OffsetRange]:
        """The runs of confirmed offsets, of each partition at most so many (as many as a control message can hold)."""
        lanes = self._lanes_of(topic)
        most = most or self._most(topic)
        return [one for lane in lanes for one in lane.ranges(most)]

    def are_exact(self, topic: str, most: int | None = None) -> bool:
        """Whether `ranges` hold these records alone: else readers need the header to tell them apart."""
        most = most or self._most(topic)
        return all(lane.run_count <= most for lane in self._lanes_of(topic))

    def _most(self, topic: str) -> int:
        return max(1, _ANNOUNCED_BYTES // (len(topic) + _NUMBERS_BYTES) // max(1, len(self._lanes_of(topic))))

    def _lanes_of(self, topic: str) -> list[Lane]:
        return self._lanes[topic].all() if topic in self._lanes else []

    def send_all(self, producer: Producer, topic: str, records: Iterable[Record], *, marked: bool = False) -> None:
        """Give the records to the client; wait while too many are unconfirmed.

        Raises InvalidArgument where one is too large (it is not sent, those before it are), `not_delivered` as soon as
        it is known that an earlier one was refused.
        """
        reports = self._lanes.setdefault(topic, _Lanes(topic, self._tally)).reports
        records = iter(records)
        sent = POLL_EVERY
        while sent == POLL_EVERY:
            headers = self._headers if marked else self._headers_now()
            sent = self._send_some(producer, topic, islice(records, POLL_EVERY), reports, headers)
            self._serve(producer, topic)

    def _send_some(
        self,
        producer: Producer,
        topic: str,
        records: Iterable[Record],
        reports: _Reports,
        headers: Headers | None,
    ) -> int:
        """How many were sent. What is done per record here is most of what sending costs."""
        produce, sent = producer.produce, 0
        try:
            for value, key, partition in records:
                try:
                    # By position: names cost a fifth of the call.
                    produce(topic, value, key, partition, reports[partition], None, 0, headers)
                except (BufferError, KafkaException):
                    self._send_patiently(producer, topic, (value, key, partition), headers)
                sent += 1
        finally:
            self._tally.sent += sent
        return sent

    def flush(
        self, producer: Producer, topic: str, timeout_s: float, on_turn: Callable[[], None] | None = None
    ) -> None:
        """Return when every record is confirmed; raise `not_delivered` with the number of those that are not."""
        with kafka_errors(self._kafka, topic=topic):
            flush(producer, timeout_s, on_turn)
        if self.delivered < self.sent:
            raise self.error(topic)

    def committed(self) -> None:
        """The transaction with the records so far was committed."""
        for lanes in self._lanes.values():
            for lane in lanes.all():
                lane.committed()

    def error(self, topic: str) -> HeadraceError:
        """Records that were not confirmed, with their exact number."""
        self._tally.delivered = self.delivered
        return not_delivered(self._tally, self._kafka, self._tally.failed_topic or topic)

    def blame(self, cause: KafkaError) -> None:
        """Why records were refused, where their reports do not say."""
        self._tally.failure = cause

    def _serve(self, producer: Producer, topic: str) -> None:
        """Delivery reports, without waiting."""
        with kafka_errors(self._kafka, topic=topic):
            producer.poll(0)
        if self._tally.failure is not None:
            raise self.error(topic)

    def _send_patiently(self, producer: Producer, topic: str, record: Record, headers: Headers | None) -> None:
        """Once more: wait while the queue is full, and tell why it cannot be sent."""
        value, key, partition = record
        report = self._lanes[topic].reports[partition]
        try:
            with kafka_errors(self._kafka, topic=topic):
                enqueue(
                    producer, topic, key, value,
                    headers=headers, partition=partition, on_delivery=report, limit_bytes=self._limit_bytes,
                )  # fmt: skip
        except BufferError as error:
            raise self.error(topic) from error

    def _headers_now(self) -> Headers | None:
        if self._headers is None or (self._when_shared and not self._are_shared()):
            return None
        return self._headers

    def _are_shared(self) -> bool:
        return any(lane.shared for lanes in self._lanes.values() for lane in lanes.all())


class _Lanes:
    """The partitions of a topic that records were sent to."""

    def __init__(self, topic: str, tally: Tally) -> None:
        self._topic = topic
        self._tally = tally
        self._lanes: dict[int, Lane] = {}
        self.reports = _Reports(self)
        """Partition → the callback for its delivery reports."""

    def all(self) -> list[Lane]:
        """By partition."""
        return [self._lanes[number] for number in sorted(self._lanes)]

    def open(self, partition: int) -> Lane:
        """The lane of a partition that has none yet."""
        return self._lanes.setdefault(partition, Lane(self._topic, partition, self._tally))


class _Reports(dict[int, Any]):
    """A look-up per record, so it is a dictionary that fills itself."""

    def __init__(self, lanes: _Lanes) -> None:
        super().__init__()
        self._lanes = lanes

    def __missing__(self, partition: int) -> Any:
        self[partition] = report = self._lanes.open(partition).report
        return report


class StreamProducer:
    """Writes the records of one stream and knows which offsets they got.

    The caller chooses partitions. Idempotent: a record is in the log once, in the order of the calls per partition.

    What it says is exact, whoever else writes to the same partitions:

    - Every record has a delivery report of its own, so the number of those that were not delivered is no estimate.
    - `ranges` are runs of offsets that such reports named; a record of somebody else between two of ours is in none.
      Only where others interleave so often that a control message could not name all runs are some of them joined;
      then the header (`headers`) tells the records apart, and the number of records shows if it did not.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        *,
        headers: Headers | None = None,
        headers_when_shared: bool = False,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._kafka = kafka
        self.topic = topic
        self.records = StreamRecords(kafka, headers, when_shared=headers_when_shared)
        self._delivery_timeout_s = delivery_timeout_s
        timeout = {"message.timeout.ms": int(delivery_timeout_s * 1000)}
        self._opened = OpenProducer(kafka, settings, defaults={**BOUNDED, **timeout})

    def __enter__(self) -> StreamProducer:
        self._opened.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def sent(self) -> int:
        """Records given to `send`."""
        return self.records.sent

    @property
    def delivered(self) -> int:
        """Records that Kafka has confirmed, as far as their reports were served."""
        return self.records.delivered

    def send(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Send a record; waits while too many are unconfirmed.

        Raises InvalidArgument where the record is too large (it is not sent), Unavailable (NOT_DELIVERED) or
        PermissionDenied as soon as it is known that an earlier one was not delivered.
        """
        self.send_all([(value, key, partition)])

    def send_all(self, records: Iterable[Record], topic: str | None = None, *, marked: bool = False) -> None:
        """Send records, each as (value, key, partition); to another topic than the stream's if it is given.

        marked: with the header, though nobody else was seen: where its cost does not matter. Raises what `send` raises.
        """
        self.records.send_all(self._opened.client, topic or self.topic, records, marked=marked)

    def flush(self, timeout_s: float | None = None, on_turn: Callable[[], None] | None = None) -> None:
        """Return when every record is confirmed. Raises NOT_DELIVERED with the number of those that are not.

        on_turn: called a few times a second meanwhile.
        """
        timeout_s = self._delivery_timeout_s + FLUSH_GRACE_S if timeout_s is None else timeout_s
        self.records.flush(self._opened.client, self.topic, timeout_s, on_turn)

    def ranges(self, most: int | None = None) -> list[stream_pb2.OffsetRange]:
        """The runs of confirmed offsets, by partition, of each at most so many."""
        return self.records.ranges(self.topic, most)

    def announce(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None:
        """Write one record to another topic and return when it is confirmed."""
        tally = Tally(sent=1)
        with kafka_errors(self._kafka, topic=topic):
            enqueue(self._opened.client, topic, key, value, headers=headers, on_delivery=tally.report)
        flush(self._opened.client, self._delivery_timeout_s + FLUSH_GRACE_S)
        if tally.delivered < 1:
            raise not_delivered(tally, self._kafka, topic)
