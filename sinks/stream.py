"""The engine of every sink that announces a data set: sends encoded records, then says which offsets they got."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import signature
from numbers import Integral, Real
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import StreamAnnouncement
from sinks.encoder import Encoder, LabelRule
from sinks.rows import count, cut, mismatch, row_of, rows_of
from streams.codecs import Rows
from streams.control import CONTROL_TOPIC, STREAM_HEADER, check, deployment_key, encode
from streams.delivery import DELIVERY_TIMEOUT_S
from streams.kafka import Headers, KafkaSettings, ensure_topics, partitions_of, topic_ids
from streams.offsets import MAX_OFFSET
from streams.producer import Record, RecordProducer, StreamProducer, StreamRecords
from streams.transactional import TRANSACTION_S, TransactionalStreamProducer

# Rows that are encoded at once: a whole array would be in memory twice.
_ROWS_AT_ONCE = 4096
# Records that are sent by so few at once have the header of their stream: what comes slowly interleaves most often.
_MARKED_ROWS = 64
_PROGRESS_EVERY_S = 0.25

# Called with the records sent and those of them that Kafka has confirmed.
Progress = Callable[[int, int], None]


class SinkSettings(TypedDict, total=False):
    """What all sinks take. All may be left out."""

    description: str
    """For people."""
    validation_rate: float
    """The part of the records that is kept for validation, in [0, 1)."""
    test_rate: float
    """The part of the records that is kept for the test, in [0, 1)."""
    restrictions: str
    """Restrictions on the use of the data, for people."""
    control_topic: str
    """Where the stream is announced."""
    partitions: int | None
    """Of the topic, if it does not exist yet (1)."""
    unsupervised_topic: str
    """Where records without labels go that are sent beside labelled ones; `TOPIC-unsupervised` unless given."""
    stream_id: str
    """The announcement's id: a sink that ran to its end and runs again with the same id is recorded once."""
    transactional: bool
    """Readers see no record before the announcement, and then all."""
    transaction_s: float
    """How long one transaction may be open, in seconds (60); a longer stream is several transactions."""
    delivery_timeout_s: float
    """How long Kafka may take to confirm a record, in seconds (120)."""
    on_progress: Progress | None
    """Called with (records sent, records confirmed), at most a few times a second."""
    options: Mapping[str, str] | None
    """librdkafka's properties: security, for instance."""


