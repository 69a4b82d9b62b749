"""Bugs that an inference could have, each planted in the process of a replica: an oracle has to find all of them.

They reach into what is private: that is where such bugs are made.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_END

import streams.kafka
from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from inferencer.answers import Refusal
from inferencer.delivery import AtLeastOnce, ExactlyOnce, Offsets
from inferencer.loop import Loop
from inferencer.predictor import Answers, Predictor
from streams.group import GroupMetadata, GroupReader
from streams.kafka import KafkaSettings, Message
from streams.writer import BatchProducer, SentRecord, TransactionalWriter


def commit_before_produce() -> None:
    """Positions first, answers in the next transaction."""
    produce = Loop._produce

    def planted(self: Loop, questions: Sequence[Message], answers: Answers) -> None:
        for question in questions:
            self._positions[question.partition() or 0] = (question.offset() or 0) + 1
        self._commit()
        produce(self, questions, answers)

    Loop._produce = planted  # type: ignore[method-assign]


def no_rewind() -> None:
    """After an abort the reader goes on where it is."""
    GroupReader.rewind = lambda self: None  # type: ignore[method-assign]


def constant_group() -> None:
    """Two inferences share one group."""
    start = GroupReader.__init__

    def planted(self: GroupReader, kafka: KafkaSettings, **options: Any) -> None:
        start(self, kafka, **{**options, "group_id": f"group-of-{options['topic']}", "slot": uuid.uuid4().hex})

    GroupReader.__init__ = planted  # type: ignore[method-assign]


def latest() -> None:
    """Without a committed offset, reading begins at the end."""
    starts = GroupReader._starts

    def planted(self: GroupReader, numbers: Any) -> dict[int, int]:
        return {number: at if at >= 0 else OFFSET_END for number, at in starts(self, numbers).items()}

    GroupReader._starts = planted  # type: ignore[method-assign]


def last_offset() -> None:
    """Commits the last offset and not the next one."""
    send = TransactionalWriter.send_offsets

    def planted(self: TransactionalWriter, topic: str, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        send(self, topic, {number: at - 1 for number, at in positions.items()}, metadata)

    TransactionalWriter.send_offsets = planted  # type: ignore[method-assign]


def random_transactional_id() -> None:
    """A process that comes back does not fence what the one before it left open."""
    start = ExactlyOnce.__init__

    def planted(self: ExactlyOnce, kafka: KafkaSettings, transactional_id: str, input_topic: str) -> None:
        start(self, kafka, f"{transactional_id}-{uuid.uuid4().hex}", input_topic)

    ExactlyOnce.__init__ = planted  # type: ignore[method-assign]


def offsets_before_reports() -> None:
    """At least once: offsets commit while answers are still on their way, which take a moment here."""
    start = AtLeastOnce.__init__

    def slow(self: AtLeastOnce, kafka: KafkaSettings, reader: Offsets) -> None:
        start(self, kafka, reader)
        self._producer = BatchProducer(kafka, settings={"linger.ms": 5000, "batch.size": 10_000_000})

    def commit(self: AtLeastOnce, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        self._reader.commit(positions)

    AtLeastOnce.__init__ = slow  # type: ignore[method-assign]
    AtLeastOnce.commit = commit  # type: ignore[method-assign]


def unfenced() -> None:
    """Offsets are committed as of no member of the group, which Kafka does not check."""
    send = TransactionalWriter.send_offsets

    def planted(self: TransactionalWriter, topic: str, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        nobody = self._kafka.consumer({"group.id": metadata.group_id})
        send(self, topic, positions, GroupMetadata.parse(nobody.consumer_group_metadata()))
        nobody.close()

    GroupMetadata.is_member = property(lambda self: True)  # type: ignore[method-assign, assignment]
    TransactionalWriter.send_offsets = planted  # type: ignore[method-assign]


def dead_letters_apart() -> None:
    """Dead letters are sent at once, outside of the transaction."""
    produce, apart = ExactlyOnce.produce, list[BatchProducer]()

    def planted(self: ExactlyOnce, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        if not topic.endswith(".dead-letters"):
            return produce(self, topic, records)
        if not apart:
            apart.append(BatchProducer(self._writer._kafka).__enter__())
        refused = apart[0].produce_all(topic, records)
        apart[0].flush()
        return refused

    ExactlyOnce.produce = planted  # type: ignore[method-assign]


def batch_refused() -> None:
    """One record that ends the worker takes its whole batch with it."""

    def planted(self: Predictor, columns: Any, keep_alive: Callable[[], None], timeout_s: float) -> Any:
        refusal = Refusal(error_pb2.REASON_WORKER_CRASHED, "the batch failed")
        return [refusal] * len(next(iter(columns.values())))

    Predictor._salvage = planted  # type: ignore[method-assign]


def out_of_order() -> None:
    """A batch is answered from its end to its beginning."""
    produce = Loop._produce

    def planted(self: Loop, questions: Sequence[Message], answers: Answers) -> None:
        produce(self, questions[::-1], answers[::-1])
        for question in questions:
            if question.partition() in self._positions:
                self._positions[question.partition() or 0] = (question.offset() or 0) + 1

    Loop._produce = planted  # type: ignore[method-assign]


def revocation_ignored() -> None:
    """Answers of partitions that are taken away are committed after that."""
    Loop.before_revoke = lambda self, partitions: None  # type: ignore[method-assign]


def auto_commit() -> None:
    """The client commits what was polled, by a timer."""
    options = {"enable.auto.commit": True, "enable.auto.offset.store": True, "auto.commit.interval.ms": 50}
    streams.kafka._CONSUMER = {**streams.kafka._CONSUMER, **options}


def untainted() -> None:
    """After a lost connection the producer goes on as it is."""
    TransactionalWriter._tainted = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]


BUGS: Mapping[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        commit_before_produce,
        no_rewind,
        constant_group,
        latest,
        last_offset,
        random_transactional_id,
        offsets_before_reports,
        unfenced,
        dead_letters_apart,
        batch_refused,
        out_of_order,
        revocation_ignored,
        auto_commit,
        untainted,
    )
}
