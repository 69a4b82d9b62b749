"""How the bytes of records become rows of numbers, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_AVRO,
    DATA_FORMAT_JSON,
    DATA_FORMAT_PROTOBUF,
    DATA_FORMAT_RAW,
)

if TYPE_CHECKING:
    from streams.codecs.parts import PartsCodec

Array = np.ndarray[Any, np.dtype[Any]]
Rows = Array | Mapping[str, Array]


@dataclass(frozen=True)
class Spec:
    """One row: its element type and its shape, without the batch. A length that is not known yet is -1."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        return -1 not in self.shape

    @property
    def row_bytes(self) -> int:
        """How many bytes a row has in memory. Only of a known spec."""
        assert self.is_known
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name} {tuple(length if length >= 0 else '?' for length in self.shape)}"


@dataclass(frozen=True)
class BadRecord:
    """A record that is no row: its index in the batch, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Decoded:
    """The good rows of a batch, in order.

    rows: `(len(good), *shape)`, read-only.
    good: the indices of the good records in the batch, int64.
    bad: the others.
    """

    rows: Array
    good: Array
    bad: list[BadRecord]


@dataclass(frozen=True)
class Field:
    """One field of records that have several: the elements `[start, stop)` of a row, in its own type and shape.

    A row has one element type, in which each field's numbers fit: a model with one input takes it as it is, in schema
    order, and one with several named inputs takes the fields by name.
    """

    name: str
    spec: Spec
    start: int
    stop: int


class Codec(Protocol):
    """Encodes and decodes the records of one stream.

    sample_spec, label_spec: of one row. Where the configuration leaves a length open (-1) the first batch decides it,
    and the codec remembers. label_spec is None for records without labels.
    fields: what a sample's row consists of; empty where the records have no named fields.
    config: the input_config with everything that the first batch decided: who decodes by it decodes alike.
    """

    @property
    def sample_spec(self) -> Spec: ...
    @property
    def label_spec(self) -> Spec | None: ...
    @property
    def fields(self) -> tuple[Field, ...]: ...
    @property
    def config(self) -> dict[str, str]: ...
    def decode_samples(self, values: Sequence[bytes | None]) -> Decoded: ...
    def decode_labels(self, keys: Sequence[bytes | None]) -> Decoded:
        """Only where there is a label_spec."""

    def encode_samples(self, rows: Rows) -> list[bytes]:
        """One record per row of an array `(n, ...)`, or of arrays by field name."""

    def encode_labels(self, rows: Rows) -> list[bytes]: ...


def codec_for(data_format: int, config: Mapping[str, str]) -> Codec:
    """The codec of a stream's `input_format` and `input_config`.

    Raises InvalidArgument (INVALID_FORMAT) naming everything that is wrong with the configuration.
    """
    if data_format == DATA_FORMAT_RAW:
        from streams.codecs.raw import RawCodec

        return RawCodec.from_config(config)
    codec: PartsCodec = _parts_codec(data_format).codec(config)
    return codec


def codec_of(
    data_format: int, samples: Rows, labels: Rows | None = None, config: Mapping[str, str] | None = None
) -> Codec:
    """The codec for records of such rows: arrays `(n, ...)`, or arrays by field name.

    Types and shapes are those of the arrays, unless `config` has them. The codec's `config` is a complete input_config.
    labels: None for records without labels.

    Raises InvalidArgument: INVALID_FORMAT for a wrong configuration, SCHEMA_MISMATCH for rows that the format has no
    types for, or that are not what `config` says.
    """
    given = dict(config or {})
    if data_format == DATA_FORMAT_RAW:
        from streams.codecs.raw import RawCodec

        return RawCodec.of(samples, labels, given)
    format_ = _parts_codec(data_format)
    codec: PartsCodec = format_.codec(given | format_.inferred(samples, labels, given))
    codec.settle(samples, labels)
    return codec


def _parts_codec(data_format: int) -> Any:
    """The module of the format. Loaded when it is used: a producer of RAW needs none of them."""
    if data_format == DATA_FORMAT_AVRO:
        from streams.codecs.avro import codec as format_
    elif data_format == DATA_FORMAT_JSON:
        from streams.codecs.json import codec as format_  # type: ignore[no-redef]
    elif data_format == DATA_FORMAT_PROTOBUF:
        from streams.codecs.protobuf import codec as format_  # type: ignore[no-redef]
    else:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FORMAT,
            f"the input format {data_format} is unknown; the known ones are RAW, AVRO, JSON, PROTOBUF",
            input_format=data_format,
        )
    return format_
