"""Checks of what people send, with every bad field at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2

NAME = re.compile(r"[A-Za-z0-9._-](?:[A-Za-z0-9._ -]{0,61}[A-Za-z0-9._-])?")
NAME_RULE = "must be 1 to 63 of letters, digits, -, _, . and blanks (none at its ends)"


def bad_name(field: str, name: str) -> list[FieldViolation]:
    """What is wrong with a name; empty when nothing is."""
    return [] if NAME.fullmatch(name) else [FieldViolation(field, f"{NAME_RULE}, not {name[:80]!r}")]


def refuse(violations: Sequence[FieldViolation]) -> None:
    """Raise InvalidArgument with all of them; return when there are none."""
    if violations:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            "; ".join(f"{bad.field} {bad.description}" for bad in violations),
            fields=violations,
            field=violations[0].field,
        )
