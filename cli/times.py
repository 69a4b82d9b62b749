"""Times and durations as people type them."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

import typer

# Times of protobuf begin in the year 1: nothing is older than this, now and for a long time.
MAX_SPAN = timedelta(days=700_000)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")


def parse_time(text: str) -> datetime:
    """`2026-11-27T10:00`, `2026-11-27 10:00:00+01:00`, `2026-11-27`, or `10:00` for today; here unless a zone is given.

    Raises BadParameter.
    """
    try:
        return datetime.combine(date.today(), time.fromisoformat(text)).astimezone()
    except ValueError:
        pass  # no time of day: a date, with or without one
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; give one as 10:00 (today), 2026-11-27T10:00 or 2026-11-27T10:00:00+01:00"
        ) from error


def parse_span(text: str) -> timedelta:
    """`90s`, `15m`, `1h`, `2d`, `1h30m`. Raises BadParameter."""
    words = text.replace(" ", "")
    if not _SPAN.fullmatch(words):
        raise typer.BadParameter(f"{text!r} is no duration; give one as 90s, 15m, 1h or 2d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(words))
    if seconds > MAX_SPAN.total_seconds():
        raise typer.BadParameter(f"{text!r} is out of range; at most {MAX_SPAN.days}d can be given")
    return timedelta(seconds=seconds)
