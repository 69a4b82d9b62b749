"""A batch of records as Kafka hands them out: values or keys, None where there is none."""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Sequence
from operator import countOf

import numpy as np

from streams.codecs import Array

Records = Sequence[bytes | None]

# Two, since a reader holds the rows of the last batch while it decodes the next.
_kept: deque[io.BytesIO] = deque(maxlen=2)
MAX_KEPT_BYTES = 32 * 2**20


def flat(array: Array) -> Array:
    """`(n, everything)`: a row each, of none too, where numpy's -1 has no answer."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def joined(records: Records, size: int) -> memoryview | None:
    """All of them in one piece, read-only, if each has `size` bytes; else None.

    Writing each one into a buffer copies it and tells its length at once, for less than joining them and asking for
    their lengths.
    """
    buffer = _buffer()
    try:
        fits = countOf(map(buffer.write, records), size) == len(records)  # type: ignore[arg-type]
    except TypeError:  # None has no bytes
        fits = False
    if buffer.tell() <= MAX_KEPT_BYTES:
        _kept.append(buffer)
    return buffer.getbuffer()[: size * len(records)].toreadonly() if fits else None


def _buffer() -> io.BytesIO:
    """At its beginning, as large as it once had to be: growing again costs more than all else.

    A buffer refuses to be written as long as rows that were made of it are in use.
    """
    while _kept:
        try:
            buffer = _kept.popleft()
            buffer.seek(0)
            buffer.write(b"")
        except (IndexError, BufferError):  # another thread took the last one; its rows are in use
            continue
        return buffer
    return io.BytesIO()


def sizes_of(records: Records) -> Array:
    """The length of each, int64; -1 for None."""
    try:
        return np.fromiter(map(len, records), np.int64, len(records))  # type: ignore[arg-type]
    except TypeError:
        return np.fromiter((-1 if record is None else len(record) for record in records), np.int64, len(records))
