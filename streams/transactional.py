"""A stream that readers see whole or not at all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from confluent_kafka import KafkaException

from headrace.errors import HeadraceError, InvalidArgument
from headrace.failpoints import fail_at
from streams.kafka import Headers, KafkaSettings
from streams.producer import Record, StreamRecords
from streams.writer import TransactionalWriter

log = logging.getLogger(__name__)

TRANSACTION_S = 60.0


class TransactionalStreamProducer:
    """As StreamProducer, but readers see nothing of it before the announcement, and both together.

    One transaction, unless sending takes longer than a transaction may: then a transaction is committed in time and
    another one begun, and the announcement is in the last. A thread watches the time, because the caller may take a
    break that is longer than a transaction. When one transaction fails, so does everything behind it, with its error,
    and nothing is announced.

    transactional_id: another producer with the same id ends this one (TransactionFenced) and what it left open.
    transaction_s: Kafka aborts a transaction that is open for longer; at most the cluster's
        `transaction.max.timeout.ms`. A third of it is used.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        transactional_id: str,
        *,
        headers: Headers | None = None,
        transaction_s: float = TRANSACTION_S,
    ) -> None:
        self.topic = topic
        self.records = StreamRecords(kafka, headers, when_shared=True)
        self._transaction_s = transaction_s
        settings = {"transaction.timeout.ms": int(transaction_s * 1000)}
        self._writer = TransactionalWriter(kafka, transactional_id, commit_timeout_s=transaction_s, settings=settings)
        self._begun_at = 0.0
        self._failure: HeadraceError | None = None
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        self._watch = threading.Thread(target=self._commit_in_time, name="sink-transaction", daemon=True)

    def __enter__(self) -> TransactionalStreamProducer:
        self._writer.recover()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._watch.join()
        self._writer.close()

    def send_all(self, records: Iterable[Record], topic: str | None = None, *, marked: bool = False) -> None:
        """As of StreamProducer; also raises what a commit in between has raised."""
        with self._turn():
            self._begin()
            self.records.send_all(self._writer.client, topic or self.topic, records, marked=marked)

    def flush(self, timeout_s: float | None = None, on_turn: Callable[[], None] | None = None) -> None:
        """Return when every record is in the log, though not yet committed."""
        with self._turn():
            if self._writer.in_transaction:
                self.records.flush(self._writer.client, self.topic, timeout_s or self._transaction_s, on_turn)

    def announce(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None:
        """Commit what is uncommitted together with one record in another topic.

        Raises TransactionAbortable, TransactionFatal, TransactionFenced: nothing is to be seen of the announcement.
        TransactionUnknown: it is not known; the same announcement again does no harm.
        """
        with self._turn():
            self._begin()
            self._writer.produce(topic, key, value, headers)
            fail_at("sink_before_commit")
            self._commit()

    def _begin(self) -> None:
        if self._writer.in_transaction and self._left_s() <= 0:
            self._commit()
        if not self._writer.in_transaction:
            self._writer.begin()
            self._begun_at = time.monotonic()
            self._changed.notify_all()

    def _left_s(self) -> float:
        """Until the open transaction should be committed."""
        return self._begun_at + self._transaction_s / 3 - time.monotonic()

    def _commit(self) -> None:
        self.records.flush(self._writer.client, self.topic, self._transaction_s)
        self._writer.commit()
        self.records.committed()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One caller at a time. After a failure every call fails with it: what came behind it would leave a gap."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            try:
                yield
            except InvalidArgument:
                raise  # a record that was not sent
            except HeadraceError as error:
                self._failure = self._explained(error)
                raise self._failure from error.__cause__

    def _explained(self, error: HeadraceError) -> HeadraceError:
        """What has broken the transaction: its records only say that they were dropped. A commit says why it cannot."""
        if error.reason_name != "NOT_DELIVERED" or not self._writer.in_transaction:
            return error
        try:
            self._writer.commit()
        except HeadraceError as broken:
            if isinstance(broken.__cause__, KafkaException):
                self.records.blame(broken.__cause__.args[0])
                return self.records.error(self.topic)
        return error

    def _commit_in_time(self) -> None:
        """On a thread: commit a transaction that is open for a third of the time that it may be."""
        with self._changed:
            while not self._closing:
                if not self._writer.in_transaction or self._failure is not None:
                    self._changed.wait()
                elif (left_s := self._left_s()) > 0:
                    self._changed.wait(left_s)
                else:
                    self._commit_quietly()

    def _commit_quietly(self) -> None:
        try:
            with self._turn():
                self._commit()
                log.info("the stream goes on in another transaction", extra={"topic": self.topic})
        except HeadraceError as error:
            log.warning("a part of the stream was not committed", extra={"error": str(error)})
