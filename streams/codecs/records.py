"""A batch of records as Kafka hands them out: values or keys, None where there is none."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from streams.codecs import Array

Records = Sequence[bytes | None]


def flat(array: Array) -> Array:
    """`(n, everything)`: a row each, of none too, where numpy's -1 has no answer."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def joined(records: Records, size: int) -> bytes | None:
    """All of them in one piece, if each has `size` bytes, at least one; else None.

    Looking for the last byte of each costs less than asking for each length, and is as exact: where none is shorter and
    all together have as many bytes as they should, none is longer.
    """
    try:
        deque(map(itemgetter(size - 1), records), maxlen=0)  # type: ignore[arg-type]
        whole = b"".join(records)  # type: ignore[arg-type]
    except (IndexError, TypeError):  # a shorter one, or None
        return None
    return whole if len(whole) == size * len(records) else None


def sizes_of(records: Records) -> Array:
    """The length of each, int64; -1 for None."""
    try:
        return np.fromiter(map(len, records), np.int64, len(records))  # type: ignore[arg-type]
    except TypeError:
        return np.fromiter((-1 if record is None else len(record) for record in records), np.int64, len(records))
