"""Which rows are for training, for validation and for the test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from headrace.v1.deployment_pb2 import SPLIT_ORDERED, Split
from streams.spool import Spool

Rows = np.ndarray[Any, np.dtype[np.int64]]


class OrderKeys(NamedTuple):
    """Where and when each row was written: arrays of one length, int64. `partitions` orders topics too."""

    timestamps: np.ndarray[Any, Any]
    partitions: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]


@dataclass(frozen=True)
class SplitRows:
    """Row numbers, int64, each row in exactly one of the three."""

    training: Rows
    validation: Rows
    test: Rows


def split_rows(
    spool_or_n: Spool | int,
    *,
    validation_rate: float,
    test_rate: float,
    seed: int,
    split: Split | int,
    order_keys: OrderKeys | None = None,
) -> SplitRows:
    """`validation = floor(rate * n)`, `test = floor(rate * n)`, training the rest.

    SHUFFLED (the default) permutes the rows by the seed, whatever partitions they came from and in whatever order they
    were read; ORDERED takes them by timestamp, then partition, then offset: training, validation, test.

    order_keys: those of the spool unless given; without any, rows are taken for ordered as they are.
    """
    n = spool_or_n if isinstance(spool_or_n, int) else spool_or_n.rows
    keys = order_keys or (None if isinstance(spool_or_n, int) else _keys(spool_or_n))
    rows = _by_time(keys, n) if split == SPLIT_ORDERED else _shuffled(_by_place(keys, n), seed)
    validation, test = _part(validation_rate, n), _part(test_rate, n)
    training = n - validation - test
    return SplitRows(rows[:training], rows[training : training + validation], rows[training + validation :])


def _part(rate: float, n: int) -> int:
    """floor(rate * n) of the number that was written: as floats, 0.29 * 100 is less than 29."""
    return math.floor(Fraction(repr(float(rate))) * n)


def _shuffled(rows: Rows, seed: int) -> Rows:
    return rows[np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))]


def _by_place(keys: OrderKeys | None, n: int) -> Rows:
    """Partitions are read side by side, in an order that differs from run to run; by place it is always the same."""
    return np.lexsort((keys.offsets, keys.partitions)) if keys is not None else np.arange(n, dtype=np.int64)


def _by_time(keys: OrderKeys | None, n: int) -> Rows:
    if keys is None:
        return np.arange(n, dtype=np.int64)
    return np.lexsort((keys.offsets, keys.partitions, keys.timestamps))


def _keys(spool: Spool) -> OrderKeys:
    return OrderKeys(spool.read("timestamps"), spool.read("partitions"), spool.read("offsets"))
