"""Producers that say exactly what became of what they were given."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from headrace.errors import Aborted, DeadlineExceeded, HeadraceError, InvalidArgument, Unavailable
from headrace.v1 import error_pb2
from streams.delivery import (
    DELIVERY_TIMEOUT_S,
    FLUSH_GRACE_S,
    POLL_EVERY,
    OpenProducer,
    SentRecord,
    Tally,
    enqueue,
    enqueue_all,
    flush,
    not_delivered,
)
from streams.group import GroupMetadata
from streams.kafka import Headers, KafkaSettings, as_headrace_error, is_transient, kafka_errors
from streams.producer import StreamProducer

__all__ = [
    "BatchProducer", "SentRecord", "StreamProducer", "TransactionAbortable", "TransactionFatal", "TransactionFenced",
    "TransactionUnknown", "TransactionalWriter",
]  # fmt: skip

log = logging.getLogger(__name__)

COMMIT_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0
_FLUSH_TIMEOUT_S = DELIVERY_TIMEOUT_S + FLUSH_GRACE_S
# One call to librdkafka waits so long; the next one continues it.
_TURN_S = 5.0

_BOUNDED: Mapping[str, Any] = {
    # librdkafka's own bound is 1 GiB. What does not fit makes `produce` wait.
    "queue.buffering.max.kbytes": 64 * 1024,
    "queue.buffering.max.messages": 100_000,
}
_CONFIRMED: Mapping[str, Any] = {
    **_BOUNDED,
    "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
    # A record is confirmed when it is neither in librdkafka's hands any more nor reported: a call into Python for each
    # one would cost as much as a tenth of sending it.
    "delivery.report.only.error": True,
}
_TRANSACTIONAL: Mapping[str, Any] = {
    **_BOUNDED,
    # When every broker is away, librdkafka 2.16 forgets the coordinator of the transaction and begins anew from the
    # bootstrap servers; a send_offsets that is waiting then never returns, whatever its timeout. Without this the
    # client connects to the brokers that it knows; `recover` makes a new client in any case.
    "metadata.recovery.strategy": "none",
    # It covers producing and committing only: a transaction is opened after the model has answered.
    "transaction.timeout.ms": 30_000,
    "compression.type": "lz4",
}


class TransactionAbortable(Aborted):
    """The transaction cannot be committed: `abort`, rewind the reader, go on."""


class TransactionFatal(Unavailable):
    """The producer is of no more use: `recover`, rewind the reader, go on. Give up after several in a row."""


class TransactionFenced(Aborted):
    """Another process has taken over the transactional id: end."""


class TransactionUnknown(DeadlineExceeded):
    """Whether the transaction was committed is not known: `recover`, rewind the reader, go on. Never produce it again
    without: the committed offsets tell whether it happened.
    """


class TransactionalWriter:
    """Writes records and the offsets of the records that they answer as one: all or nothing.

    One process per transactional id: opening it fences an older one and aborts what that left open.

    The order of a commit, and why it loses and doubles nothing:

    1. `reader.consume` → records, and `reader.metadata`, taken while they were polled.
    2. The model answers; no transaction is open meanwhile, or it was opened by an earlier batch.
    3. `begin` unless `in_transaction`; `produce` every answer and every dead letter.
    4. When the commit interval is over, nothing more is at hand, or partitions are about to be revoked:
       `send_offsets(topic, {partition: last + 1}, metadata)` with the metadata of step 1. Kafka refuses it when
       the group has moved on since.
    5. `commit`. Only now are the answers and the new position seen, together.

    What a call may raise, what to do, and why that is right:

    - TransactionAbortable → `abort()`, `reader.rewind()`. Rewinding is part of it: an abort alone loses the records.
    - TransactionFatal, TransactionUnknown → `recover()`, `reader.rewind()`. Recovery waits until Kafka has decided
      about the old transaction; the committed offset then says what was decided.
    - TransactionFenced → end the process.
    - InvalidArgument from `produce` → only that record is refused (too large); the transaction is as it was.

    A commit that went through after a lost connection taints the producer: librdkafka may have sent the request
    twice, and a late copy could end the *next* transaction. A tainted producer is replaced before that, which
    fences the copy.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        transactional_id: str,
        *,
        commit_timeout_s: float = COMMIT_TIMEOUT_S,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._kafka = kafka
        self.transactional_id = transactional_id
        self._commit_timeout_s = commit_timeout_s
        self._settings = {**(settings or {}), "transactional.id": transactional_id}
        self._producer: Producer | None = None
        self._in_transaction = False
        self._tainted = False
        self._sent = Tally()

    def __enter__(self) -> TransactionalWriter:
        self.recover()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    @property
    def tainted(self) -> bool:
        """Whether the producer is to be replaced before the next transaction."""
        return self._tainted

    def recover(self) -> None:
        """A new producer under the same id. Returns when the old one's transaction is committed or aborted, by Kafka.

        Raises TransactionFenced, Unavailable (nothing changed: call it again), PermissionDenied.
        """
        self._discard()
        deadline = time.monotonic() + self._commit_timeout_s
        producer = self._kafka.producer(
            self._settings, defaults=_TRANSACTIONAL, error_cb=self._on_error, log_cb=self._on_log
        )
        while True:
            try:
                producer.init_transactions(_turn(deadline))
                break
            except KafkaException as error:
                if not is_transient(error.args[0]) or time.monotonic() > deadline:
                    raise self._init_error(error.args[0]) from error
        producer.poll(0)  # what it has to tell until now is of no transaction
        self._producer, self._in_transaction, self._tainted = producer, False, False

    def begin(self) -> None:
        """Open a transaction."""
        assert not self._in_transaction, "the transaction before is still open"
        if self._producer is not None:
            self._producer.poll(0)  # serves the error callback, which may taint
        if self._producer is None or self._tainted:
            self.recover()
        self._call("begin_transaction")
        self._in_transaction = True

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> None:
        """Add a record to the transaction; waits while too much is unsent."""
        try:
            enqueue(
                self._open_producer, topic, key, value,
                headers=headers, partition=partition, timeout_s=self._commit_timeout_s,
            )  # fmt: skip
        except BufferError as error:
            raise self._unknown("the records cannot be sent") from error
        except KafkaException as error:
            raise self._transaction_error(error.args[0]) from error
        self._sent.sent += 1
        if self._sent.sent % POLL_EVERY == 0:
            self._open_producer.poll(0)

    def produce_all(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """Add records to the transaction; those that are too large are left out: why, by their index."""
        try:
            return enqueue_all(self._open_producer, topic, records, self._sent, timeout_s=self._commit_timeout_s)
        except BufferError as error:
            raise self._unknown("the records cannot be sent") from error
        except KafkaException as error:
            raise self._transaction_error(error.args[0]) from error

    def send_offsets(self, topic: str, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        """Add partition → *next* offset (last + 1) to the transaction, for the group of the metadata.

        Raises TransactionAbortable where the metadata is of no member: Kafka would accept that unchecked.
        """
        if not metadata.is_member:
            raise TransactionAbortable(
                error_pb2.REASON_FENCED,
                f"the reader was no member of the group {metadata.group_id!r} when it polled",
                group=metadata.group_id,
            )
        offsets = [TopicPartition(topic, number, offset) for number, offset in positions.items()]
        if offsets:
            self._call("send_offsets_to_transaction", offsets, metadata.raw)

    def send_own_offsets(self, offsets: Sequence[TopicPartition], consumer: Consumer) -> None:
        """Add next offsets, with their metadata, for a group without members: the consumer's, which assigns by hand.

        Nothing but the transactional id fences them: read what is committed after `recover`.
        """
        self._call("send_offsets_to_transaction", list(offsets), consumer.consumer_group_metadata())

    def commit(self) -> None:
        """Make the records and offsets of the transaction visible, together."""
        self._call("commit_transaction")
        self._in_transaction = False
        self._open_producer.poll(0)

    def abort(self) -> None:
        """Drop the transaction; rewind the reader afterwards. Nothing to do if none is open."""
        if self._in_transaction:
            self._call("abort_transaction")
            self._in_transaction = False

    def close(self) -> None:
        """Abort what is open, as far as Kafka can be reached, and close."""
        self._commit_timeout_s = min(self._commit_timeout_s, CLOSE_TIMEOUT_S)
        try:
            self.abort()
        except HeadraceError as error:
            log.warning("the open transaction was left to its timeout", extra={"error": str(error)})
        self._discard()

    @property
    def client(self) -> Producer:
        """The producer of the open transaction, for who gives it many records at once. A `begin` may replace it."""
        return self._open_producer

    @property
    def _open_producer(self) -> Producer:
        assert self._producer is not None, "use the writer in a with block"
        return self._producer

    def _call(self, operation: str, *arguments: object) -> None:
        """Call it until it is done. A retriable error means: the same call again, and the producer is tainted."""
        deadline = time.monotonic() + self._commit_timeout_s
        timed = operation != "begin_transaction"
        while True:
            try:
                getattr(self._open_producer, operation)(*arguments, *([_turn(deadline)] if timed else []))
                return
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal() or cause.txn_requires_abort() or not cause.retriable():
                    raise self._transaction_error(cause) from error
                self._tainted = True
                if time.monotonic() > deadline:
                    raise self._unknown(cause.str()) from error

    def _transaction_error(self, error: KafkaError) -> HeadraceError:
        """One total function: what an error of the producer means for the transaction."""
        mapped = as_headrace_error(error, self._kafka, transactional_id=self.transactional_id)
        about = f"{mapped.message} (transactional id {self.transactional_id})"
        facts: Mapping[str, Any] = mapped.metadata
        if error.code() in _FENCED and error.fatal():
            return TransactionFenced(error_pb2.REASON_FENCED, about, **facts)
        if error.txn_requires_abort():
            return TransactionAbortable(mapped.reason, about, **facts)
        # Everything else that cannot be retried: librdkafka's advice is to take it for fatal.
        return TransactionFatal(mapped.reason, about, **facts)

    def _init_error(self, error: KafkaError) -> HeadraceError:
        if error.code() in _FENCED:
            return self._transaction_error(error)
        return as_headrace_error(error, self._kafka, transactional_id=self.transactional_id)

    def _unknown(self, why: str) -> TransactionUnknown:
        return TransactionUnknown(
            error_pb2.REASON_KAFKA_UNAVAILABLE,
            f"the transaction of {self.transactional_id} was not decided within {self._commit_timeout_s:g} s: {why}",
            bootstrap_servers=self._kafka.bootstrap_servers,
            transactional_id=self.transactional_id,
        )

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka tells of a lost connection: a request may have been sent twice.

        Also between two transactions: what happened during a commit may be told after it.
        """
        if is_transient(error):
            self._tainted = True

    def _on_log(self, kind: str) -> None:
        """Of the connection to a transaction's coordinator, which is the one that matters, it tells only its log."""
        if kind in _CONNECTION_LOST:
            self._tainted = True

    def _discard(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None  # its last reference: librdkafka ends its threads
        self._in_transaction = False


def _turn(deadline: float) -> float:
    """How long one call to librdkafka may take."""
    return max(0.1, min(_TURN_S, deadline - time.monotonic()))


# The kinds of lines in librdkafka's log that tell of a request without an answer.
_CONNECTION_LOST = frozenset({"FAIL", "REQTMOUT"})
_FENCED = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH,
})  # fmt: skip


class BatchProducer:
    """Writes records at least once: `flush` returns when Kafka has confirmed all of them."""

    def __init__(self, kafka: KafkaSettings, *, settings: Mapping[str, Any] | None = None) -> None:
        self._kafka = kafka
        self._opened = OpenProducer(kafka, settings, defaults=_CONFIRMED)
        self._reports = Tally()

    def __enter__(self) -> BatchProducer:
        self._opened.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def outstanding(self) -> int:
        """Records neither confirmed nor refused."""
        return self._opened.outstanding

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> None:
        """Send a record; waits while too many are unconfirmed. Raises InvalidArgument where it is too large."""
        report = self._reports.report
        try:
            with kafka_errors(self._kafka, topic=topic):
                enqueue(
                    self._opened.client, topic, key, value, headers=headers, partition=partition, on_delivery=report
                )
        except BufferError as error:
            raise self._not_delivered(self.outstanding) from error
        self._reports.sent += 1
        if self._reports.sent % POLL_EVERY == 0:
            self._opened.client.poll(0)

    def produce_all(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """Send records; waits while too many are unconfirmed. Those that are too large are left out: why, by their
        index.
        """
        reports = self._reports
        try:
            with kafka_errors(self._kafka, topic=topic):
                return enqueue_all(self._opened.client, topic, records, reports, on_delivery=reports.report)
        except BufferError as error:
            raise self._not_delivered(self.outstanding) from error

    def poll(self) -> None:
        """Serve delivery reports, without waiting."""
        self._opened.client.poll(0)

    def flush(self, timeout_s: float = _FLUSH_TIMEOUT_S) -> None:
        """Return when every record since the last flush is confirmed.

        Raises Unavailable (NOT_DELIVERED) with their number if some are not: read the input again from the committed
        offset. They are forgotten here.
        """
        left = flush(self._opened.client, timeout_s)
        if left or self._reports.failed:
            error = self._not_delivered(left)
            self._reports = Tally()
            self._opened.client.purge()
            raise error
        self._reports = Tally()

    def _not_delivered(self, left: int) -> HeadraceError:
        reports = self._reports
        reports.delivered = reports.sent - reports.failed - left
        return not_delivered(reports, self._kafka)
