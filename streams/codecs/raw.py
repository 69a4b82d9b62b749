"""RAW: the bytes of a numpy array, little-endian, as Kafka-ML's sinks send them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, BadRecord, Decoded, Field, Rows, Spec
from streams.codecs.layout import wrong_config
from streams.codecs.records import joined, sizes_of

# Kafka-ML's own names; `float` is TensorFlow's, four bytes, not numpy's.
ALIASES = {"half": "float16", "float": "float32", "double": "float64"}
NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
KNOWN_TYPES = (*NUMBERS, *ALIASES, "string")
# A text is kept as that many bytes of UTF-8, filled up with zeros, so that rows have one size. A reshape of one number
# is another width.
STRING_BYTES = 64
MAX_ROW_BYTES = 2**31 - 1


class RawCodec:
    """Decodes a batch with one copy and one view; the copy of each record tells its length.

    Numbers without a shape are a vector, of the length that most records of the first batch have.
    """

    def __init__(self, sample: Spec, label: Spec | None) -> None:
        self._sample = sample
        self._label = label

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> RawCodec:
        """Of `data_type`, `label_type`, `data_reshape`, `label_reshape`. No `label_type`: records without labels."""
        bad: list[FieldViolation] = []
        sample = _spec(config, "data", bad)
        label = _spec(config, "label", bad) if config.get("label_type", "").strip() else None
        if bad:
            raise wrong_config("RAW", bad, known_types=", ".join(KNOWN_TYPES))
        return cls(sample, label)

    @classmethod
    def of(cls, samples: Rows, labels: Rows | None, config: Mapping[str, str]) -> RawCodec:
        """For such rows; types and shapes that the configuration has take precedence."""
        bad: list[FieldViolation] = []
        sample = _spec_of(samples, config, "data", bad)
        label = _spec_of(labels, config, "label", bad) if labels is not None else None
        if bad:
            raise wrong_config("RAW", bad, known_types=", ".join(KNOWN_TYPES))
        return cls(sample, label)

    @property
    def sample_spec(self) -> Spec:
        return self._sample

    @property
    def label_spec(self) -> Spec | None:
        return self._label

    @property
    def fields(self) -> tuple[Field, ...]:
        return ()

    @property
    def config(self) -> dict[str, str]:
        return config_of(self._sample, self._label)

    def decode_samples(self, values: Sequence[bytes | None]) -> Decoded:
        self._sample = _settle(self._sample, values)
        return _decode(self._sample, values, "value")

    def decode_labels(self, keys: Sequence[bytes | None]) -> Decoded:
        assert self._label is not None, "the records have no labels"
        self._label = _settle(self._label, keys)
        return _decode(self._label, keys, "key (the label)")

    def encode_samples(self, rows: Rows) -> list[bytes]:
        return _encode(self._sample, rows)

    def encode_labels(self, rows: Rows) -> list[bytes]:
        assert self._label is not None, "the records have no labels"
        return _encode(self._label, rows)


def spec_of_config(config: Mapping[str, str], prefix: str) -> Spec:
    """Of `data_type` and `data_reshape`, or those of labels. Raises InvalidArgument (INVALID_FORMAT)."""
    bad: list[FieldViolation] = []
    spec = _spec(config, prefix, bad)
    if bad:
        raise wrong_config("RAW", bad, known_types=", ".join(KNOWN_TYPES))
    return spec


def _spec_of(rows: Rows, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> Spec:
    """Of such rows, as far as the configuration says nothing else. A single number has no reshape."""
    array = _unnamed(rows)
    given = {key: value for key, value in config.items() if value.strip()}
    if array.dtype.kind in "SU":
        widths = [len(text.encode() if isinstance(text, str) else text) for text in array.reshape(-1).tolist()]
        found = {f"{prefix}_type": "string", f"{prefix}_reshape": str(max([STRING_BYTES, *widths]))}
        return _spec(found | given, prefix, bad)
    spec = _spec({f"{prefix}_type": array.dtype.name} | given, prefix, bad)
    if f"{prefix}_reshape" not in given:
        return Spec(spec.dtype, array.shape[1:])
    known = max(1, -math.prod(spec.shape))
    size = math.prod(array.shape[1:])
    return Spec(spec.dtype, tuple(size // known if length == -1 else length for length in spec.shape))


def _unnamed(rows: Rows) -> Array:
    """RAW records have no named fields, so a mapping of one array is that array."""
    arrays = [np.asarray(array) for array in rows.values()] if isinstance(rows, Mapping) else [np.asarray(rows)]
    if len(arrays) != 1:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FORMAT,
            f"RAW records have no named fields, and {len(arrays)} are given; put them into one array, or use AVRO, JSON"
            " or PROTOBUF",
        )
    return arrays[0]


def config_of(sample: Spec, label: Spec | None) -> dict[str, str]:
    """The input_config of records with such rows."""
    config = {"data_type": _type_text(sample), "data_reshape": _reshape_text(sample)}
    if label is not None:
        config |= {"label_type": _type_text(label), "label_reshape": _reshape_text(label)}
    return config


def _type_text(spec: Spec) -> str:
    return "string" if spec.dtype.kind == "S" else spec.dtype.name


def _reshape_text(spec: Spec) -> str:
    """A single number has no reshape, as in Kafka-ML; a text's is its width."""
    return str(spec.dtype.itemsize) if spec.dtype.kind == "S" else " ".join(map(str, spec.shape))


