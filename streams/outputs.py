"""A model's outputs as the values of records: RAW, AVRO and PROTOBUF by their codecs, JSON in a form of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.v1.stream_pb2 import DATA_FORMAT_JSON, DATA_FORMAT_RAW, DATA_FORMAT_UNSPECIFIED
from streams.codecs import Array, Codec, Rows, codec_for, codec_of
from streams.codecs.records import flat

VALUES = "values"
OUTPUT_TYPE = np.dtype(np.float32)
# The form `{"values": [...]}` needs no configuration.
JSON_FORMATS = frozenset({DATA_FORMAT_UNSPECIFIED, DATA_FORMAT_JSON})
_LENGTHS = ("data_reshape", "data_shapes")
_NO_LETTER = re.compile(r"\W", re.ASCII)

Shape = tuple[int, ...]


def output_config(data_format: int, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """What readers need to decode the answers of a model with such outputs: an input_config of the format.

    shapes: output to the shape of one row, a length that is not known is -1; empty where nothing is known: then there
        is one vector. Empty for JSON.

    Raises InvalidArgument where the format has no names for the outputs.
    """
    if data_format in JSON_FORMATS:
        return {}
    known = shapes or {VALUES: (-1,)}
    rows = _as_fields(data_format, {name: _no_rows(shape) for name, shape in known.items()})
    config = codec_of(data_format, rows).config
    if any(-1 in shape for shape in known.values()):
        return {key: value for key, value in config.items() if key not in _LENGTHS}
    return config


def output_codec(data_format: int, config: Mapping[str, str]) -> Codec:
    """Encodes rows as `output_rows` makes them."""
    return codec_for(data_format, config)


def output_rows(data_format: int, codec: Codec, outputs: Mapping[str, Array]) -> Rows:
    """What the codec encodes: the outputs `(n, …)` in float32, by the names of the fields."""
    arrays = {name: _vectors(array) for name, array in outputs.items()}
    fields = _as_fields(data_format, arrays)
    if isinstance(fields, Mapping) and not codec.fields:  # lengths are open, so each is a vector
        return {name: flat(array) for name, array in fields.items()}
    return fields


@dataclass(frozen=True)
class Label:
    """The class with the best score, and that."""

    name: str
    score: float


@dataclass(frozen=True)
class AnswerReader:
    """Decodes the values of an output topic's records.

    data_format, config: the inference's `output_format` and `output_config`.
    """

    data_format: int = DATA_FORMAT_JSON
    config: Mapping[str, str] = field(default_factory=dict)

    def values(self, value: bytes | None) -> Any:
        """The model's last output: numbers, nested as it is. Raises ValueError for what is no answer."""
        return list(self.outputs(value).values())[-1]

    def outputs(self, value: bytes | None) -> dict[str, Any]:
        """Every output by name, `values` where there is one only. Raises ValueError for what is no answer."""
        if self.data_format in JSON_FORMATS:
            return _of_json(value)
        # Anew each time: where lengths are open a codec keeps those of the first record.
        codec = codec_for(self.data_format, self.config)
        decoded = codec.decode_samples([value])
        if decoded.bad:
            raise ValueError(decoded.bad[0].reason)
        (row,) = decoded.rows
        if not codec.fields:
            return {VALUES: row.tolist()}
        return {
            one.name: row.reshape(-1)[one.start : one.stop].reshape(one.spec.shape).tolist() for one in codec.fields
        }

    def label(self, value: bytes | None) -> Label | None:
        """The best class, where the answer tells it. Raises ValueError, TypeError for what is no answer."""
        if self.data_format not in JSON_FORMATS:
            return None
        answer = _parsed(value)
        return Label(str(answer["label"]), float(answer["score"])) if {"label", "score"} <= answer.keys() else None


def _of_json(value: bytes | None) -> dict[str, Any]:
    answer = _parsed(value)
    if VALUES not in answer:
        raise ValueError("it has no values")
    return {**answer.get("outputs", {}), VALUES: answer[VALUES]}


def _parsed(value: bytes | None) -> dict[str, Any]:
    try:
        answer = json.loads(value or b"")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(answer, dict):
        raise ValueError("it is no object")
    return answer


def _as_fields(data_format: int, arrays: Mapping[str, Array]) -> Rows:
    """RAW records have no fields, so they have the last output."""
    last = list(arrays.values())[-1]
    if data_format == DATA_FORMAT_RAW:
        return last
    return {VALUES: last} if len(arrays) == 1 else dict(zip(field_names(list(arrays)), arrays.values(), strict=True))


def field_names(outputs: Sequence[str]) -> list[str]:
    """The outputs' names as every format allows them: of letters, digits and _."""
    names: list[str] = []
    for output in outputs:
        name = _NO_LETTER.sub("_", output)
        name = name if name and not name[0].isdigit() else f"_{name}"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _vectors(array: Array) -> Array:
    """A single number per row is a vector too: `values` always is a list."""
    array = np.ascontiguousarray(array, OUTPUT_TYPE)
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _no_rows(shape: Shape) -> Array:
    """An open length makes it a vector."""
    shape = (1,) if -1 in shape else shape or (1,)
    return np.empty((0, *shape), OUTPUT_TYPE)
