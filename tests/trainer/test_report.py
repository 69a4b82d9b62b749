import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headrace.client import connect
from headrace.errors import HeadraceError, InvalidArgument
from headrace.v1 import deployment_pb2, error_pb2, result_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from tests.support import eventually
from tests.trainer.collector import MemoryCollector
from trainer.journal import Journal, read_journal
from trainer.report import Reporter

PATIENCE_S = 30.0


@pytest.fixture
def collector() -> Iterator[MemoryCollector]:
    collector = MemoryCollector()
    collector.start()
    yield collector
    collector.stop()


@contextmanager
def reporting(
    collector: MemoryCollector,
    folder: Path,
    *,
    attempt: int = 1,
    on_refused: Callable[[HeadraceError], None] = lambda error: None,
    call_s: float = 60.0,
) -> Iterator[Reporter]:
    with ExitStack() as stack:
        stub = ResultCollectorStub(stack.enter_context(connect(collector.address)))
        journal = stack.enter_context(Journal(folder / f"report-{attempt}.journal"))
        reporter = Reporter(stub, journal, result_id=1, attempt=attempt, on_refused=on_refused, call_s=call_s)
        stack.enter_context(reporter)
        assert reporter.await_hello(PATIENCE_S, threading.Event())
        yield reporter


def report_epochs(reporter: Reporter, numbers: range) -> None:
    for number in numbers:
        reporter.epoch(result_pb2.Epoch(number=number))


def told_exactly_once(collector: MemoryCollector, epochs: int, attempt: int = 1) -> bool:
    """The oracle: every epoch is stored, once, in order, under numbers without gaps, and nothing else is."""
    stored = collector.events(attempt)
    numbered = [event.seq for event in stored] == list(range(1, epochs + 1))
    return numbered and [event.epoch.number for event in stored] == list(range(1, epochs + 1))


