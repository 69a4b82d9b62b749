"""What can happen to a topic's log, done to a real one and to a model beside it that says what a reader must see."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from headrace.errors import HeadraceError, Unavailable
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import KafkaSettings, ensure_topics, log_ends
from streams.writer import TransactionalWriter
from tests.streams.log import delete_before, flush, set_config
from tests.support import eventually

PARTITIONS = 2
# A segment for each write: only what lies in closed segments is compacted.
TINY_SEGMENTS = {
    "segment.ms": "1",
    "segment.index.bytes": "1024",
    "retention.ms": "-1",
    "min.cleanable.dirty.ratio": "0",
}
# The moment at which a segment is closed is a later one than that of the record before it.
LATER_MS = 5

Values = dict[int, list[bytes]]
"""Partition to the values of its records, in order."""


@dataclass(frozen=True)
class Write:
    """Records with these keys; committed or aborted where they are a transaction, plain where not."""

    partition: int
    keys: tuple[int, ...]


@dataclass(frozen=True)
class Transaction:
    writes: tuple[Write, ...]
    commit: bool


@dataclass(frozen=True)
class Delete:
    """Retention takes this part of what is left of the log."""

    partition: int
    part: float


@dataclass(frozen=True)
class Compact:
    """Of the records with the same key in one partition, the last is left."""


Event = Write | Transaction | Delete | Compact


@dataclass
class LogModel:
    """One partition: which offsets hold records that a reader may see."""

    low: int = 0
    high: int = 0
    records: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """Offset to key and value."""
    hidden: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """Those of the transaction that is open."""

    @property
    def stable(self) -> int:
        """The offset behind the last that a reader may see."""
        return min(self.hidden, default=self.high)

    def write(self, records: Sequence[tuple[str, bytes]]) -> None:
        self.records |= dict(enumerate(records, self.high))
        self.high += len(records)

    def write_hidden(self, records: Sequence[tuple[str, bytes]]) -> None:
        self.hidden |= dict(enumerate(records, self.high))
        self.high += len(records)

    def end_transaction(self, *, commit: bool) -> None:
        """Its marker takes an offset, where it wrote anything."""
        self.high += bool(self.hidden)
        self.records |= self.hidden if commit else {}
        self.hidden = {}

    def delete_before(self, offset: int) -> None:
        self.low = offset
        self.records = {at: record for at, record in self.records.items() if at >= offset}

    def compact_before(self, offset: int) -> None:
        last = {key: at for at, (key, _) in sorted(self.records.items()) if at < offset}
        self.records = {at: record for at, record in self.records.items() if at >= offset or last[record[0]] == at}

    def values(self, start: int, end: int) -> list[bytes]:
        return [value for at, (_, value) in sorted(self.records.items()) if start <= at < end]

    def faults(self, one: OffsetRange) -> set[str]:
        """Why the range cannot be read."""
        if one.start == one.end:
            return set()
        reasons = {"DATA_EXPIRED": one.start < self.low, "DATA_INCOMPLETE": one.end > self.stable}
        return {reason for reason, applies in reasons.items() if applies}


class Log:
    """A topic and its model, one for each partition."""

    def __init__(self, tools: Tools, name: str) -> None:
        self.name = name
        self.models = [LogModel() for _ in range(PARTITIONS)]
        self.kafka = tools.kafka
        self._tools = tools
        self._written = 0

    def happen(self, event: Event) -> None:
        match event:
            case Write():
                self._write(event.partition, self._records(event))
            case Transaction():
                self.leave_open(event.writes)
                self.end_transaction(commit=event.commit)
            case Delete():
                model = self.models[event.partition]
                model.delete_before(model.low + round(event.part * (model.high - model.low)))
                delete_before(self._tools.kafka, self.name, model.low, event.partition)
            case Compact():
                self._compact()

    def leave_open(self, writes: Sequence[Write]) -> None:
        """Begins a transaction with these records."""
        writer = self._tools.writer
        writer.begin()
        for write in writes:
            records = self._records(write)
            for key, value in records:
                writer.produce(self.name, key.encode(), value, partition=write.partition)
            self.models[write.partition].write_hidden(records)
        flush(writer)

    def end_transaction(self, *, commit: bool) -> None:
        if commit:
            self._tools.writer.commit()
        else:
            self._tools.writer.abort()
        for model in self.models:
            model.end_transaction(commit=commit)
        # Kafka answers before it has written the markers: what is written next could come to lie before them.
        eventually(self.is_as_modelled)

    def is_as_modelled(self) -> bool:
        """Whether the ends of the log are where the model has them."""
        ends = log_ends(self.kafka, self.name)
        return ends == {number: (model.low, model.high, model.stable) for number, model in enumerate(self.models)}

    def expected(self, ranges: Sequence[OffsetRange]) -> Values | set[str]:
        """The values in the ranges, or the reasons of which a reader may tell any."""
        faults: set[str] = set().union(*(self.models[one.partition].faults(one) for one in ranges))
        values: Values = {}
        for one in sorted(ranges, key=lambda one: one.start):
            values.setdefault(one.partition, []).extend(self.models[one.partition].values(one.start, one.end))
        return faults or {partition: found for partition, found in values.items() if found}

    def _records(self, write: Write) -> list[tuple[str, bytes]]:
        first, self._written = self._written, self._written + len(write.keys)
        return [(f"key-{key}", b"%d" % number) for number, key in enumerate(write.keys, first)]

    def _write(self, partition: int, records: Sequence[tuple[str, bytes]], later_ms: int = 0) -> None:
        stamp = time.time_ns() // 1_000_000 + later_ms
        for key, value in records:
            self._tools.plain.produce(self.name, value, key, partition=partition, timestamp=stamp)
        assert self._tools.plain.flush(10) == 0
        self.models[partition].write(records)

    def _compact(self) -> None:
        """Lets the cleaner work until it has done all it can; not while anything is read."""
        for number, model in enumerate(self.models):
            behind = model.high
            self._write(number, [(uuid.uuid4().hex, b"closes the segments before it")], LATER_MS)
            model.compact_before(behind)
        self._tools.set_policy(self.name, "compact,delete")
        wanted = [model.values(model.low, model.high) for model in self.models]
        eventually(lambda: self._tools.visible(self.name, self.models) == wanted, timeout_s=30)
        self._tools.set_policy(self.name, "delete")


class Tools:
    """Clients that all logs of a test share; none of them knows ranges."""

    def __init__(self, kafka: KafkaSettings, plain: Producer, writer: TransactionalWriter, bare: Consumer) -> None:
        self.kafka = kafka
        self.plain = plain
        self.writer = writer
        self._bare = bare
        self._admin = kafka.admin()

    def new_log(self) -> Log:
        self._end_transaction()  # which a log that could not be made may have left open
        name = f"history-{uuid.uuid4().hex[:12]}"
        ensure_topics(self.kafka, {name: PARTITIONS}, config={**TINY_SEGMENTS, "cleanup.policy": "delete"})
        log = Log(self, name)
        eventually(lambda: self._has_leaders(log))
        return log

    def _has_leaders(self, log: Log) -> bool:
        try:
            return log.is_as_modelled()
        except Unavailable:
            return False

    def remove(self, log: Log) -> None:
        self._end_transaction()
        self._admin.delete_topics([log.name])[log.name].result(10)

    def _end_transaction(self) -> None:
        """Every log begins without one, whatever became of the one before."""
        try:
            self.writer.abort()
        except HeadraceError:
            self.writer.recover()

    def set_policy(self, topic: str, policy: str) -> None:
        set_config(self.kafka, topic, "cleanup.policy", policy)

    def visible(self, topic: str, models: Sequence[LogModel]) -> list[list[bytes]]:
        """All values of each partition, as a plain consumer sees them that reads everything."""
        self._bare.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        found: list[list[bytes]] = [[] for _ in models]
        behind = [-1 for _ in models]
        while any(at < model.stable for at, model in zip(behind, models, strict=True)):
            for message in self._bare.consume(1000, 0.2):
                number = message.partition()
                assert number is not None
                if message.error() is None:
                    found[number].append(message.value() or b"")
                else:
                    behind[number] = _end_of_partition(message)
        return found


@contextmanager
def tools(kafka: KafkaSettings) -> Iterator[Tools]:
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bare", "enable.partition.eof": True}
    bare = Consumer({**settings, "isolation.level": "read_committed", "fetch.wait.max.ms": 10})
    plain = kafka.producer({"enable.idempotence": False, "linger.ms": 0})
    # Transactions stay open while ranges are read: on a busy machine longer than the writer's own 30 s, after which
    # the broker would abort them.
    patient = {"transaction.timeout.ms": 600_000}
    with TransactionalWriter(kafka, f"history-{uuid.uuid4().hex[:8]}", settings=patient) as writer:
        yield Tools(kafka, plain, writer, bare)
    bare.close()


def _end_of_partition(message: Message) -> int:
    error, offset = message.error(), message.offset()
    assert error is not None
    assert error.code() == KafkaError._PARTITION_EOF, error
    assert offset is not None
    return offset
