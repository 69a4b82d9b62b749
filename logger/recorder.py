"""From the control topic to the StreamCatalog: every message once.

The catalog keeps how far each partition is recorded, in the same database transaction as the record itself, and
this process begins there. So a message is neither lost nor recorded twice, whoever is killed between two steps. A
message that is no announcement goes to `<control topic>.dead-letters` with the reason; only then is its position
recorded, and the deployment that it was meant for told. Positions belong to the topic by Kafka's id: one that is
deleted and made anew is read from its start.

A message about topics or partitions that Kafka does not have is recorded: data may come after its announcement, and
the stream's availability says what is missing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import prometheus_client

from headrace import logs
from headrace.backoff import Backoff
from headrace.errors import (
    Aborted,
    DeadlineExceeded,
    HeadraceError,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2
from headrace.v1.stream_catalog_pb2 import GetRecordedPositionsRequest, RecordStreamRequest
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from headrace.v1.stream_pb2 import DIALECT_UNSPECIFIED, Dialect, RefusedAnnouncement, StreamAnnouncement, StreamSource
from streams import control
from streams.answers import ERROR_HEADER, ERROR_MESSAGE_HEADER, MESSAGE_LIMIT, SOURCE_HEADER, dead_letter_topic
from streams.follow import TopicFollower
from streams.kafka import Headers, KafkaSettings, Message, ensure_topics, headers_of, time_of, topic_ids
from streams.writer import BatchProducer

log = logging.getLogger(__name__)

POLL_S = 0.5
# A stop waits for at most so long while the broker is away.
KAFKA_WAIT_S = 3.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 5.0
# A turn asks Kafka for the ids of at most so many topics; those of the others stay unknown.
MAX_TOPICS_ASKED = 1000

RECORDED = prometheus_client.Counter("headrace_logger_recorded_total", "Messages recorded as streams")
REFUSED = prometheus_client.Counter("headrace_logger_refused_total", "Messages that are no announcement")


class Recorder:
    """Follows the control topic. `run` only loops; `step` does one turn."""

    def __init__(self, kafka: KafkaSettings, topic: str, catalog: StreamCatalogStub) -> None:
        self._kafka, self._topic, self._catalog = kafka, topic, catalog
        self._dead_letter_topic = dead_letter_topic(topic)
        self._topic_id = ""
        self._ready = threading.Event()
        self._backoff, self._told = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S), ""

    @property
    def ready(self) -> bool:
        """Whether the control topic is being followed."""
        return self._ready.is_set()

    def run(self, stop: threading.Event) -> None:
        """Records until `stop` is set. Whatever fails is tried again from the recorded positions, for as long as it
        takes: a message may wait, but it is never passed over.
        """
        while not stop.is_set():
            try:
                self._follow(stop)
            except HeadraceError as error:
                self._ready.clear()
                self._tell(error)
                stop.wait(self._backoff.next_s())

    def _follow(self, stop: threading.Event) -> None:
        ensure_topics(self._kafka, {self._topic: 1, self._dead_letter_topic: 1}, timeout_s=KAFKA_WAIT_S)
        # Asked for before the positions: those are this topic's, or a later one's, which `step` then sees.
        self._topic_id = self._present_id()
        request = GetRecordedPositionsRequest(topic=self._topic)
        positions = dict(self._catalog.GetRecordedPositions(request).next_offsets)
        with TopicFollower(self._kafka, self._topic, positions) as follower, BatchProducer(self._kafka) as dead_letters:
            self._ready.set()
            log.info("following", extra={"topic": self._topic, "positions": positions})
            while not stop.is_set():
                self.step(follower, dead_letters)
                self._backoff.reset()
                self._told = ""

    def _present_id(self) -> str:
        return topic_ids(self._kafka, [self._topic], KAFKA_WAIT_S).get(self._topic, "")

    def _tell(self, error: HeadraceError) -> None:
        """Once per cause, however often it is tried."""
        if error.reason_name == self._told:
            return
        self._told = error.reason_name
        passes = isinstance(error, Aborted | Unavailable | DeadlineExceeded | ResourceExhausted)
        log.log(logging.WARNING if passes else logging.ERROR, "recording waits", extra=logs.error_fields(error))

    def step(self, follower: TopicFollower, dead_letters: BatchProducer) -> None:
        """One turn: the messages at hand, each recorded. What was not recorded when it raises is read again.

        Dead letters are confirmed before the position passes them, many at a time.
        """
        messages = follower.read(POLL_S)
        if not messages:
            return
        self._check_topic()
        read = [_read(message) for message in messages]
        self._name_topics([one.announcement for one in read if one.announcement is not None])
        refused: list[_Read] = []
        for one in read:
            if one.announcement is not None:
                self._pass(refused, dead_letters)
                self._record(one)
            if one.error is not None:
                self._refuse(one, one.error, dead_letters)
                refused.append(one)
        self._pass(refused, dead_letters)

    def _check_topic(self) -> None:
        """Raise Aborted where the control topic was deleted and made anew: its messages begin again."""
        if self._present_id() != self._topic_id:
            raise Aborted(
                error_pb2.REASON_TOPIC_RECREATED,
                f"the control topic {self._topic!r} was made anew; it is read from its start",
                topic=self._topic,
                announced=self._topic_id,
            )

    def _name_topics(self, announcements: Sequence[StreamAnnouncement]) -> None:
        """Kafka's ids of the topics of messages that do not tell them; without an answer they stay unknown.

        A message must not become too large by it.
        """
        announcements = [one for one in announcements if one.ByteSize() < control.MAX_VALUE_BYTES / 2]
        unnamed = {name for one in announcements for name in control.topics_of(one) - set(one.topic_ids)}
        try:
            ids = topic_ids(self._kafka, sorted(unnamed)[:MAX_TOPICS_ASKED], KAFKA_WAIT_S)
        except HeadraceError as error:
            log.info("the ids of topics are not known", extra=logs.error_fields(error))
            return
        for one in announcements:
            for name in control.topics_of(one) & ids.keys() - set(one.topic_ids):
                one.topic_ids[name] = ids[name]

    def _record(self, one: _Read) -> None:
        """Once; where the catalog refuses it, too, that is its error."""
        fail_at("before_record")
        try:
            response = self._catalog.RecordStream(
                RecordStreamRequest(source=one.source, dialect=one.dialect, announcement=one.announcement)
            )
        except InvalidArgument as error:
            one.error = error
            return
        fail_at("after_record")
        if response.created:
            RECORDED.inc()
            log.info(
                "stream recorded",
                extra={"stream": response.stream.id, "deployment": response.stream.deployment_id},
            )

    def _pass(self, refused: list[_Read], dead_letters: BatchProducer) -> None:
        """Advance the positions past messages whose dead letters are on their way."""
        if not refused:
            return
        dead_letters.flush()
        fail_at("after_dead_letter")
        for own in _by_partition(refused):
            told = {one.deployment_id: _refusal(one) for one in own if one.deployment_id}
            self._catalog.RecordStream(RecordStreamRequest(source=own[-1].source, refused=told.values()))
        REFUSED.inc(len(refused))
        refused.clear()

    def _refuse(self, one: _Read, error: InvalidArgument, dead_letters: BatchProducer) -> None:
        message, source = one.message, one.source
        log.warning("a control message is refused", extra={"offset": source.offset, **logs.error_fields(error)})
        headers: Headers = [
            *headers_of(message),
            (ERROR_HEADER, error.reason_name.encode()),
            (ERROR_MESSAGE_HEADER, error.message[:MESSAGE_LIMIT].encode()),
            (SOURCE_HEADER, f"{source.topic}/{source.partition}/{source.offset}".encode()),
        ]
        try:
            dead_letters.produce(self._dead_letter_topic, message.key(), message.value(), headers)
        except InvalidArgument:
            # As large as a message may be, it has no room for the reason. Its source says where the whole one is.
            dead_letters.produce(self._dead_letter_topic, None, None, headers[-3:])


@dataclass
class _Read:
    """A message, where it stands, and what it announces or why it is no announcement."""

    message: Message
    source: StreamSource
    dialect: Dialect = DIALECT_UNSPECIFIED
    announcement: StreamAnnouncement | None = None
    error: InvalidArgument | None = None

    @property
    def deployment_id(self) -> int:
        """For which deployment it is meant; 0 where that cannot be read."""
        return control.addressee(self.message.key(), headers_of(self.message), self.message.value())


def _by_partition(read: Sequence[_Read]) -> Iterable[list[_Read]]:
    found: dict[int, list[_Read]] = {}
    for one in read:
        found.setdefault(one.source.partition, []).append(one)
    return found.values()


def _refusal(one: _Read) -> RefusedAnnouncement:
    """Without the facts and fields of the error, which the message tells: a message may be wrong at great length."""
    assert one.error is not None
    brief = InvalidArgument(one.error.reason, one.error.message[:MESSAGE_LIMIT])
    return RefusedAnnouncement(deployment_id=one.deployment_id, error=brief.to_status(), source=one.source)


def _read(message: Message) -> _Read:
    source = StreamSource(
        topic=message.topic(), partition=message.partition(), offset=message.offset(), time=time_of(message)
    )
    read = _Read(message, source)
    try:
        read.announcement, read.dialect = control.decode(message.key(), headers_of(message), message.value())
    except InvalidArgument as error:
        read.error = error
    return read
