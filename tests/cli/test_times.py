"""Times and durations as people type them."""

from datetime import UTC, date, datetime, timedelta

import pytest
import typer

from cli.times import parse_span, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1w", "one hour", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90s, 15m, 1h or 2d"):
        parse_span(text)


@pytest.mark.parametrize("text", ["99999999999d", "9" * 400 + "s", "700001d"])
def test_a_duration_has_a_range(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="at most 700000d"):
        parse_span(text)


def test_a_time_has_the_zone_that_it_names_or_that_of_this_place() -> None:
    utc = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
    assert parse_time("2026-11-27T10:00:00+01:00") == utc
    assert parse_time("2026-11-27 09:00Z") == utc
    assert parse_time("2026-11-27T10:00") == datetime(2026, 11, 27, 10, 0).astimezone()
    assert parse_time("2026-11-27") == datetime(2026, 11, 27).astimezone()


def test_a_time_of_day_is_of_today() -> None:
    assert parse_time("10:00").date() == date.today()
    assert parse_time("10:00").strftime("%H:%M") == "10:00"


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        parse_time(text)
