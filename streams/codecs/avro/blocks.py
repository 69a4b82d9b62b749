"""Arrays of Avro that are not written in the usual one block: walked one record at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streams.codecs import Array
from streams.codecs.avro.cursor import VARINT_BYTES

WIDTHS = {"boolean": 1, "float": 4, "double": 8}


class BrokenBlocks(ValueError):
    """The blocks are not those of an array of this kind."""


@dataclass
class Walk:
    """Finds the items of one record's array.

    last: where varints may end in all of the data. end: of the record.
    pieces: the bytes of the items, in order. shape: of the array, once walked.
    """

    data: bytes
    last: Array
    end: int
    kind: str
    pieces: list[bytes] = field(default_factory=list)

    def array(self, at: int, depth: int) -> tuple[tuple[int, ...], int]:
        """The array's shape, and where it ends. Raises BrokenBlocks.

        Takes time in the order of the record's bytes: every block and every item has one at least.
        """
        total, inner = 0, None
        while True:
            count, at = self._block(at)
            if count == 0:
                return ((total, *(inner or (0,) * (depth - 1))), at)
            total += count
            if depth == 1:
                at = self._items(at, count)
                continue
            for _ in range(count):
                shape, at = self.array(at, depth - 1)
                if inner not in (None, shape):
                    raise BrokenBlocks(f"arrays of {inner} and of {shape} in one")
                inner = shape

    def _block(self, at: int) -> tuple[int, int]:
        """How many items follow; a negative count is followed by the block's size, which readers may skip by."""
        count, at = self._number(at)
        if count < 0:
            count = -count
            size, at = self._number(at)
            if not 0 <= size <= self.end - at:
                raise BrokenBlocks(f"a block of {size} bytes, where {self.end - at} are left")
        if count > self.end - at:
            raise BrokenBlocks(f"a block of {count} items, where {self.end - at} bytes are left")
        return count, at

    def _items(self, at: int, count: int) -> int:
        stop = at + count * WIDTHS[self.kind] if self.kind in WIDTHS else self._after_varints(at, count)
        if stop > self.end:
            raise BrokenBlocks("its items are cut off")
        self.pieces.append(self.data[at:stop])
        return stop

    def _after_varints(self, at: int, count: int) -> int:
        if count == 1:  # many small blocks: a search takes longer than a look
            while at < self.end and self.data[at] > 127:
                at += 1
            return at + 1
        place = int(np.searchsorted(self.last, at)) + count - 1
        return int(self.last[place]) + 1 if place < len(self.last) else self.end + 1

    def _number(self, at: int) -> tuple[int, int]:
        value = 0
        for step in range(VARINT_BYTES):
            if at >= self.end:
                raise BrokenBlocks("it is cut off")
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << (7 * step)
            if byte < 128:
                break
        if byte >= 128 or value >= 2**64:
            raise BrokenBlocks("a length of more than 64 bits")
        return (value >> 1) ^ -(value & 1), at
