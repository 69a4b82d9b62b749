"""From the control topic to the StreamCatalog: every message once.

The catalog keeps how far each partition is recorded, in the same database transaction as the record itself, and
this process begins there. So a message is neither lost nor recorded twice, whoever is killed between two steps. A
message that is no announcement goes to `<control topic>.dead-letters` with the reason; only then is its position
recorded.
"""

import logging
import threading

import prometheus_client

from headrace import logs
from headrace.errors import DeadlineExceeded, HeadraceError, InvalidArgument, ResourceExhausted, Unavailable
from headrace.failpoints import fail_at
from headrace.v1.stream_catalog_pb2 import GetRecordedPositionsRequest, RecordStreamRequest
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from headrace.v1.stream_pb2 import StreamSource
from streams import control
from streams.follow import TopicFollower
from streams.kafka import Headers, KafkaSettings, Message, ensure_topics, headers_of
from streams.writer import BatchProducer

log = logging.getLogger(__name__)

POLL_S = 0.5
# A stop waits for at most so long while the broker is away.
KAFKA_WAIT_S = 3.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 5.0
DEAD_LETTER_SUFFIX = ".dead-letters"
ERROR_MESSAGE_BYTES = 1024

RECORDED = prometheus_client.Counter("headrace_logger_recorded_total", "Messages recorded as streams")
REFUSED = prometheus_client.Counter("headrace_logger_refused_total", "Messages that are no announcement")


class Recorder:
    """Follows the control topic. `run` only loops; `step` does one turn."""

    def __init__(self, kafka: KafkaSettings, topic: str, catalog: StreamCatalogStub) -> None:
        self._kafka, self._topic, self._catalog = kafka, topic, catalog
        self._dead_letter_topic = topic + DEAD_LETTER_SUFFIX
        self._ready = threading.Event()
        self._retry_s, self._told = FIRST_RETRY_S, ""

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
                stop.wait(self._retry_s)
                self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)

    def _follow(self, stop: threading.Event) -> None:
        ensure_topics(self._kafka, {self._topic: 1, self._dead_letter_topic: 1}, timeout_s=KAFKA_WAIT_S)
        request = GetRecordedPositionsRequest(topic=self._topic)
        positions = dict(self._catalog.GetRecordedPositions(request).next_offsets)
        with TopicFollower(self._kafka, self._topic, positions) as follower, BatchProducer(self._kafka) as dead_letters:
            self._ready.set()
            log.info("following", extra={"topic": self._topic, "positions": positions})
            while not stop.is_set():
                self.step(follower, dead_letters)
                self._retry_s, self._told = FIRST_RETRY_S, ""

    def _tell(self, error: HeadraceError) -> None:
        """Once per cause, however often it is tried."""
        if error.reason_name == self._told:
            return
        self._told = error.reason_name
        passes = isinstance(error, Unavailable | DeadlineExceeded | ResourceExhausted)
        log.log(logging.WARNING if passes else logging.ERROR, "recording waits", extra=logs.error_fields(error))

    def step(self, follower: TopicFollower, dead_letters: BatchProducer) -> None:
        """One turn: the messages at hand, each recorded. What was not recorded when it raises is read again."""
        for message in follower.read(POLL_S):
            self._record(message, dead_letters)

    def _record(self, message: Message, dead_letters: BatchProducer) -> None:
        source = _source(message)
        fail_at("before_record")
        try:
            announcement, dialect = control.decode(message.key(), headers_of(message), message.value())
            response = self._catalog.RecordStream(
                RecordStreamRequest(source=source, dialect=dialect, announcement=announcement)
            )
        except InvalidArgument as error:
            self._refuse(message, source, error, dead_letters)
            return
        fail_at("after_record")
        if response.created:
            RECORDED.inc()
            log.info(
                "stream recorded",
                extra={"stream": response.stream.id, "deployment": response.stream.deployment_id},
            )

    def _refuse(
        self, message: Message, source: StreamSource, error: HeadraceError, dead_letters: BatchProducer
    ) -> None:
        log.warning("a control message is refused", extra={"offset": source.offset, **logs.error_fields(error)})
        self._send_dead_letter(message, source, error, dead_letters)
        fail_at("after_dead_letter")
        self._catalog.RecordStream(RecordStreamRequest(source=source))
        REFUSED.inc()

    def _send_dead_letter(
        self, message: Message, source: StreamSource, error: HeadraceError, dead_letters: BatchProducer
    ) -> None:
        headers: Headers = [
            *headers_of(message),
            ("headrace-error", error.reason_name.encode()),
            ("headrace-error-message", error.message.encode()[:ERROR_MESSAGE_BYTES]),
            ("headrace-source", f"{source.topic}/{source.partition}/{source.offset}".encode()),
        ]
        try:
            dead_letters.produce(self._dead_letter_topic, message.key(), message.value(), headers)
        except InvalidArgument:
            # As large as a message may be, it has no room for the reason. Its source says where the whole one is.
            dead_letters.produce(self._dead_letter_topic, None, None, headers[-3:])
        dead_letters.flush()


def _source(message: Message) -> StreamSource:
    source = StreamSource(topic=message.topic(), partition=message.partition(), offset=message.offset())
    kind, milliseconds = message.timestamp()
    if kind:
        source.time.FromMilliseconds(milliseconds)
    return source
