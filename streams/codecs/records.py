"""A batch of records as Kafka hands them out: values or keys, None where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import countOf

import numpy as np

from streams.codecs import Array

Records = Sequence[bytes | None]


def flat(array: Array) -> Array:
    """`(n, everything)`: a row each, of none too, where numpy's -1 has no answer."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def all_of_size(records: Records, size: int) -> bool:
    """Whether each has so many bytes. Where all are alike this is all that is done per record, so without an array."""
    try:
        return countOf(map(len, records), size) == len(records)  # type: ignore[arg-type]
    except TypeError:
        return False


def sizes_of(records: Records) -> Array:
    """The length of each, int64; -1 for None."""
    try:
        return np.fromiter(map(len, records), np.int64, len(records))  # type: ignore[arg-type]
    except TypeError:
        return np.fromiter((-1 if record is None else len(record) for record in records), np.int64, len(records))
