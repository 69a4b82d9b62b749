"""The order of rows: a function of seed, epoch and step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frameworks.confusion import count_confusion
from frameworks.rows import EpochOrder


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 60), batch=st.integers(1, 20), shuffle=st.sampled_from([True, False, "batch"]))
def test_an_epoch_without_steps_is_every_row_once(rows: int, batch: int, shuffle: bool | str) -> None:
    order = EpochOrder(rows, batch, shuffle, seed=3)
    for epoch in range(3):
        batches = list(order.batches(epoch))
        assert len(batches) == order.steps == -(-rows // batch)
        assert sorted(np.concatenate(batches)) == list(range(rows))


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 40), batch=st.integers(1, 20), steps=st.integers(1, 9), epochs=st.integers(1, 6))
def test_epochs_with_steps_walk_through_pass_after_pass(rows: int, batch: int, steps: int, epochs: int) -> None:
    order = EpochOrder(rows, batch, seed=1, steps_per_epoch=steps)
    seen = [position for epoch in range(epochs) for part in order.batches(epoch) for position in part]
    assert len(seen) == epochs * steps * batch
    for start in range(0, len(seen) - rows + 1, rows):
        assert sorted(seen[start : start + rows]) == list(range(rows))


def test_an_order_can_be_taken_up_anywhere() -> None:
    order = EpochOrder(100, 7, seed=5, steps_per_epoch=9)
    np.testing.assert_array_equal(order.positions(17), EpochOrder(100, 7, seed=5, steps_per_epoch=9).positions(17))
    assert not np.array_equal(order.positions(17), order.positions(18))
    assert not np.array_equal(order.positions(17), EpochOrder(100, 7, seed=6, steps_per_epoch=9).positions(17))


def test_drop_last_leaves_the_short_batch_out() -> None:
    assert [len(part) for part in EpochOrder(25, 10, drop_last=True).batches(0)] == [10, 10]
    assert [len(part) for part in EpochOrder(25, 10).batches(0)] == [10, 10, 5]


def test_shuffling_batches_keeps_their_rows_together() -> None:
    parts = [part.tolist() for part in EpochOrder(10, 4, "batch", seed=2).batches(0)]
    flat = [position for part in parts for position in part]
    assert sorted(flat) == list(range(10))
    assert [0, 1, 2, 3] in [flat[at : at + 4] for at in range(7)]


@pytest.mark.parametrize(
    ("labels", "outputs", "wanted"),
    [
        ([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], [[1, 0], [1, 1]]),
        ([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]]),
        ([[0], [1]], [[0.2], [0.4]], [[1, 0], [1, 0]]),
        ([0.0, 1.0], [0.2, 0.9], [[1, 0], [0, 1]]),
        ([0, 1], [[2.0], [-1.0]], None),
        ([0.5, 1.5], [[0.2], [0.4]], None),
        ([0, 5], [[0.9, 0.1], [0.2, 0.8]], None),
    ],
)
def test_counts_are_of_true_against_answered(labels: list, outputs: list, wanted: list | None) -> None:  # type: ignore[type-arg]
    counts = count_confusion(np.array(labels), np.array(outputs), logits=False)
    assert wanted == (None if counts is None else counts.tolist())


def test_logits_say_yes_above_zero() -> None:
    counts = count_confusion(np.array([0, 1]), np.array([[-2.0], [0.1]]), logits=True)
    assert counts is not None
    assert counts.tolist() == [[1, 0], [0, 1]]
