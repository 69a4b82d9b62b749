"""From the control topic to the StreamCatalog: every message once.

The catalog keeps how far each partition is recorded, in the same database transaction as the record itself, and
this process begins there. So a message is neither lost nor recorded twice, whoever is killed between two steps. A
message that is no announcement goes to `<control topic>.dead-letters` with the reason; only then is its position
recorded.
"""

import logging
import threading

import prometheus_client

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
RETRY_S = 0.5
DEAD_LETTER_SUFFIX = ".dead-letters"

RECORDED = prometheus_client.Counter("headrace_logger_recorded_total", "Messages recorded as streams")
REFUSED = prometheus_client.Counter("headrace_logger_refused_total", "Messages that are no announcement")


class Recorder:
    """Follows the control topic. `run` only loops; `step` does one turn."""

    def __init__(self, kafka: KafkaSettings, topic: str, catalog: StreamCatalogStub) -> None:
        self._kafka, self._topic, self._catalog = kafka, topic, catalog
        self._dead_letter_topic = topic + DEAD_LETTER_SUFFIX
        self._ready = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether the control topic is being followed."""
        return self._ready.is_set()

    def run(self, stop: threading.Event) -> None:
        """Records until `stop` is set. A Kafka or a control plane that is away is waited for."""
        while not stop.is_set():
            try:
                self._follow(stop)
            except (Unavailable, DeadlineExceeded, ResourceExhausted) as error:
                self._ready.clear()
                log.warning("waiting for Kafka or the control plane", extra={"cause": str(error)})
                stop.wait(RETRY_S)

    def _follow(self, stop: threading.Event) -> None:
        ensure_topics(self._kafka, {self._topic: 1, self._dead_letter_topic: 1})
        request = GetRecordedPositionsRequest(topic=self._topic)
        positions = dict(self._catalog.GetRecordedPositions(request).next_offsets)
        with TopicFollower(self._kafka, self._topic, positions) as follower, BatchProducer(self._kafka) as dead_letters:
            self._ready.set()
            log.info("following", extra={"topic": self._topic, "positions": positions})
            while not stop.is_set():
                self.step(follower, dead_letters)

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
        log.warning("a control message is refused", extra={"offset": source.offset, "cause": str(error)})
        headers: Headers = [
            *headers_of(message),
            ("headrace-error", error.reason_name.encode()),
            ("headrace-error-message", error.message[:1024].encode()),
            ("headrace-source", f"{source.topic}/{source.partition}/{source.offset}".encode()),
        ]
        dead_letters.produce(self._dead_letter_topic, message.key(), message.value(), headers)
        dead_letters.flush()
        fail_at("after_dead_letter")
        self._catalog.RecordStream(RecordStreamRequest(source=source))
        REFUSED.inc()


def _source(message: Message) -> StreamSource:
    source = StreamSource(topic=message.topic(), partition=message.partition(), offset=message.offset())
    kind, milliseconds = message.timestamp()
    if kind:
        source.time.FromMilliseconds(milliseconds)
    return source
