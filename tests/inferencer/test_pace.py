import pytest

from inferencer.pace import MIN_INTERVAL_S, OFFSETS, TRANSACTIONS, CommitPace, Pacing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_due_without_an_open_transaction() -> None:
    assert CommitPace(TRANSACTIONS).remaining_s(behind=True) == float("inf")


def test_an_idle_transaction_is_due_after_the_shortest_interval() -> None:
    clock = Clock()
    pace = CommitPace(TRANSACTIONS, clock)
    pace.opened()
    assert pace.remaining_s(behind=False) == pytest.approx(MIN_INTERVAL_S)
    clock.now += MIN_INTERVAL_S
    assert pace.remaining_s(behind=False) == pytest.approx(0)


def test_costly_commits_become_rarer_within_the_bound() -> None:
    clock = Clock()
    pace = CommitPace(Pacing(cost_multiple=3, max_interval_s=0.1), clock)
    pace.opened()
    pace.committed(0.01)
    pace.opened()
    assert pace.remaining_s(behind=False) == pytest.approx(0.03)
    pace.committed(5.0)
    pace.opened()
    assert pace.remaining_s(behind=False) == pytest.approx(0.1)


def test_a_replica_that_is_behind_takes_the_longest_interval_from_the_first_answer_on() -> None:
    clock = Clock()
    pace = CommitPace(TRANSACTIONS, clock)
    pace.opened()
    clock.now += 0.03
    pace.opened()
    assert pace.remaining_s(behind=True) == pytest.approx(TRANSACTIONS.max_interval_s - 0.03)
    pace.aborted()
    assert pace.remaining_s(behind=True) == float("inf")


def test_nothing_is_produced_right_after_a_commit_unless_records_wait() -> None:
    clock = Clock()
    pace = CommitPace(TRANSACTIONS, clock)
    pace.opened()
    assert pace.rest_s(behind=False) == 0
    pace.committed(0.01)
    clock.now += 0.004
    pace.opened()
    assert pace.rest_s(behind=False) == pytest.approx(TRANSACTIONS.rest_s - 0.004)
    assert pace.rest_s(behind=True) == 0
    clock.now += TRANSACTIONS.rest_s
    assert pace.rest_s(behind=False) == 0


def test_offsets_of_answers_that_are_seen_already_commit_seldom() -> None:
    clock = Clock()
    pace = CommitPace(OFFSETS, clock)
    pace.opened()
    pace.committed(0.01)
    pace.opened()
    assert pace.remaining_s(behind=False) == pytest.approx(0.5)
    assert pace.remaining_s(behind=True) == pytest.approx(1.0)
