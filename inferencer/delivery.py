"""The two guarantees: answers and offsets as one transaction, or answers first and offsets after them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from headrace.errors import Aborted, FailedPrecondition, HeadraceError, InvalidArgument, Unavailable
from headrace.v1 import error_pb2
from inferencer.pace import OFFSETS, TRANSACTIONS, Pacing
from streams.group import GroupMetadata
from streams.kafka import KafkaSettings
from streams.writer import (
    BatchProducer,
    SentRecord,
    TransactionAbortable,
    TransactionalWriter,
    TransactionFatal,
    TransactionUnknown,
)

UNSETTLED = (TransactionAbortable, TransactionFatal, TransactionUnknown)


# Kafka would say the same to every repetition: somebody has to change something.
REFUSED = frozenset(
    {error_pb2.REASON_KAFKA_FORBIDDEN, error_pb2.REASON_UNKNOWN_TOPIC, error_pb2.REASON_INVALID_FIELD},
)


class OutcomeLostError(Exception):
    """What was produced since the last commit may not count: `recover`, rewind the reader, read again."""

    def __init__(self, cause: HeadraceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Delivery(Protocol):
    """How answers and offsets reach Kafka. A context manager."""

    pacing: Pacing
    """How often to commit."""
    shows_at_once: bool
    """Whether readers see an answer before its commit."""

    def produce(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """Adds records to what the next commit covers, but those that are too large: why, by their index. Raises
        OutcomeLostError; FailedPrecondition where Kafka refuses them for good.
        """

    def commit(self, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        """Makes everything since the last commit count. `positions`: partition to next offset. Raises OutcomeLostError,
        Aborted (FENCED) when another process has this slot, and FailedPrecondition (KAFKA_FORBIDDEN, UNKNOWN_TOPIC, …)
        where Kafka refuses it for good.
        """

    def recover(self) -> None:
        """After OutcomeLostError: nothing is open any more, and the committed offsets say what counts. Raises
        Unavailable while Kafka cannot say; call it again then.
        """

    def __enter__(self) -> "Delivery": ...

    def __exit__(self, *_: object) -> None: ...


class Offsets(Protocol):
    """Where positions in the input are kept."""

    def commit(self, positions: Mapping[int, int]) -> None:
        """Partition to next offset."""


class ExactlyOnce:
    """Answers, dead letters and offsets commit together, or not at all."""

    pacing = TRANSACTIONS
    shows_at_once = False

    def __init__(self, kafka: KafkaSettings, transactional_id: str, input_topic: str) -> None:
        self._writer = TransactionalWriter(kafka, transactional_id)
        self._input_topic = input_topic
        self._topics: set[str] = set()  # written to since the last commit

    def __enter__(self) -> "ExactlyOnce":
        self._writer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def produce(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """See Delivery."""
        self._topics.add(topic)
        try:
            self._open()
            return self._writer.produce_all(topic, records)
        except UNSETTLED as error:
            raise failure_of(error, self._topics) from error

    def commit(self, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        """See Delivery."""
        try:
            self._open()
            self._writer.send_offsets(self._input_topic, positions, metadata)
            self._writer.commit()
        except UNSETTLED as error:
            raise failure_of(error, self._topics) from error
        self._topics.clear()

    def recover(self) -> None:
        """See Delivery."""
        try:
            self._writer.abort()
        except UNSETTLED:
            self._writer.recover()

    def _open(self) -> None:
        """A transaction is opened only now, after the model has answered: it is short whatever the model costs."""
        if self._writer.in_transaction:
            return
        try:
            self._writer.begin()
        except Unavailable as error:
            raise failure_of(error, self._topics) from error


class AtLeastOnce:
    """Offsets commit after Kafka has confirmed every answer; a crash between the two repeats answers."""

    pacing = OFFSETS
    shows_at_once = True

    def __init__(self, kafka: KafkaSettings, reader: Offsets) -> None:
        self._producer = BatchProducer(kafka)
        self._reader = reader
        self._topics: set[str] = set()  # written to since the last commit

    def __enter__(self) -> "AtLeastOnce":
        self._producer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.__exit__(None, None, None)

    def produce(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """See Delivery."""
        self._topics.add(topic)
        try:
            return self._producer.produce_all(topic, records)
        except Unavailable as error:
            raise failure_of(error, self._topics) from error

    def commit(self, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        """See Delivery."""
        try:
            self._producer.flush()
            self._reader.commit(positions)
        except (Unavailable, Aborted) as error:
            if is_fenced(error):
                raise
            raise failure_of(error, self._topics) from error
        self._topics.clear()

    def recover(self) -> None:
        """Nothing to undo: what was produced stays, and is produced again."""


def is_fenced(error: HeadraceError) -> bool:
    """Whether another process has taken over this slot."""
    return error.reason == error_pb2.REASON_FENCED


def failure_of(error: HeadraceError, topics: Collection[str]) -> Exception:
    """What a failed call means: OutcomeLostError, after which everything is repeated, or that Kafka refuses it.

    topics: that were written to; Kafka does not always tell which one it refuses.
    """
    reason = _reason(error)
    if reason in REFUSED:
        facts: Mapping[str, Any] = error.metadata
        names = ", ".join(sorted(topics))
        return FailedPrecondition(reason, f"cannot write to {names}: {error.message}", **{**facts, "topics": names})
    return OutcomeLostError(error)


def _reason(error: HeadraceError) -> int:
    """Why; for records that were not confirmed, why the first of them was not."""
    if error.reason == error_pb2.REASON_NOT_DELIVERED and (cause := error.metadata.get("cause")):
        names = dict(error_pb2.Reason.items())
        return names.get(f"REASON_{cause}", error.reason)
    return error.reason
