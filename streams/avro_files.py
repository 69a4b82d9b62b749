"""Avro container files: a schema, and blocks of records of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException

# What fastavro raises for bytes that are no container file, or one that is cut off or damaged.
_DAMAGE = (ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, MemoryError, struct.error, zlib.error,
           SchemaParseException, RecursionError)  # fmt: skip


class NotAvro(ValueError):
    """The file is no Avro container, or is damaged."""


def schema_of(path: Path) -> Any:
    """The schema that the file was written with, as JSON has it. Raises NotAvro."""
    with path.open("rb") as file:
        try:
            return fastavro.reader(file).writer_schema
        except _DAMAGE as error:
            raise NotAvro(_why(error)) from error


def read_records(path: Path) -> Iterator[Any]:
    """The records one by one; a block of them is in memory. Raises NotAvro where the file is damaged."""
    with path.open("rb") as file:
        try:
            yield from fastavro.reader(file)
        except _DAMAGE as error:
            raise NotAvro(_why(error)) from error


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
