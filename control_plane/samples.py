"""Samples in JSON, as people ask with them, as records of an input topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict

from control_plane.validation import refuse
from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, Codec, Field, Spec
from streams.codecs.fitting import fits, misfit


def encode_sample(codec: Codec, sample: struct_pb2.Value) -> bytes:
    """The record of a number, of nested lists of numbers, or of an object with one of these for each field.

    Raises InvalidArgument (INVALID_FIELD, SCHEMA_MISMATCH) naming what is wrong.
    """
    if not sample.WhichOneof("kind"):
        refuse([FieldViolation("sample", "must be a number, nested lists of numbers, or an object of them by field")])
    given = _json_of(sample)
    rows = _by_field(codec.fields, given) if isinstance(given, dict) else _row(given, codec.sample_spec, "sample")
    (record,) = codec.encode_samples(rows)
    return record


def _json_of(sample: struct_pb2.Value) -> Any:
    try:
        return MessageToDict(sample)
    except ValueError:  # NaN and infinity, which is also what JSON's 1e400 is read as
        refuse([FieldViolation("sample", "must have finite numbers only, no NaN, and none beyond 1.8e308")])


def _by_field(fields: Sequence[Field], nested: Mapping[str, Any]) -> dict[str, Array]:
    """One row: `(1, *shape)` by field name."""
    given = dict(_leaves(nested))
    specs = {field.name: field.spec for field in fields}
    if not specs:
        refuse(
            [
                FieldViolation(
                    "sample",
                    "must be a number or nested lists of numbers: the inference's input_config knows of no fields",
                )
            ]
        )
    known = ", ".join(specs)
    refuse(
        [FieldViolation(f"sample.{name}", "must be given") for name in specs if name not in given]
        + [
            FieldViolation(f"sample.{name}", f"is unknown; the fields are {known}")
            for name in given
            if name not in specs
        ]
    )
    return {name: _row(given[name], spec, f"sample.{name}") for name, spec in specs.items()}


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of an object by name, those of objects in it by names joined with dots: as codecs name fields."""
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _row(given: Any, spec: Spec, place: str) -> Array:
    """`(1, *shape)`."""
    return _shaped(_array(given, spec, place), spec, place)[np.newaxis]


def _array(sample: Any, spec: Spec, place: str) -> Array:
    """The sample in the type of the records; InvalidArgument where that type cannot hold it."""
    try:
        given = np.asarray(sample)
    except ValueError:  # lists of different lengths
        given = np.empty(0, object)
    if given.dtype.kind not in "biuf":
        refuse([FieldViolation(place, "must be a number, or lists of numbers nested evenly")])
    if not fits(given, spec.dtype):
        refuse([FieldViolation(place, f"has numbers that the records cannot hold: {misfit(given, spec.dtype)}")])
    return given.astype(spec.dtype)


def _shaped(array: Array, spec: Spec, place: str) -> Array:
    if not spec.is_known:
        return array
    if array.size != np.prod(spec.shape, dtype=np.int64):
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"the {place} has the shape {list(array.shape)}, but the records have {list(spec.shape)}",
            fields=[FieldViolation(place, f"must have the shape {list(spec.shape)}")],
            given_shape=list(array.shape),
            shape=list(spec.shape),
        )
    return array.reshape(spec.shape)
