"""Batches of records becoming rows, against the plain way for each format."""

import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import fastavro
import numpy as np
from google.protobuf.message import Message

from benchmarks.report import Ratio, paired
from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO, DATA_FORMAT_JSON, DATA_FORMAT_PROTOBUF, DATA_FORMAT_RAW
from streams.codecs import Array, Codec, codec_of
from streams.codecs.protobuf.schema import pool_of, schema_of

ROWS = 20_000
# As many as a reader hands over at once.
BATCH = 10_000
FEATURES = 16
PAIRS = 7
MEASURE_S = 0.2
FOR_INFORMATION = "–"

Way = Callable[[list[bytes]], Any]


def measure() -> list[Ratio]:
    """Records per second of both."""
    return [_raw(), *map(_avro, ("double", "mixed", "int")), _json(), _protobuf()]


def _raw() -> Ratio:
    """Both begin with a list of bytes, as Kafka's client hands them over."""
    pictures = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)
    codec = codec_of(DATA_FORMAT_RAW, pictures)
    return _ratio(
        "RAW batch decode of (n, 28, 28) uint8, against np.frombuffer on one joined buffer",
        codec,
        codec.encode_samples(pictures),
        lambda records: np.frombuffer(b"".join(records), np.uint8).reshape(-1, 28, 28),
        "≥ 0.8 ×",
    )


def _avro(kind: str) -> Ratio:
    samples = _samples(kind)
    codec = codec_of(DATA_FORMAT_AVRO, samples)
    schema = fastavro.parse_schema(json.loads(codec.config["data_scheme"]))
    names = {"double": "doubles", "mixed": "fixed-width fields (double, float, boolean)", "int": "ints (varints)"}
    return _ratio(
        f"Avro records of {FEATURES} {names[kind]}, against fastavro's reader record by record",
        codec,
        codec.encode_samples(samples),
        lambda records: [fastavro.schemaless_reader(io.BytesIO(record), schema, None) for record in records],
        FOR_INFORMATION if kind == "int" else "≥ 20 ×",
    )


def _json() -> Ratio:
    samples = _samples("double")
    codec = codec_of(DATA_FORMAT_JSON, samples)
    return _ratio(
        f"JSON objects of {FEATURES} numbers, against json.loads record by record and one array",
        codec,
        codec.encode_samples(samples),
        lambda records: np.array([list(json.loads(record).values()) for record in records]),
        FOR_INFORMATION,
    )


def _protobuf() -> Ratio:
    samples = _samples("double")
    codec = codec_of(DATA_FORMAT_PROTOBUF, samples)
    schema = schema_of(*pool_of(codec.config["descriptor_set"]), codec.config["data_message"])
    return _ratio(
        f"protobuf messages of {FEATURES} doubles, against ParseFromString and getattr field by field",
        codec,
        codec.encode_samples(samples),
        lambda records: np.array([_values(schema.parse(record), list(samples)) for record in records]),
        FOR_INFORMATION,
    )


def _values(message: Message, names: list[str]) -> list[float]:
    return [getattr(message, name) for name in names]


def _samples(kind: str) -> dict[str, Array]:
    """Arrays by field name, one a feature."""
    numbers = np.random.default_rng(0).normal(scale=1000, size=(FEATURES, ROWS))
    types = {"double": ["f8"], "int": ["i4"], "mixed": ["f8", "f4", "f8", "f8", "f4", "f8", "?", "f8"]}[kind]
    return {f"feature_{index}": row.astype(types[index % len(types)]) for index, row in enumerate(numbers)}


def _ratio(what: str, codec: Codec, records: list[bytes], baseline: Way, target: str) -> Ratio:
    assert not codec.decode_samples(records).bad
    baseline(records)
    ours = partial(_records_per_s, codec.decode_samples, records)
    pairs = paired(ours, partial(_records_per_s, baseline, records), PAIRS)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = tuple(one / other for one, other in pairs)
    return Ratio(what, f"{mine:,.0f} records/s", f"{theirs:,.0f} records/s", ratios, target)


def _records_per_s(way: Way, records: list[bytes]) -> float:
    """Over as many passes as take long enough to be measured."""
    started, passes = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < MEASURE_S:
        for start in range(0, len(records), BATCH):
            way(records[start : start + BATCH])
        passes += 1
    return passes * len(records) / seconds
