"""Log lines, as a process writes them."""

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import errors, logs
from headrace.settings import SettingsError
from headrace.v1 import error_pb2

log = logging.getLogger("headrace.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, hook = logging.getLogger(), threading.excepthook
    before = root.level, root.handlers[:]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    threading.excepthook = hook


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was logged so far, parsed."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "json")
    logs.configure("trainer")
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_has_its_time_level_service_message_and_fields(lines: Any) -> None:
    log.info("epoch ended", extra={"epoch": 3, "loss": 0.5})
    (line,) = lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "service": "trainer",
        "logger": "headrace.test",
        "message": "epoch ended",
        "epoch": 3,
        "loss": 0.5,
    }


def test_what_is_bound_is_on_every_line_inside(lines: Any) -> None:
    with logs.bind(deployment=1, result=7):
        with logs.bind(result=8):
            log.info("inner")
        log.info("outer")
    log.info("outside")
    assert [(line.get("deployment"), line.get("result")) for line in lines()] == [(1, 8), (1, 7), (None, None)]


async def test_tasks_bind_for_themselves(lines: Any) -> None:
    async def work(number: int) -> None:
        with logs.bind(result=number):
            await asyncio.sleep(0)
            log.info("working", extra={"number": number})

    await asyncio.gather(*(work(number) for number in range(5)))
    assert all(line["result"] == line["number"] for line in lines() if "number" in line)


def test_an_exception_is_one_line(lines: Any) -> None:
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        log.exception("failed")
    (line,) = lines()
    assert "ZeroDivisionError: oh" in line["exception"]


def test_the_end_of_a_thread_by_a_bug_is_logged(lines: Any) -> None:
    thread = threading.Thread(target=lambda: 1 / 0, name="reports")
    thread.start()
    thread.join()
    (line,) = lines()
    assert (line["level"], line["thread_name"]) == ("ERROR", "reports")


def test_the_facts_of_an_error_may_have_any_name(lines: Any) -> None:
    error = errors.NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, "gone", name="x", module="y", level="z")
    log.warning("refused", extra=logs.error_fields(error))
    (line,) = lines()
    assert (line["level"], line["reason"], line["facts"]["level"]) == ("WARNING", "RESOURCE_NOT_FOUND", "z")


def test_text_is_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "text")
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", "warning")
    logs.configure("trainer")
    with logs.bind(result=7):
        log.info("not shown")
        log.warning("slow", extra={"seconds": 3})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING trainer: slow [result=7 seconds=3]")


def test_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "xml")
    monkeypatch.setenv("HEADRACE_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as caught:
        logs.configure("trainer")
    assert [problem.split(" ", 1)[0] for problem in caught.value.problems] == [
        "HEADRACE_LOG_FORMAT",
        "HEADRACE_LOG_LEVEL",
    ]