def test_events_arrive_in_order(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        report_epochs(reporter, range(1, 101))
        assert reporter.flush(PATIENCE_S)
    assert told_exactly_once(collector, 100)


def flaky(seed: int) -> "MemoryCollector":
    chance = random.Random(seed)
    collector = MemoryCollector()
    collector.fault = lambda seq: chance.choices(["", "lose", "mute"], [0.8, 0.1, 0.1])[0]
    return collector


@pytest.mark.parametrize("seed", range(3))
def test_a_collector_that_breaks_off_loses_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    collector = flaky(seed)
    collector.start()
    with reporting(collector, tmp_path) as reporter:
        report_epochs(reporter, range(1, 31))
        assert reporter.flush(PATIENCE_S)
    collector.stop()
    assert collector.hellos > 1
    assert told_exactly_once(collector, 30)


def test_the_oracle_catches_a_collector_that_acknowledges_before_it_stores(tmp_path: Path) -> None:
    collector = MemoryCollector(acks_first=True)
    collector.fault = lambda seq: "lose" if seq == 7 else ""
    collector.start()
    with reporting(collector, tmp_path) as reporter:
        report_epochs(reporter, range(1, 8))
        reporter.flush(1.0)
    collector.stop()
    assert not told_exactly_once(collector, 7)


def test_a_connection_is_made_anew_now_and_then(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path, call_s=0.1) as reporter:
        for number in range(1, 31):
            report_epochs(reporter, range(number, number + 1))
            assert reporter.flush(PATIENCE_S)
            eventually(lambda: collector.hellos > number // 10)  # noqa: B023
    assert told_exactly_once(collector, 30)


def test_reports_wait_while_the_collector_is_away(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        report_epochs(reporter, range(1, 4))
        assert reporter.flush(PATIENCE_S)
        collector.stop()
        report_epochs(reporter, range(4, 2001))
        assert not reporter.flush(0.3)
        collector.start()
        assert reporter.flush(PATIENCE_S)
    assert told_exactly_once(collector, 2000)


def test_unacknowledged_events_stay_on_disk(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        collector.stop()
        report_epochs(reporter, range(1, 4))
        assert not reporter.flush(0.1)
    left = [event.epoch.number for event in read_journal(tmp_path / "report-1.journal")]
    assert left == [1, 2, 3]


def test_a_later_process_of_the_same_attempt_goes_on_counting(collector: MemoryCollector, tmp_path: Path) -> None:
    for numbers in (range(1, 4), range(4, 7)):
        with reporting(collector, tmp_path) as reporter:
            report_epochs(reporter, numbers)
            assert reporter.flush(PATIENCE_S)
    assert told_exactly_once(collector, 6)


def test_a_newer_attempt_fences_this_one(collector: MemoryCollector, tmp_path: Path) -> None:
    refusals: list[HeadraceError] = []
    with reporting(collector, tmp_path, on_refused=refusals.append) as reporter:
        collector.newest_attempts[1] = 2
        report_epochs(reporter, range(1, 2))
        assert not reporter.flush(PATIENCE_S)
        assert reporter.fenced
        (refusal,) = eventually(lambda: refusals)
        assert refusal.reason == error_pb2.REASON_FENCED
    assert collector.events(1) == []


def test_what_the_collector_will_never_take_ends_the_reports(collector: MemoryCollector, tmp_path: Path) -> None:
    refusals: list[HeadraceError] = []
    collector.fault = lambda seq: "refuse"
    with reporting(collector, tmp_path, on_refused=refusals.append) as reporter:
        report_epochs(reporter, range(1, 2))
        assert not reporter.flush(PATIENCE_S)
        assert not reporter.fenced
    assert len(refusals) == 1


def test_progress_is_reported_at_most_once_a_second(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        for step in range(1000):
            reporter.progress(result_pb2.Progress(step=step))
        assert reporter.flush(PATIENCE_S)
    assert 1 <= len(collector.events()) <= 2


def test_a_long_backlog_takes_no_more_progress_but_every_epoch(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        collector.stop()
        report_epochs(reporter, range(1, 1003))
        reporter.progress(result_pb2.Progress(step=1), always=True)
        collector.start()
        assert reporter.flush(PATIENCE_S)
    assert told_exactly_once(collector, 1002)


def test_an_error_travels_whole(collector: MemoryCollector, tmp_path: Path) -> None:
    error = InvalidArgument(error_pb2.REASON_CODE_ERROR, "no", file="code", line=3)
    with reporting(collector, tmp_path) as reporter:
        reporter.change_state(deployment_pb2.STATE_FAILED, error)
        assert reporter.flush(PATIENCE_S)
    (event,) = collector.events()
    assert event.state_change.state == deployment_pb2.STATE_FAILED
    assert event.state_change.error == error.to_status()


def test_nan_and_infinity_arrive_as_what_they_are(collector: MemoryCollector, tmp_path: Path) -> None:
    values = {"loss": float("nan"), "best": float("-inf")}
    epoch = result_pb2.Epoch(
        number=1,
        metrics=result_pb2.SplitMetrics(splits={"training": result_pb2.Metrics(values=values)}),
    )
    with reporting(collector, tmp_path) as reporter:
        reporter.epoch(epoch)
        assert reporter.flush(PATIENCE_S)
    arrived = collector.events()[0].epoch.metrics.splits["training"].values
    assert arrived["loss"] != arrived["loss"]
    assert arrived["best"] == float("-inf")


def test_leaving_does_not_wait_for_a_collector_that_is_away(collector: MemoryCollector, tmp_path: Path) -> None:
    with reporting(collector, tmp_path) as reporter:
        collector.stop()
        report_epochs(reporter, range(1, 4))
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("report")])


def test_what_is_acknowledged_takes_no_room_for_ever(collector: MemoryCollector, tmp_path: Path) -> None:
    wide = result_pb2.Metrics(values={f"metric-{number:0500}": 1.0 for number in range(1000)})
    metrics = result_pb2.SplitMetrics(splits={"training": wide})
    with reporting(collector, tmp_path) as reporter:
        for number in range(1, 31):
            reporter.epoch(result_pb2.Epoch(number=number, metrics=metrics))
            if number % 10 == 0:
                assert reporter.flush(PATIENCE_S)
        assert (tmp_path / "report-1.journal").stat().st_size < 6 * 1024 * 1024
    assert told_exactly_once(collector, 30)