def _spec(config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> Spec:
    problems = len(bad)
    type_name = config.get(f"{prefix}_type", "").strip()
    dtype = _dtype(type_name)
    if dtype is None:
        known = ", ".join(KNOWN_TYPES)
        bad.append(FieldViolation(f"{prefix}_type", f"{type_name!r} is unknown; the known types are {known}"))
    shape = _shape(config.get(f"{prefix}_reshape", ""))
    if shape is None:
        given = config.get(f"{prefix}_reshape")
        bad.append(
            FieldViolation(
                f"{prefix}_reshape", f"{given!r} is no shape; give numbers separated by blanks, such as 28 28"
            )
        )
    if len(bad) > problems or dtype is None or shape is None:
        return Spec(np.dtype(np.uint8), (-1,))
    if dtype.kind == "S":
        width = shape[0] if len(shape) == 1 and shape[0] > 0 else STRING_BYTES
        return Spec(np.dtype(f"S{width}"), ())
    return Spec(dtype, shape)


def _dtype(name: str) -> np.dtype[Any] | None:
    """Any name that numpy has for these types (`f4`, `<i8`, `single`), and the aliases."""
    if name == "string":
        return np.dtype("S")
    try:
        dtype = np.dtype(ALIASES.get(name, name)) if name else None
    except (TypeError, ValueError, SyntaxError):
        return None
    # Rows are in the machine's byte order, and bytes on the wire are little-endian whatever the name says.
    return dtype.newbyteorder("=") if dtype is not None and dtype.newbyteorder("=").name in NUMBERS else None


def _shape(text: str) -> tuple[int, ...] | None:
    """Empty: a vector. One length may be -1: it follows from the size."""
    try:
        shape = tuple(int(number) for number in text.replace(",", " ").strip("()[] ").split())
    except ValueError:
        return None
    known = [length for length in shape if length != -1]
    if len(shape) - len(known) > 1 or len(shape) > 32 or any(length < 1 for length in known):
        return None
    elements = 1
    for length in known:
        elements *= length
    return (shape or (-1,)) if elements <= MAX_ROW_BYTES else None


def _settle(spec: Spec, records: Sequence[bytes | None]) -> Spec:
    """Fill in the open length by the size that most records have."""
    if spec.is_known or not len(records):
        return spec
    sizes, counts = np.unique(sizes_of(records), return_counts=True)
    known_bytes = spec.dtype.itemsize * int(-np.prod(spec.shape, dtype=np.int64))
    fitting = [(count, size) for size, count in zip(sizes, counts, strict=True) if size > 0 and size % known_bytes == 0]
    if not fitting:
        return spec
    _, size = max(fitting)
    return Spec(spec.dtype, tuple(int(size) // known_bytes if length == -1 else length for length in spec.shape))


def _decode(spec: Spec, records: Sequence[bytes | None], what: str) -> Decoded:
    if not spec.is_known:
        return _all_bad(spec, records, what)
    if spec.dtype.kind == "S":
        return _decode_texts(spec, records, what)
    size = spec.row_bytes
    if (whole := joined(records, size)) is not None:
        return Decoded(_rows(spec, whole), np.arange(len(records)), [])
    sizes = sizes_of(records)
    good = np.flatnonzero(sizes == size)
    chosen = b"".join([records[index] or b"" for index in good.tolist()])
    reason = f"its {what} has {{}} bytes, where {spec} takes {size}"
    bad = [
        BadRecord(int(index), f"it has no {what}" if sizes[index] < 0 else reason.format(sizes[index]))
        for index in np.flatnonzero(sizes != size)
    ]
    return Decoded(_rows(spec, chosen), good, bad)


def _rows(spec: Spec, joined: bytes | memoryview) -> Array:
    """`(n, *shape)`, a view of the bytes."""
    wire = np.dtype(np.uint8) if spec.dtype.kind == "b" else spec.dtype.newbyteorder("<")
    rows = np.frombuffer(joined, wire).reshape(-1, *spec.shape)
    # Any byte but 0 is true; a view would let other bytes than 0 and 1 through.
    return rows.astype(np.bool_) if spec.dtype.kind == "b" else rows.astype(spec.dtype, copy=False)


def _decode_texts(spec: Spec, records: Sequence[bytes | None], what: str) -> Decoded:
    sizes = sizes_of(records)
    fits = (sizes >= 0) & (sizes <= spec.dtype.itemsize)
    good = np.flatnonzero(fits)
    rows = np.array([records[index] for index in good.tolist()], dtype=spec.dtype)
    reason = f"its {what} is a text of {{}} bytes, where {spec.dtype.itemsize} fit"
    bad = [
        BadRecord(int(index), f"it has no {what}" if sizes[index] < 0 else reason.format(sizes[index]))
        for index in np.flatnonzero(~fits)
    ]
    return Decoded(rows, good, bad)


def _all_bad(spec: Spec, records: Sequence[bytes | None], what: str) -> Decoded:
    """No record of the batch has a size that the open shape could take."""
    shape = tuple(0 if length == -1 else length for length in spec.shape)
    reason = f"its {what} has {{}} bytes, which is no multiple of {spec}"
    bad = [
        BadRecord(index, f"it has no {what}" if record is None else reason.format(len(record)))
        for index, record in enumerate(records)
    ]
    return Decoded(np.empty((0, *shape), spec.dtype), np.empty(0, np.int64), bad)


def _encode(spec: Spec, rows: Rows) -> list[bytes]:
    assert isinstance(rows, np.ndarray), "RAW records have no named fields"
    if spec.dtype.kind in "SU":
        return [text.encode() if isinstance(text, str) else bytes(text) for text in rows.reshape(len(rows)).tolist()]
    if not len(rows):
        return []
    wire = np.ascontiguousarray(rows, spec.dtype.newbyteorder("<")).reshape(-1)
    # As items without a type, which numpy makes bytes of at once: half of what slices cost.
    return wire.view(f"V{wire.nbytes // len(rows)}").tolist()
