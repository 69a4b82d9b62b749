import threading
from collections.abc import Iterator

import pytest

from headrace.errors import Aborted, Cancelled, DeadlineExceeded, HeadraceError
from headrace.v1 import error_pb2
from trainer.ending import Ending

FENCED = Aborted(error_pb2.REASON_FENCED, "a newer attempt")


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def ending(stop: threading.Event) -> Iterator[Ending]:
    with Ending(stop) as ending:
        yield ending


def expect_end(ending: Ending, kind: type[HeadraceError]) -> None:
    broken = threading.Event()
    ending.on_end(broken.set)
    assert broken.wait(10)
    with pytest.raises(kind):
        ending.check()


def test_a_run_that_goes_on_has_no_end(ending: Ending) -> None:
    ending.on_end(lambda: pytest.fail("broken off"))
    ending.check()


def test_a_signal_breaks_off(ending: Ending, stop: threading.Event) -> None:
    stop.set()
    expect_end(ending, Cancelled)


def test_a_cause_breaks_off_and_the_first_stays(ending: Ending, stop: threading.Event) -> None:
    ending.end(FENCED)
    stop.set()
    expect_end(ending, Aborted)


def test_a_deadline_breaks_off(ending: Ending) -> None:
    ending.end_after(0.05)
    expect_end(ending, DeadlineExceeded)


def test_every_breaker_runs_though_one_fails(ending: Ending) -> None:
    def fails() -> None:
        raise FENCED

    broken = threading.Event()
    ending.on_end(broken.set)
    ending.on_end(fails)
    ending.end(FENCED)
    assert broken.is_set()