class StreamSink:
    """A stream of samples and labels for one training. Not made directly: RawSink, AvroSink, JsonSink, ProtobufSink.

    When the `with` block ends, or at `close`, the stream is announced: which offsets it has, once Kafka has confirmed
    every record. When the block ends by an exception nothing is announced, and what was sent belongs to no training.
    A process that is killed has announced nothing or everything.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        encoder: Encoder,
        *,
        open_ended: bool = False,
        **settings: Unpack[SinkSettings],
    ) -> None:
        _check_names(type(self), settings)
        _check_values(settings)
        self.announcement = StreamAnnouncement(
            message_id=settings.get("stream_id") or str(uuid.uuid4()),
            deployment_id=_checked_deployment(deployment_id),
            input_format=encoder.data_format,
            validation_rate=_rate(settings, "validation_rate"),
            test_rate=_rate(settings, "test_rate"),
            description=settings.get("description", ""),
            restrictions=settings.get("restrictions", ""),
        )
        """What is announced; its ranges are complete when the sink is closed."""
        self._topic = topic
        self._open_ended = open_ended
        self._announced = False
        self._stream_key = uuid.uuid4().hex
        self._unsupervised_topic = settings.get("unsupervised_topic") or f"{topic}-unsupervised"
        self._settings = settings
        self._kafka = KafkaSettings(bootstrap_servers, settings.get("options") or {})
        self._encoder = encoder
        self._label_rule = LabelRule()
        self._progress = _Progress(settings.get("on_progress"))
        self._producer: RecordProducer | None = None
        self._records: StreamRecords | None = None
        self._open = ExitStack()
        self._routes: dict[str, Iterator[int]] = {}
        self._closed = False
        if open_ended and settings.get("transactional"):
            raise InvalidArgument(
                error_pb2.REASON_INVALID_FIELD, "a stream without an end cannot be one transaction; leave it out"
            )
        self._check_announcement()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    @property
    def sent(self) -> int:
        """Records given to `send` and `send_batch`, those without labels included."""
        return 0 if self._records is None else self._records.sent

    @property
    def delivered(self) -> int:
        """Records that Kafka has confirmed, as far as it was heard; all of them after `flush`."""
        return 0 if self._records is None else self._records.delivered

    def send(self, sample: Any, label: Any = None) -> None:
        """Send one record; waits while too many are unconfirmed.

        Raises InvalidArgument (SCHEMA_MISMATCH) for another shape or type than the first, InvalidArgument when it is
        too large; that record is not sent, and the sink goes on. Raises Unavailable (NOT_DELIVERED) with the exact
        number when Kafka has not confirmed an earlier one in time, PermissionDenied when it never will.
        """
        self._send(self._topic, row_of(sample), None if label is None else row_of(label))

    def send_batch(self, samples: Any, labels: Any = None) -> None:
        """Send the rows of `samples` `(n, ...)` with those of `labels` `(n, ...)`. Raises what `send` raises.

        Rows of several fields are a mapping name → column, a structured array or a list of dictionaries.
        """
        rows, keys = rows_of(samples), None if labels is None else rows_of(labels)
        if keys is not None and count(keys) != count(rows):
            raise mismatch(f"there are {count(rows)} samples and {count(keys)} labels")
        self._send(self._topic, rows, keys)

    def send_unsupervised(self, sample: Any) -> None:
        """Send a sample that has no label, beside those that have one: to the topic `unsupervised_topic`."""
        self._send(self._unsupervised_topic, row_of(sample), None)

    def send_unsupervised_batch(self, samples: Any) -> None:
        """Send the rows of `samples` `(n, ...)`, which have no labels."""
        self._send(self._unsupervised_topic, rows_of(samples), None)

    def flush(self) -> None:
        """Return when Kafka has confirmed every record so far. Raises Unavailable (NOT_DELIVERED)."""
        if self._producer is not None:
            self._flush(self._producer)

    def close(self) -> None:
        """Wait until Kafka has confirmed every record, then announce the stream. A second call does nothing.

        Raises Unavailable (NOT_DELIVERED) with the number of records that are not confirmed, FailedPrecondition
        (EMPTY_STREAM) when nothing was sent, (TOPIC_RECREATED) when the topic was deleted meanwhile; then nothing is
        announced.
        """
        if self._closed:
            return
        producer, self._closed = self._producer, True
        with self._open:
            if producer is not None:
                self._flush(producer)
            if producer is None or not producer.records.delivered_to(self._topic):
                raise FailedPrecondition(error_pb2.REASON_EMPTY_STREAM, "nothing was sent, so nothing is announced")
            if not self._announced:
                self._complete(producer.records)
                self._announce(producer)
            self._producer = None

    def abandon(self) -> None:
        """End without an announcement. Records that were sent stay in the log and belong to no stream."""
        self._closed = True
        self._producer = None
        self._open.close()

    @property
    def _control_topic(self) -> str:
        return self._settings.get("control_topic", CONTROL_TOPIC)

    def _send(self, topic: str, rows: Any, labels: Any) -> None:
        producer, route = self._start(), self._route(topic)
        for start in range(0, count(rows), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, count(rows))
            part = None if labels is None else cut(labels, start, stop)
            with self._undone_if_refused(producer):
                self._send_part(producer, topic, route, cut(rows, start, stop), part)
            fail_at("sink_sent")
            self._progress.some(producer.records)

    def _send_part(
        self, producer: RecordProducer, topic: str, route: Iterator[int], rows: Rows, labels: Rows | None
    ) -> None:
        if topic == self._topic:
            self._label_rule.check(labelled=labels is not None)
        values = self._encoder.samples(rows, labels)
        keys = itertools.repeat(None) if labels is None else self._encoder.labels(labels)
        # Keys and partitions have no end; values go first, so that no partition is taken for nothing.
        records: Iterable[Record] = zip(values, keys, route, strict=False)
        if self._open_ended and not self._announced:
            records = list(records)
            self._announce_open(producer, topic, records[0])
        producer.send_all(records, topic, marked=count(rows) <= _MARKED_ROWS)

    @contextmanager
    def _undone_if_refused(self, producer: RecordProducer) -> Iterator[None]:
        """Records decide what the stream has when the first of them is handed over, or when that was announced."""
        sent, labelled, decided = producer.records.sent, self._label_rule.labelled, self._encoder.decided
        try:
            yield
        except BaseException:
            if producer.records.sent == sent and not self._announced:
                self._label_rule.labelled = labelled
                self._encoder.undo(decided)
            raise

    def _flush(self, producer: RecordProducer) -> None:
        producer.flush(on_turn=lambda: self._progress.some(producer.records))
        self._progress.all(producer.records)

    def _start(self) -> RecordProducer:
        """Connect at the first use."""
        if self._producer is None:
            if self._closed:
                raise FailedPrecondition(error_pb2.REASON_WRONG_STATE, "the sink is closed; make another one")
            ensure_topics(self._kafka, {self._topic: self._settings.get("partitions") or 1, self._control_topic: 1})
            self._route(self._topic)
            self._producer = self._open.enter_context(self._new_producer())
            self._records = self._producer.records
        return self._producer

    def _route(self, topic: str) -> Iterator[int]:
        """The partitions of the topic in turn; notes its id the first time."""
        if topic not in self._routes:
            if topic != self._topic:
                ensure_topics(self._kafka, {topic: self._settings.get("partitions") or 1})
            self.announcement.topic_ids.update(topic_ids(self._kafka, [topic]))
            self._routes[topic] = itertools.cycle(partitions_of(self._kafka, topic))
        return self._routes[topic]

    def _new_producer(self) -> RecordProducer:
        headers: Headers = [(STREAM_HEADER, self._stream_key)]
        if self._settings.get("transactional"):
            return TransactionalStreamProducer(
                self._kafka, self._topic, f"headrace-sink-{self.announcement.message_id}",
                headers=headers,
                transaction_s=self._settings.get("transaction_s", TRANSACTION_S),
            )  # fmt: skip
        return StreamProducer(
            self._kafka, self._topic, headers=headers, headers_when_shared=not self._open_ended,
            delivery_timeout_s=self._settings.get("delivery_timeout_s", DELIVERY_TIMEOUT_S),
        )  # fmt: skip

    def _announce_open(self, producer: RecordProducer, topic: str, first: Record) -> None:
        """The stream has no end yet: who reads it tells its records by their header.

        first: what is going to be sent; a record that would be refused announces nothing.
        """
        value, key, _ = first
        producer.records.check_size(topic, key, value)
        self.announcement.input_config.update(self._encoder.config)
        self.announcement.incremental = True
        self.announcement.open_topics.append(self._topic)
        self.announcement.stream_key = self._stream_key
        self._announce(producer)

    def _announce(self, producer: RecordProducer) -> None:
        fail_at("sink_before_announce")
        headers, value = encode(self.announcement)
        producer.announce(self._control_topic, deployment_key(self.announcement.deployment_id), value, headers)
        self._announced = True
        fail_at("sink_after_announce")

    def _complete(self, records: StreamRecords) -> None:
        self.announcement.ranges.extend(records.ranges(self._topic))
        self.announcement.unsupervised_ranges.extend(records.ranges(self._unsupervised_topic))
        self.announcement.record_count = records.delivered_to(self._topic)
        self.announcement.input_config.update(self._encoder.config)
        if not all(records.are_exact(topic) for topic in self._routes):
            self.announcement.stream_key = self._stream_key
        self._check_topics()

    def _check_topics(self) -> None:
        """A topic that was made anew has forgotten the first records."""
        before = dict(self.announcement.topic_ids)
        for topic, now in topic_ids(self._kafka, before).items():
            if now != before[topic]:
                raise FailedPrecondition(
                    error_pb2.REASON_TOPIC_RECREATED,
                    f"the topic {topic!r} was deleted and made anew while records were sent; send them all again",
                    topic=topic, topic_id=now, expected_topic_id=before[topic],
                )  # fmt: skip

    def _check_announcement(self) -> None:
        """Before anything is sent: what would be wrong with the announcement at the end."""
        draft = StreamAnnouncement()
        draft.CopyFrom(self.announcement)
        draft.ranges.add(topic=self._topic)
        draft.unsupervised_ranges.add(topic=self._unsupervised_topic)
        check(draft)


def _check_names(kind: type[StreamSink], settings: SinkSettings) -> None:
    """Raises TypeError, as for any argument that a function does not have."""
    unknown = ", ".join(map(repr, sorted(settings.keys() - SinkSettings.__annotations__.keys())))
    if unknown:
        own = [one.name for one in signature(kind).parameters.values() if one.kind is one.KEYWORD_ONLY]
        known = ", ".join(sorted({*own, *SinkSettings.__annotations__}))
        raise TypeError(f"{kind.__name__} has no option {unknown}; the known ones are {known}")


def _check_values(settings: SinkSettings) -> None:
    """Raises InvalidArgument (INVALID_FIELD) for the first that is none of its kind."""
    for name in ("description", "restrictions", "control_topic", "unsupervised_topic", "stream_id"):
        text = settings.get(name)
        if text is not None and not isinstance(text, str):
            raise _wrong(name, f"is a text, not {text!r}")
    partitions = settings.get("partitions")
    if partitions is not None and (not isinstance(partitions, Integral) or partitions < 1):
        raise _wrong("partitions", f"is how many partitions a new topic gets, from 1, not {partitions!r}")
    options = settings.get("options") or {}
    if any(str(options.get(name, "")).strip() == "0" for name in ("acks", "request.required.acks")):
        raise _wrong("options", "has acks=0: Kafka confirms no record then, and nobody knows the offsets")


def _wrong(name: str, rule: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_INVALID_FIELD, f"{name} {rule}", field=name)


def _checked_deployment(deployment_id: int) -> int:
    if not isinstance(deployment_id, Integral) or not 1 <= deployment_id <= MAX_OFFSET:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            f"deployment_id is the number of a deployment, from 1, not {deployment_id!r}",
        )
    return int(deployment_id)


def _rate(settings: SinkSettings, name: Literal["validation_rate", "test_rate"]) -> float:
    rate = settings.get(name, 0.0)
    if not isinstance(rate, Real):
        raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, f"{name} is a number in [0, 1), not {rate!r}")
    return float(rate)


class _Progress:
    """Tells of progress a few times a second, and once when all is confirmed."""

    def __init__(self, on_progress: Progress | None) -> None:
        self._on_progress = on_progress
        self._last = 0.0

    def some(self, records: StreamRecords) -> None:
        if self._on_progress is not None and time.monotonic() > self._last + _PROGRESS_EVERY_S:
            self.all(records)

    def all(self, records: StreamRecords) -> None:
        self._last = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(records.sent, records.delivered)
