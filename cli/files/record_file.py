"""What all files of records are to the commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2

Array = np.ndarray[Any, np.dtype[Any]]
# Name → the values `(n, ...)` of some records.
Columns = Mapping[str, Array]

# The only column of a file whose records have no names.
UNNAMED = ""
# From here on a float64 does not hold every whole number.
EXACT_BELOW = 2**53
# What is wrong with a number of a text that no 64 bits hold.
TOO_LONG = "has more digits than 64 bits hold"
TOO_LARGE = "is too large for 64 bits"
# So many records are in memory at once.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Layout:
    """How a CSV file is written. header: whether its first line names the columns; they are c1, c2, … otherwise."""

    delimiter: str = ","
    header: bool = True


# What CSV files are unless somebody says otherwise.
COMMAS = Layout()


class RecordFile(Protocol):
    """A file that can be read again and again, always a few thousand records at once.

    names: of its columns, in its order; `(UNNAMED,)` where its records are plain arrays.
    typed: whether the file says what type its numbers have; otherwise a text of digits is all there is.
    has_fields: whether its columns are fields of records, and not arrays of their own.
    kind: what a column is called: column, field or array.
    """

    path: Path
    names: tuple[str, ...]
    typed: bool
    has_fields: bool
    kind: str

    def place(self, number: int) -> str:
        """Where the record of this number, from 1 on, is in the file, as people count there: `line 7`."""

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns that are samples and those that are labels, where nobody says which are."""

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        """These columns, batch by batch; none of a batch is empty.

        Raises InvalidArgument naming the place of what is no number, or of another shape than before.
        """


def bad_file(message: str) -> InvalidArgument:
    """The file, or what is asked of it, is wrong."""
    return InvalidArgument(error_pb2.REASON_INVALID_FIELD, message)
