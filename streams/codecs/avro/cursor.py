"""Where the reading of each record of a batch stands, in one buffer that holds them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streams.codecs import Array

VARINT_BYTES = 10


class Cursor:
    """Reads the same thing of every record that is still good.

    rows: which records these are, ascending. at, ends: where each stands and ends in the buffer.
    reasons: of the records that are not good any more.
    """

    def __init__(self, data: bytes, rows: Array, at: Array, ends: Array) -> None:
        self.data = data
        self.buffer: Array = np.frombuffer(data, np.uint8)
        self.rows, self.at, self.ends = rows, at, ends
        self.reasons: dict[int, str] = {}
        self._last: Array | None = None

    @classmethod
    def over(cls, records: list[bytes], rows: Array) -> Cursor:
        """At the start of each; `rows` are their numbers."""
        ends = np.cumsum(np.fromiter(map(len, records), np.int64, len(records)))
        return cls(b"".join(records), rows, np.concatenate([np.zeros(1, np.int64), ends])[: len(records)], ends)

    @property
    def last(self) -> Array:
        """Where each varint could end: the places of all bytes below 128, ascending."""
        if self._last is None:
            self._last = np.flatnonzero(self.buffer < 128)
        return self._last

    def fail(self, wrong: Array, reason: Callable[[int], str]) -> None:
        """Go on without the records where `wrong` is true. `reason` gets the place in `rows`."""
        if not wrong.any():
            return
        for place in np.flatnonzero(wrong).tolist():
            self.reasons[int(self.rows[place])] = reason(place)
        keep = ~wrong
        self.rows, self.at, self.ends = self.rows[keep], self.at[keep], self.ends[keep]

    def without(self, wrong: Array, reason: Callable[[int], str], values: Array) -> Array:
        """`fail`, and the values of the others."""
        self.fail(wrong, reason)
        return values[~wrong] if wrong.any() else values

    def where(self, mask: Array) -> Cursor:
        """Of some of the records. Failures are told to this one by `join`."""
        some = Cursor(self.data, self.rows[mask], self.at[mask], self.ends[mask])
        some._last = self._last
        return some

    def join(self, mask: Array, some: Cursor) -> Array:
        """Go on where the cursor over `mask` ended. Returns which places of `rows` are still there."""
        self._last = some._last
        self.reasons |= some.reasons
        gone = mask & ~np.isin(self.rows, some.rows)
        stay = ~gone
        at = self.at.copy()
        at[mask & stay] = some.at
        self.rows, self.at, self.ends = self.rows[stay], at[stay], self.ends[stay]
        return stay

    def peek_bytes(self, width: int) -> tuple[Array, Array]:
        """The next bytes `(m, width)` of the records that have so many, and which do."""
        enough = self.ends - self.at >= width
        if not enough.any():
            return np.empty((0, width), np.uint8), enough
        windows = np.lib.stride_tricks.as_strided(self.buffer, (len(self.buffer) - width + 1, width), (1, 1))
        return windows[self.at[enough]], enough

    def peek_varints(self, count: int) -> tuple[Array, Array, Array]:
        """The next numbers `(m, count)` int64 of the records that have so many, where these end, and which do."""
        # A number has a byte at least: nothing is allocated that the records do not account for.
        enough = self.ends - self.at >= count
        at = self.at[enough]
        places = np.searchsorted(self.last, at)[:, np.newaxis] + np.arange(count)
        there = places[:, -1] < len(self.last)
        there[there] = self.last[places[there, -1]] < self.ends[enough][there]
        stops = self.last[places[there]]
        starts = np.concatenate([at[there, np.newaxis], stops[:, :-1] + 1], axis=1)
        numbers, fit = self._varints(starts, stops - starts + 1)
        there[there] = fit
        enough[enough] = there
        return numbers[fit], stops[fit, -1] + 1, enough

    def _varints(self, starts: Array, lengths: Array) -> tuple[Array, Array]:
        """The numbers, and which rows have only such that fit in 64 bits."""
        fit: Array = np.asarray((lengths <= VARINT_BYTES).all(axis=1))
        values = (self.buffer[starts] & np.uint8(127)).astype(np.uint64)
        for step in range(1, min(VARINT_BYTES, int(lengths.max(initial=0)))):
            here = lengths > step
            septets = self.buffer[starts[here] + step] & np.uint8(127)
            values[here] |= septets.astype(np.uint64) << np.uint64(7 * step)
            if step == VARINT_BYTES - 1 and (septets > 1).any():
                over = np.zeros(lengths.shape, np.bool_)
                over[here] = septets > 1
                fit &= ~over.any(axis=1)
        return (values >> np.uint64(1)).view(np.int64) ^ -(values & np.uint64(1)).view(np.int64), fit

    def varints(self, count: int, what: str) -> Array:
        """The next numbers `(len(rows), count)` int64."""
        numbers, stops, there = self.peek_varints(count)
        self.fail(~there, lambda _: f"{what} is cut off, or no number of at most 64 bits")
        self.at = stops
        return numbers

    def bytes(self, width: int, what: str) -> Array:
        """The next bytes `(len(rows), width)`."""
        found, enough = self.peek_bytes(width)
        left = self.ends - self.at
        self.fail(~enough, lambda place: f"{what} takes {width} bytes, and {left[place]} are left")
        self.at = self.at + width
        return found
