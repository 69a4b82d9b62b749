"""Which offsets of a partition the records of one producer got, from its delivery reports."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import KafkaError, Message

from headrace.v1.stream_pb2 import OffsetRange
from streams.delivery import Tally


class Lane:
    """The confirmed offsets of one partition as runs: half-open, and every offset in them is one of our records.

    Exact because Kafka gives each confirmed record an offset of its own, and each has its own report here. Records of
    others between ours, and transaction markers, end a run; a run holds nothing else. Reports come in the order of
    their offsets from an idempotent producer; another order would only make more runs, which `ranges` joins.
    """

    __slots__ = ("_closed", "_closed_count", "_markers", "_next", "_start", "_tally", "partition", "shared", "topic")

    def __init__(self, topic: str, partition: int, tally: Tally) -> None:
        self.topic = topic
        self.partition = partition
        self.shared = False
        """Whether there are offsets between ours that are none of ours."""
        self._tally = tally
        self._closed: list[tuple[int, int]] = []
        self._closed_count = 0
        self._start = self._next = -1
        self._markers: set[int] = set()

    def report(self, error: KafkaError | None, message: Message) -> None:
        """A delivery report. Called once per record: it does no more than it must."""
        if error is not None:
            self._tally.fail(error, self.topic)
            return
        offset: int = message.offset()  # type: ignore[assignment]
        if offset != self._next:
            self._begin(offset)
        self._next = offset + 1

    @property
    def delivered(self) -> int:
        """Records that were confirmed."""
        return self._closed_count + self._next - self._start

    @property
    def run_count(self) -> int:
        """How many ranges all runs are."""
        return len(self._runs())

    def committed(self) -> None:
        """A transaction with records of this partition was committed: Kafka writes a marker behind them."""
        if self._next >= 0:
            self._markers.add(self._next)

    def ranges(self, most: int) -> Iterator[OffsetRange]:
        """The runs in order. If there are more than `most`, those with the least between them are joined; readers then
        tell the records apart by their header.
        """
        for start, end in _joined(self._runs(), most):
            yield OffsetRange(topic=self.topic, partition=self.partition, start=start, end=end)

    def _begin(self, offset: int) -> None:
        if self._next >= 0:
            self._closed.append((self._start, self._next))
            self._closed_count += self._next - self._start
            self.shared = self.shared or not self._is_marker(self._next, offset)
        self._start = offset

    def _is_marker(self, end: int, start: int) -> bool:
        """Whether all that is between two runs is the marker of our own transaction.

        It is written behind the records before it and before those after it: one offset between them can only be it.
        """
        return start - end == 1 and end in self._markers

    def _runs(self) -> list[tuple[int, int]]:
        runs = sorted([*self._closed, (self._start, self._next)]) if self._next >= 0 else []
        whole: list[tuple[int, int]] = []
        for start, end in runs:
            if whole and (start == whole[-1][1] or self._is_marker(whole[-1][1], start)):
                whole[-1] = whole[-1][0], end
            else:
                whole.append((start, end))
        return whole


def _joined(runs: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most so many runs; the widest gaps stay, the first ones of those alike: a sink that came later marks its
    records once it has seen us.
    """
    if len(runs) <= most:
        return runs
    gaps = sorted(range(1, len(runs)), key=lambda index: (runs[index][0] - runs[index - 1][1], -index))
    splits = sorted(gaps[len(runs) - most :])
    starts = [runs[index][0] for index in (0, *splits)]
    ends = [runs[index - 1][1] for index in splits] + [runs[-1][1]]
    return list(zip(starts, ends, strict=True))
