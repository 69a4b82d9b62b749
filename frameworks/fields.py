"""Records of several fields: how the rows of one matrix become the inputs of a model.

A model with one input takes a row as it is, all fields in schema order. One with several named inputs takes the fields
of these names, each in its own type and shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from frameworks.failure import Failure

Columns = Mapping[str, np.ndarray]
# How many fields a message names.
SHOWN = 20


@dataclass(frozen=True)
class Field:
    """The elements `[start, stop)` of a row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Field:
        """As it comes with a request."""
        shape = tuple(int(length) for length in given["shape"])
        return cls(str(given["name"]), np.dtype(given["dtype"]), shape, int(given["start"]), int(given["stop"]))

    def column(self, rows: np.ndarray) -> np.ndarray:
        """`(n, *shape)` of rows `(n, …)`: a view, unless the field's type is not that of the rows."""
        matrix = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        part = matrix[:, self.start : self.stop].reshape(len(rows), *self.shape)
        return part.astype(self.dtype, copy=False)

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model that takes several by name; none of a model that takes rows as they are."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def choose(self, fields: Sequence[Field], row: tuple[int, ...]) -> tuple[Field, ...]:
        """The fields that feed them, in their order. Raises SCHEMA_MISMATCH when one is missing.

        `row` is a row's shape. An input's field is never guessed from its position: two numbers that changed places
        would go unnoticed.
        """
        by_name = {_as_parameter(field.name): field for field in fields} | {field.name: field for field in fields}
        missing = [name for name in self.required if name not in by_name]
        if missing:
            has = f"the fields {shown(fields)}" if fields else f"rows of the shape {row} without named fields"
            expected = ", ".join(self.required)
            message = f"the model takes the inputs {expected} by name, but the stream has {has}; {', '.join(missing)} "
            message += "is missing" if len(missing) == 1 else "are missing"
            raise Failure("SCHEMA_MISMATCH", message, expected=expected, actual=shown(fields) if fields else row)
        return tuple(replace(by_name[name], name=name) for name in (*self.required, *self.optional) if name in by_name)


def _as_parameter(name: str) -> str:
    """A field of a nested record, `person.age`, as Python can name a parameter: `person_age`."""
    return name.replace(".", "_")


def feeding(inputs: Inputs, columns: Columns, fields: Sequence[Field]) -> tuple[Field, ...]:
    """The fields that feed a model; none where the columns are fed as they are."""
    if not inputs.required or set(columns) != {""}:
        return ()
    return inputs.choose(fields, tuple(columns[""].shape[1:]))


def by_input(columns: Columns, chosen: Sequence[Field]) -> Columns:
    """What a model is fed with: the columns themselves, or the chosen fields of the only one."""
    return {field.name: field.column(columns[""]) for field in chosen} if chosen else columns


def shown(fields: Iterable[object]) -> str:
    """Their names and shapes, for messages."""
    texts = [str(field) for field in fields]
    rest = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return ", ".join(texts[:SHOWN] + rest)
