"""What is to be read of a partition, against a set of its offsets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.plan import PartitionPlan, plans_of
from tests.streams.log import offset_range

bounds = st.sets(st.integers(0, 60), min_size=2, max_size=12).map(sorted)
LAST = 70


def plan_of(chosen: list[int]) -> tuple[PartitionPlan, set[int]]:
    pairs = list(zip(chosen[::2], chosen[1::2], strict=False))
    ranges = [offset_range("t", start, end) for start, end in reversed(pairs)]
    return PartitionPlan(ranges), {offset for start, end in pairs for offset in range(start, end)}


@given(bounds)
def test_a_plan_knows_its_offsets(chosen: list[int]) -> None:
    plan, offsets = plan_of(chosen)
    assert np.flatnonzero(plan.wanted(np.arange(LAST))).tolist() == sorted(offsets)
    assert (plan.start, plan.end) == (min(offsets), max(offsets) + 1)
    for position in range(LAST):
        assert plan.count_before(position) == sum(offset < position for offset in offsets)
        assert plan.next_wanted(position) == min((at for at in offsets if at >= position), default=plan.end)


def test_ranges_may_end_where_offsets_do() -> None:
    last = 2**63 - 1
    plan = PartitionPlan([offset_range("t", last - 2, last), offset_range("t", 0, 3)])
    assert plan.next_wanted(5) == last - 2
    assert plan.count_before(last) == 5


def test_empty_ranges_need_no_plan() -> None:
    ranges = [offset_range("t", 5, 5), offset_range("t", 0, 2, 1), offset_range("u", 3, 3)]
    assert set(plans_of(ranges)) == {("t", 1)}
