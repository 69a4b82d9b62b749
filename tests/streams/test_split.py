from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.deployment_pb2 import SPLIT_ORDERED, SPLIT_SHUFFLED, SPLIT_UNSPECIFIED
from streams.split import OrderKeys, SplitRows, split_rows

rates = st.sampled_from([0.0, 0.05, 0.1, 0.15, 0.2, 0.29, 1 / 3, 0.49])


def together(rows: SplitRows) -> list[int]:
    return [*rows.training.tolist(), *rows.validation.tolist(), *rows.test.tolist()]


def keys(places: list[tuple[int, int, int]]) -> OrderKeys:
    array = np.array(places, np.int64).reshape(-1, 3)
    return OrderKeys(timestamps=array[:, 0], partitions=array[:, 1], offsets=array[:, 2])


@given(st.integers(0, 500), rates, rates, st.integers(0, 2**32 - 1), st.sampled_from([SPLIT_SHUFFLED, SPLIT_ORDERED]))
def test_every_row_is_in_one_part(n: int, validation: float, test: float, seed: int, split: int) -> None:
    rows = split_rows(n, validation_rate=validation, test_rate=test, seed=seed, split=split)
    assert sorted(together(rows)) == list(range(n))
    again = split_rows(n, validation_rate=validation, test_rate=test, seed=seed, split=split)
    assert together(again) == together(rows)


@pytest.mark.parametrize(
    ("n", "validation", "test", "sizes"),
    [
        (100, 0.29, 0.0, (71, 29, 0)),
        (1797, 0.1, 0.1, (1439, 179, 179)),
        (3, 0.4, 0.4, (1, 1, 1)),
        (1, 0.9, 0, (1, 0, 0)),
    ],
)
def test_parts_are_the_floor_of_what_was_written(
    n: int, validation: float, test: float, sizes: tuple[int, int, int]
) -> None:
    rows = split_rows(n, validation_rate=validation, test_rate=test, seed=1, split=SPLIT_UNSPECIFIED)
    assert (len(rows.training), len(rows.validation), len(rows.test)) == sizes


def test_another_seed_is_another_split() -> None:
    first, second = (split_rows(100, validation_rate=0.2, test_rate=0, seed=seed, split=0) for seed in (1, 2))
    assert together(first) != together(second)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), unique=True, max_size=40), st.randoms())
def test_the_order_of_reading_changes_nothing(places: list[tuple[int, int]], random: Any) -> None:
    """Partitions are read side by side: the same record may be any row."""
    stamped = [(1000 - offset, partition, offset) for partition, offset in places]
    shuffled = random.sample(stamped, len(stamped))
    for split in (SPLIT_SHUFFLED, SPLIT_ORDERED):
        parts = []
        for read in (stamped, shuffled):
            rows = split_rows(len(read), validation_rate=0.2, test_rate=0.2, seed=5, split=split, order_keys=keys(read))
            parts.append([[read[row] for row in part] for part in (rows.training, rows.validation, rows.test)])
        assert parts[0] == parts[1]


def test_ordered_is_by_time_then_partition_then_offset() -> None:
    places = [(5, 0, 0), (1, 1, 9), (1, 0, 7), (1, 0, 3), (9, 0, 1)]
    rows = split_rows(5, validation_rate=0.2, test_rate=0.2, seed=1, split=SPLIT_ORDERED, order_keys=keys(places))
    assert rows.training.tolist() == [3, 2, 1]
    assert rows.validation.tolist() == [0]
    assert rows.test.tolist() == [4]


def test_classes_that_came_in_order_are_in_every_part_in_proportion() -> None:
    labels = np.repeat(np.arange(10), 500)
    rows = split_rows(len(labels), validation_rate=0.2, test_rate=0.2, seed=3, split=SPLIT_SHUFFLED)
    for part in (rows.training, rows.validation, rows.test):
        counts = np.bincount(labels[part], minlength=10)
        assert counts.min() > 0.7 * len(part) / 10
        assert counts.max() < 1.3 * len(part) / 10


def test_rows_can_be_saved_for_a_worker(tmp_path: Path) -> None:
    rows = split_rows(10, validation_rate=0.2, test_rate=0, seed=1, split=SPLIT_SHUFFLED)
    np.save(tmp_path / "rows.npy", rows.training)
    assert np.load(tmp_path / "rows.npy").dtype == np.int64
