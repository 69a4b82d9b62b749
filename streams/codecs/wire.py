"""Where the schema of an Avro record is: in the configuration, or named by an id at the record's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import FieldViolation
from streams.codecs.avro import AvroPart
from streams.codecs.parts import Part

KEYS = ("wire_format",)


@dataclass(frozen=True)
class Wire:
    has_header: bool


def settings(config: Mapping[str, str], bad: list[FieldViolation]) -> Wire:
    return Wire(False)


def has_labels(config: Mapping[str, str]) -> bool:
    return bool(config.get("label_scheme", "").strip())


def part(wire: Wire, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> Part | None:
    return AvroPart.from_config(config, prefix, bad)
