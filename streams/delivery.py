"""Giving records to librdkafka, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import HeadraceError, InvalidArgument, PermissionDenied, Unavailable
from headrace.v1 import error_pb2
from streams.kafka import Headers, KafkaSettings, as_headrace_error

# A record that is not confirmed for so long is refused; a flush waits a little longer, to hear of it.
DELIVERY_TIMEOUT_S = 120.0
FLUSH_GRACE_S = 5.0
# librdkafka's message.max.bytes, key and headers included.
MESSAGE_MAX_BYTES = 1_000_000
ANY_PARTITION = -1
# A record to send: value, key, partition, headers.
SentRecord = tuple[bytes | None, bytes | None, int, Headers]
# Delivery reports are served once per so many records.
POLL_EVERY = 256
_FLUSH_TURN_S = 0.25


class OpenProducer:
    """A client of librdkafka from `open` to `close`, which drops what is not sent yet."""

    def __init__(self, kafka: KafkaSettings, settings: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._settings, self._defaults = settings, defaults
        self._client: Producer | None = None

    @property
    def client(self) -> Producer:
        assert self._client is not None, "use the producer in a with block"
        return self._client

    @property
    def outstanding(self) -> int:
        """Records neither confirmed nor refused."""
        return 0 if self._client is None else len(self._client)

    def open(self) -> None:
        self._client = self._kafka.producer(self._settings, defaults=self._defaults)

    def close(self) -> None:
        if self._client is not None:
            self._client.purge()
            self._client = None  # its last reference: librdkafka ends its threads


@dataclass(slots=True)
class Tally:
    """How many records were given to librdkafka, and what their delivery reports said, each counted once."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    failure: KafkaError | None = None
    """The first one: those behind it often fail because of it."""
    failed_topic: str = ""
    """Where, if it is known."""

    @property
    def outstanding(self) -> int:
        """Records neither confirmed nor refused."""
        return self.sent - self.delivered - self.failed

    def report(self, error: KafkaError | None, _: object) -> None:
        """A delivery report."""
        if error is None:
            self.delivered += 1
        else:
            self.fail(error)

    def fail(self, error: KafkaError, topic: str = "") -> None:
        """A record was refused."""
        self.failed += 1
        if self.failure is None:
            self.failure, self.failed_topic = error, topic


def enqueue(  # noqa: PLR0913
    producer: Producer,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    *,
    headers: Headers | None = None,
    partition: int | None = None,
    on_delivery: Any = None,
    timeout_s: float = DELIVERY_TIMEOUT_S,
    limit_bytes: int = MESSAGE_MAX_BYTES,
) -> None:
    """Give the record to librdkafka; wait while its queue is full.

    Raises InvalidArgument where the record is too large, BufferError when the queue was full for `timeout_s`.
    """
    deadline = 0.0
    while True:
        try:
            producer.produce(
                topic,
                value,
                key,
                partition=ANY_PARTITION if partition is None else partition,
                on_delivery=on_delivery,
                headers=headers,
            )
            return
        except BufferError:
            deadline = deadline or time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                raise
            producer.poll(0.1)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise _too_large(topic, key, value, limit_bytes) from error
            raise


def check_size(topic: str, key: bytes | None, value: bytes | None, limit_bytes: int) -> None:
    """Raise the InvalidArgument that sending the record would raise for its size."""
    if len(key or b"") + len(value or b"") > limit_bytes:
        raise _too_large(topic, key, value, limit_bytes)


def enqueue_all(
    producer: Producer,
    topic: str,
    records: Iterable[SentRecord],
    tally: Tally,
    *,
    on_delivery: Any = None,
    timeout_s: float = DELIVERY_TIMEOUT_S,
) -> dict[int, InvalidArgument]:
    """As `enqueue` for many, counted in `tally.sent`. Those that are too large are not sent: why, by their index.

    What is done per record here is most of what sending costs.
    """
    produce, sent = producer.produce, 0
    refused: dict[int, InvalidArgument] = {}
    try:
        for value, key, partition, headers in records:
            try:
                # By position: names cost a fifth of the call.
                produce(topic, value, key, partition, on_delivery, None, 0, headers)
            except (BufferError, KafkaException):
                try:
                    enqueue(
                        producer, topic, key, value,
                        headers=headers, partition=partition, on_delivery=on_delivery, timeout_s=timeout_s,
                    )  # fmt: skip
                except InvalidArgument as error:
                    refused[sent] = error
            sent += 1
    finally:
        tally.sent += sent - len(refused)
    producer.poll(0)
    return refused


def flush(producer: Producer, timeout_s: float, on_turn: Callable[[], None] | None = None) -> int:
    """In short turns: while librdkafka waits, Ctrl-C is not heard. `on_turn` is called after each.

    Returns how many records are neither confirmed nor refused; zero before the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = int(producer.flush(min(_FLUSH_TURN_S, max(0.0, deadline - time.monotonic()))))
        if not left or time.monotonic() >= deadline:
            return left
        if on_turn is not None:
            on_turn()


def message_limit(kafka: KafkaSettings) -> int:
    """The size in bytes that one record may have, as this cluster's clients are configured."""
    return int(kafka.options.get("message.max.bytes", MESSAGE_MAX_BYTES))


def not_delivered(tally: Tally, kafka: KafkaSettings, topic: str = "") -> HeadraceError:
    """Records that Kafka did not confirm, with their exact number.

    PermissionDenied where Kafka refuses them for ever, with who may not do what, if the topic is given; otherwise
    Unavailable.
    """
    missing = tally.sent - tally.delivered
    about = {"topic": topic} if topic else {}
    cause = as_headrace_error(tally.failure, kafka, **about) if tally.failure is not None else None
    facts: dict[str, Any] = {**about, "undelivered": missing, "sent": tally.sent}
    if topic and isinstance(cause, PermissionDenied):
        facts |= {**cause.metadata, "principal": _principal(kafka), "resource": topic, "operation": "WRITE"}
        message = f"{_principal(kafka)} may not write to the topic {topic!r}: {missing} of {tally.sent} records refused"
        return PermissionDenied(error_pb2.REASON_KAFKA_FORBIDDEN, f"{message}; {cause.message}", **facts)
    why = tally.failure.str() if tally.failure is not None else "no confirmation in time"
    return Unavailable(
        error_pb2.REASON_NOT_DELIVERED,
        f"{missing} of {tally.sent} records were not confirmed by Kafka at {kafka.bootstrap_servers}: {why}",
        **facts,
        cause=cause.reason_name if cause is not None else "DEADLINE",
        bootstrap_servers=kafka.bootstrap_servers,
    )


def _principal(kafka: KafkaSettings) -> str:
    """Kafka does not tell a client as whom it is known; it is the user of SASL, if there is one."""
    user = kafka.options.get("sasl.username") or kafka.options.get("sasl.kerberos.principal")
    if user:
        return f"User:{user}"
    certificate = kafka.options.get("ssl.certificate.location")
    return f"the owner of {certificate}" if certificate else "User:ANONYMOUS"


def _too_large(topic: str, key: bytes | None, value: bytes | None, limit: int) -> InvalidArgument:
    """The record is larger than the producer sends."""
    size = len(key or b"") + len(value or b"")
    return InvalidArgument(
        error_pb2.REASON_INVALID_FIELD,
        f"a record of {size} bytes for {topic!r} is larger than the {limit} bytes that one record may have "
        "(message.max.bytes)",
        topic=topic,
        size_bytes=size,
        limit_bytes=limit,
    )
