"""What is to be read of one partition: its ranges in order, and what lies between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headrace.v1.stream_pb2 import OffsetRange

# (topic, partition)
Place = tuple[str, int]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class PartitionPlan:
    """The ranges of one partition, none of them empty or overlapping another."""

    def __init__(self, ranges: Sequence[OffsetRange]) -> None:
        bounds = sorted((one.start, one.end) for one in ranges)
        self._starts = np.array([start for start, _ in bounds], np.int64)
        self._ends = np.array([end for _, end in bounds], np.int64)
        # How many offsets of the ranges lie before each of them.
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._ends - self._starts)])
        self.start, self.end = int(self._starts[0]), int(self._ends[-1])

    def wanted(self, offsets: Integers) -> Booleans:
        """Which of the offsets are in a range."""
        if len(self._starts) == 1:
            inside: Booleans = (offsets >= self.start) & (offsets < self.end)
            return inside
        ranges = np.searchsorted(self._starts, offsets, "right") - 1
        return (ranges >= 0) & (offsets < self._ends[np.maximum(ranges, 0)])

    def next_wanted(self, position: int) -> int:
        """The first offset from `position` on that is in a range; `end` when there is none."""
        ended = int(np.searchsorted(self._ends, position, "right"))
        return max(position, int(self._starts[ended])) if ended < len(self._starts) else self.end

    def count_before(self, position: int) -> int:
        """How many offsets of the ranges lie before `position`."""
        begun = int(np.searchsorted(self._starts, position, "left"))
        if not begun:
            return 0
        return int(self._before[begun - 1]) + min(position, int(self._ends[begun - 1])) - int(self._starts[begun - 1])


def plans_of(ranges: Iterable[OffsetRange]) -> dict[Place, PartitionPlan]:
    """The plan of each partition of which anything is to be read."""
    by_place: dict[Place, list[OffsetRange]] = defaultdict(list)
    for one in ranges:
        if one.start < one.end:
            by_place[one.topic, one.partition].append(one)
    return {place: PartitionPlan(of_place) for place, of_place in by_place.items()}
