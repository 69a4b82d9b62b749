"""Records of a stream that cannot be decoded: how many there are, and which are the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from streams.offsets import MAX_OFFSET
from streams.reader import RangeReader, RecordBatch

# Undecodable records that an error shows.
_SHOWN = 3


@dataclass(frozen=True, order=True)
class _BadPlace:
    """Where an undecodable record is, in the order in which they are shown, and why it is one."""

    topic: str
    partition: int
    offset: int
    why: str = field(compare=False)

    @property
    def place(self) -> tuple[str, int]:
        return self.topic, self.partition


class DecodeErrors:
    """Counts undecodable records and keeps the first few by topic, partition and offset.

    Partitions are read side by side, in an order that differs from run to run; the same records fail the same way.

    limit: the part of the records that may be undecodable, in [0, 1].
    """

    def __init__(self, limit: float, reader: RangeReader) -> None:
        self._limit = limit
        self._reader = reader
        self._first: list[_BadPlace] = []
        self.count = 0

    def add(self, batch: RecordBatch, bad: Mapping[int, str]) -> None:
        """bad: index in the batch → why, in order."""
        if bad:
            self.count += len(bad)
            self._first = sorted([*self._first, *self._first_of(batch, bad)])[:_SHOWN]

    @property
    def too_many(self) -> bool:
        """Whether the limit could not allow so many if all offsets were records."""
        return self.count > self._limit * self._reader.records_total

    def raise_if_known(self) -> None:
        """Raise DECODE_ERROR if no record that is still to come could be one of those that it shows."""
        if len(self._first) < _SHOWN:
            return
        last = self._first[-1]
        earlier = [place for place in self._reader.places if place < last.place]
        if self._reader.has_passed(last.place, last.offset) and all(
            self._reader.has_passed(place, MAX_OFFSET) for place in earlier
        ):
            raise self._error()

    def check(self) -> None:
        """Raise DECODE_ERROR if more are bad than the limit allows of the records that were read."""
        if self.count > self._limit * self._reader.records_read:
            raise self._error()

    def _first_of(self, batch: RecordBatch, bad: Mapping[int, str]) -> Iterator[_BadPlace]:
        """The first few of each partition."""
        found: dict[int, int] = {}
        for index, why in bad.items():
            number = int(batch.places[index])
            found[number] = found.get(number, 0) + 1
            if found[number] <= _SHOWN:
                yield _BadPlace(*self._reader.places[number], int(batch.offsets[index]), why)

    @property
    def _of_how_many(self) -> str:
        reader = self._reader
        everything = reader.offsets_done >= reader.records_total
        return f"{reader.records_read} records" if everything else f"the {reader.records_read} records read so far"

    def _error(self) -> InvalidArgument:
        examples = "; ".join(f"{bad.topic}/{bad.partition} offset {bad.offset}: {bad.why}" for bad in self._first)
        allowed = f"decode_error_limit allows {self._limit:.1%}"
        error = InvalidArgument(
            error_pb2.REASON_DECODE_ERROR,
            f"{self.count} of {self._of_how_many} cannot be decoded ({allowed}): {examples}",
        )
        facts: dict[str, object] = {"count": self.count}
        for number, bad in enumerate(self._first, 1):
            suffix = f"_{number}" if number > 1 else ""
            facts |= {f"topic{suffix}": bad.topic, f"partition{suffix}": bad.partition}
            facts |= {f"offset{suffix}": bad.offset, f"cause{suffix}": bad.why}
        error.metadata = {name: str(value) for name, value in facts.items()}
        return error
