"""A stream's records as memory-mapped arrays in a folder, read from Kafka once."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Message

from headrace.errors import FailedPrecondition, HeadraceError, ResourceExhausted
from headrace.v1 import error_pb2
from headrace.v1.deployment_pb2 import COUNT_MISMATCH_ACCEPT, CountMismatch
from headrace.v1.stream_pb2 import Stream, StreamAnnouncement
from streams.arrays import Digests, GrowingArray, Writer, digests_of, open_array
from streams.codecs import Array, Codec, Decoded, Field, Spec, codec_for
from streams.decode_errors import DecodeErrors
from streams.kafka import KafkaSettings
from streams.offsets import format_ranges
from streams.plan import Place
from streams.preflight import Wait
from streams.reader import WAIT_S, RangeReader, RecordBatch, Run, runs_of

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
_REPORT_EVERY_S = 0.2
# Where and when each row was written.
_PLACE_SPECS = {
    "offsets": Spec(np.dtype(np.int64), ()),
    "partitions": Spec(np.dtype(np.int32), ()),
    "timestamps": Spec(np.dtype(np.int64), ()),
}
_PLACE_BYTES = sum(spec.row_bytes for spec in _PLACE_SPECS.values())


@dataclass(frozen=True)
class Progress:
    """How far a reading is.

    read, total: offsets, of which some may hold no record.
    left_s: how long the rest takes at the rate so far; None while there is none.
    """

    read: int
    total: int
    records_per_s: float
    left_s: float | None


@dataclass(frozen=True)
class Spool:
    """The rows of a stream, in the order in which they were read.

    samples, labels: `.npy` files of `(rows, *spec.shape)`, for `np.load(..., mmap_mode="r")`; None without labels.
    decode_error_count: records that were left out because they could not be decoded.
    record_count: records read, those included; others_count: records of other streams in the same ranges.
    sources: what the numbers of `partitions.npy` stand for: (topic, partition), sorted.
    digests: of each of `sources`, the SHA-256 of its rows in offset order, in hex: the same rows have the same digest,
        however they were read.
    fields: what a sample's row consists of, where the records have named fields.
    config: the input_config with what the records decided: who decodes by it decodes alike.
    reading_s: how long the reading took, waits included.
    """

    folder: Path
    samples: Path
    labels: Path | None
    rows: int
    record_count: int
    decode_error_count: int
    others_count: int
    sample_spec: Spec
    label_spec: Spec | None
    sources: list[Place]
    digests: list[str]
    fields: tuple[Field, ...]
    config: dict[str, str]
    reading_s: float

    def read(self, name: str) -> Array:
        """One of `samples`, `labels`, `offsets`, `partitions`, `timestamps` (milliseconds), mapped read-only."""
        array: Array = np.load(self.folder / f"{name}.npy", mmap_mode="r" if self.rows else None)
        return array


def spool_stream(  # noqa: PLR0913
    stream: Stream | StreamAnnouncement,
    kafka: KafkaSettings,
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_wait: Callable[[Wait], None] | None = None,
    stop: threading.Event | None = None,
    decode_error_limit: float = 0.0,
    count_mismatch: CountMismatch | int = CountMismatch.COUNT_MISMATCH_FAIL,
    limit_bytes: int = 0,
    wait_s: float = WAIT_S,
) -> Spool:
    """Read the stream's ranges into arrays in `folder`, or take what an earlier call left there for the same stream.

    Memory is bounded, whatever the size of the stream. An interrupted call leaves nothing that the next one would take
    for complete.

    decode_error_limit: the part of the records that may be undecodable, in [0, 1]; 0: the first ends it.
    count_mismatch: what to do when fewer or more records are read than were announced.
    limit_bytes: how much the arrays may take on disk; 0: no limit.

    Raises what RangeReader raises, and InvalidArgument (INVALID_FORMAT, DECODE_ERROR with the first three by partition
    and offset), FailedPrecondition (COUNT_MISMATCH, EMPTY_STREAM), ResourceExhausted (SPOOL_LIMIT, DISK_FULL),
    Cancelled.
    """
    left = open_spool(folder, stream)
    if left is not None and left.decode_error_count <= decode_error_limit * left.record_count:
        log.info("the stream was spooled before", extra={"rows": left.rows})
        return left
    started = time.monotonic()
    codec = codec_for(stream.input_format, stream.input_config)
    reader = RangeReader(
        kafka, stream.ranges, topic_ids=stream.topic_ids, stream_key=stream.stream_key, wait_s=wait_s, stop=stop
    )
    promised = 0 if count_mismatch == COUNT_MISMATCH_ACCEPT else stream.record_count
    quota = _Quota(limit_bytes, codec, math.floor(promised * (1 - decode_error_limit)), reader.records_total)
    quota.check(0)
    _clear(folder)
    errors = DecodeErrors(decode_error_limit, reader)
    with reader, _Arrays(folder, codec) as arrays, _disk_errors(folder):
        reader.check(on_wait)
        _fill(arrays, reader, errors, quota, _Reporter(on_progress, reader))
        errors.check()
        _check_count(reader, stream.record_count, count_mismatch)
        return _seal(folder, stream, reader, arrays, errors.count, started)


def open_spool(folder: Path, stream: Stream | StreamAnnouncement | None = None) -> Spool | None:
    """The spool in the folder; None if there is none, or it is incomplete, damaged or (with `stream`) another one's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["version"] != FORMAT_VERSION or (stream is not None and manifest["stream"] != _identity(stream)):
            return None
        spool = _spool(folder, manifest)
        damaged = _damaged(spool, manifest["places"])
        if damaged:
            log.warning("a spooled array is damaged; reading the stream again", extra={"array": damaged})
            return None
        return spool
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damaged(spool: Spool, places: Mapping[str, str]) -> str:
    """The name of an array that is not what was written; empty when all are whole."""
    for name, spec in _PLACE_SPECS.items():
        rows = open_array(spool.folder / f"{name}.npy", spec, spool.rows)
        if digests_of(rows, np.broadcast_to(np.int32(0), spool.rows)).of(0).hex() != places[name]:
            return name
    partitions = spool.read("partitions")
    parts = {
        name: _Part(spec, digests_of(open_array(spool.folder / f"{name}.npy", spec, spool.rows), partitions))
        for name, spec in (("samples", spool.sample_spec), ("labels", spool.label_spec))
        if spec is not None
    }
    return "" if _digests(parts, len(spool.sources)) == spool.digests else " or ".join(parts)


class _Part(NamedTuple):
    """Samples or labels."""

    spec: Spec
    digests: Digests


def _digests(parts: Mapping[str, _Part], sources: int) -> list[str]:
    """One of each partition, over type, shape and rows of all parts."""
    return [
        hashlib.sha256(
            b"".join(f"{name} {spec}\n".encode() + digests.of(number) for name, (spec, digests) in parts.items())
        ).hexdigest()
        for number in range(sources)
    ]


def _fill(arrays: _Arrays, reader: RangeReader, errors: DecodeErrors, quota: _Quota, report: _Reporter) -> None:
    """Once too many records are undecodable, it reads on only to find those that are to be shown."""
    for batch in reader.batches():
        report.some()
        rows = _decode(arrays.codec, batch)
        errors.add(batch, rows.bad)
        if errors.too_many:
            errors.raise_if_known()
            continue
        quota.check(arrays.rows + len(rows.good))
        arrays.append(batch, rows)
    report.all()


class _Rows(NamedTuple):
    """A decoded batch: its parts, which records (by index) are good in all of them, and why the others are not."""

    parts: Mapping[str, Decoded]
    good: Array
    bad: Mapping[int, str]


def _decode(codec: Codec, batch: RecordBatch) -> _Rows:
    parts = {"samples": codec.decode_samples(list(map(Message.value, batch)))}
    if codec.label_spec is not None:
        parts["labels"] = codec.decode_labels(list(map(Message.key, batch)))
    bad: dict[int, str] = {}
    for part in parts.values():
        for record in part.bad:
            bad.setdefault(record.index, record.reason)
    return _Rows(parts, _good_in_all(parts.values(), len(batch)), dict(sorted(bad.items())))


class _Arrays:
    """The growing `.npy` files of one spool. A thread writes and digests them beside the reading."""

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.codec = codec
        self.rows = 0
        self._folder = folder
        self._files: dict[str, GrowingArray] = {}
        self._open = ExitStack()

    def __enter__(self) -> _Arrays:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (*self._parts, *_PLACE_SPECS):
            file = self._open.enter_context((self._folder / f"{name}.npy").open("wb"))
            self._files[name] = GrowingArray(file)
        self._writer = self._open.enter_context(Writer())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def _parts(self) -> list[str]:
        return ["samples", "labels"] if self.codec.label_spec is not None else ["samples"]

    def append(self, batch: RecordBatch, rows: _Rows) -> None:
        """Append the good rows of the batch."""
        everything = len(rows.good) == len(batch)
        for name, column in _places(batch).items():
            chosen = column if everything else column[rows.good]
            self._writer.put(self._files[name], chosen, [Run(0, 0, len(chosen))])
        runs = list(runs_of(batch.places if everything else batch.places[rows.good]))
        for name, part in rows.parts.items():
            as_many = len(rows.good) == len(part.good)
            self._writer.put(
                self._files[name], part.rows if as_many else part.rows[np.isin(part.good, rows.good)], runs
            )
        self.rows += len(rows.good)

    def finish(self) -> None:
        """Complete the files."""
        self._writer.finish()
        for name, file in self._files.items():
            file.finish(self._spec(name))

    def manifest(self, sources: int) -> dict[str, Any]:
        """What it takes to open the complete files, and to see that they are whole."""
        specs = {name: self._spec(name) for name in self._parts}
        parts = {name: _Part(spec, self._files[name].digests) for name, spec in specs.items()}
        return {
            "rows": self.rows,
            "places": {name: self._files[name].digests.of(0).hex() for name in _PLACE_SPECS},
            "digests": _digests(parts, sources),
            "sample": _spec_json(specs["samples"]),
            "label": _spec_json(specs["labels"]) if "labels" in specs else None,
            "fields": [_field_json(field) for field in self.codec.fields],
            "config": self.codec.config,
        }

    def _spec(self, name: str) -> Spec:
        """What the rows are; where there are none, what they would have been."""
        known = {**_PLACE_SPECS, "samples": self.codec.sample_spec, "labels": self.codec.label_spec}
        spec = self._files[name].spec or known[name]
        assert spec is not None
        return spec


def _places(batch: RecordBatch) -> dict[str, Array]:
    times = map(itemgetter(1), map(Message.timestamp, batch))
    return {
        "offsets": batch.offsets,
        "partitions": batch.places.astype(np.int32),
        "timestamps": np.fromiter(times, np.int64, len(batch)),
    }


def _seal(
    folder: Path,
    stream: Stream | StreamAnnouncement,
    reader: RangeReader,
    arrays: _Arrays,
    decode_errors: int,
    started: float,
) -> Spool:
    """Write the manifest, which makes the spool complete.

    The arrays need no fsync: their digests are checked when they are opened.
    """
    arrays.finish()
    manifest = {
        "version": FORMAT_VERSION,
        "stream": _identity(stream),
        "records": reader.records_read,
        "decode_errors": decode_errors,
        "others": reader.records_of_others,
        "sources": reader.places,
        "reading_s": time.monotonic() - started,
        **arrays.manifest(len(reader.places)),
    }
    temporary = folder / f"{MANIFEST}.new"
    with temporary.open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)
    _sync_folder(folder)
    return _spool(folder, manifest)


def _spool(folder: Path, manifest: Mapping[str, Any]) -> Spool:
    label = manifest["label"]
    return Spool(
        folder=folder,
        samples=folder / "samples.npy",
        labels=folder / "labels.npy" if label is not None else None,
        rows=manifest["rows"],
        record_count=manifest["records"],
        decode_error_count=manifest["decode_errors"],
        others_count=manifest["others"],
        sample_spec=_spec(manifest["sample"]),
        label_spec=_spec(label) if label is not None else None,
        sources=[(topic, partition) for topic, partition in manifest["sources"]],
        digests=list(manifest["digests"]),
        fields=tuple(_field(facts) for facts in manifest["fields"]),
        config=dict(manifest["config"]),
        reading_s=manifest["reading_s"],
    )


class _Reporter:
    """Tells the progress a few times a second."""

    def __init__(self, on_progress: Callable[[Progress], None] | None, reader: RangeReader) -> None:
        self._on_progress = on_progress
        self._reader = reader
        self._started = time.monotonic()
        self._last = 0.0

    def some(self) -> None:
        if time.monotonic() - self._last >= _REPORT_EVERY_S:
            self.all()

    def all(self) -> None:
        self._last = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(self._progress(max(self._last - self._started, 1e-9)))

    def _progress(self, seconds: float) -> Progress:
        done, total = self._reader.offsets_done, self._reader.records_total
        left_s = (total - done) * seconds / done if done else None
        return Progress(done, total, self._reader.records_read / seconds, left_s)


class _Quota:
    """Tells that a stream is too large as early as it can be known.

    at_least: how many rows there will be, whatever holes there are; expected: how many there may be.
    """

    def __init__(self, limit_bytes: int, codec: Codec, at_least: int, expected: int) -> None:
        self._limit_bytes = limit_bytes
        self._codec = codec
        self._at_least = at_least
        self._expected = expected

    def check(self, rows: int) -> None:
        """Raise ResourceExhausted (SPOOL_LIMIT) if `rows` rows, or those that are to come for certain, are too many."""
        row_bytes = self._row_bytes()
        if self._limit_bytes and max(rows, self._at_least) * row_bytes > self._limit_bytes:
            raise self._error(max(rows, self._at_least or self._expected) * row_bytes)

    def _row_bytes(self) -> int:
        """Of all arrays; a length that the first records have yet to decide is at least 1."""
        specs = [self._codec.sample_spec, *([self._codec.label_spec] if self._codec.label_spec is not None else [])]
        return sum(spec.dtype.itemsize * math.prod(map(abs, spec.shape)) for spec in specs) + _PLACE_BYTES

    def _error(self, needed_bytes: int) -> ResourceExhausted:
        return ResourceExhausted(
            error_pb2.REASON_SPOOL_LIMIT,
            f"the stream takes about {needed_bytes:,} bytes on disk, and a run may keep {self._limit_bytes:,}; allow "
            "the trainer more (HEADRACE_SPOOL_LIMIT_BYTES), or announce fewer records",
            limit_bytes=self._limit_bytes,
            needed_bytes=needed_bytes,
        )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full disk is a reason of its own; anything else goes on as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(folder).free
        raise ResourceExhausted(
            error_pb2.REASON_DISK_FULL,
            f"the disk is full: the stream does not fit into {folder} ({free} bytes are free)",
            folder=folder,
            free_bytes=free,
        ) from error


def _check_count(reader: RangeReader, announced: int, policy: CountMismatch | int) -> None:
    if not reader.records_read:
        raise FailedPrecondition(
            error_pb2.REASON_EMPTY_STREAM,
            "the ranges hold no record of the stream: all of their offsets are transaction markers, aborted, deleted "
            "or of other streams",
            offsets=reader.records_total,
            others=reader.records_of_others,
        )
    if announced and announced != reader.records_read:
        facts = {"announced": announced, "read": reader.records_read, "others": reader.records_of_others}
        message = f"{announced} records were announced and {reader.records_read} are there"
        if policy != COUNT_MISMATCH_ACCEPT:
            raise _count_mismatch(message, facts)
        log.warning(message, extra=facts)


def _count_mismatch(message: str, facts: Mapping[str, int]) -> HeadraceError:
    error = FailedPrecondition(error_pb2.REASON_COUNT_MISMATCH, f"{message}; count_mismatch ACCEPT trains on those")
    error.metadata = {name: str(value) for name, value in facts.items()}
    return error


def _good_in_all(parts: Iterable[Decoded], count: int) -> Array:
    """Indices of the records that are good in every part."""
    parts = list(parts)
    good: Array = parts[0].good
    for part in parts[1:]:
        if len(part.good) < count:
            good = np.intersect1d(good, part.good, assume_unique=True)
    return good


def _identity(stream: Stream | StreamAnnouncement) -> dict[str, Any]:
    """What makes two streams the same rows."""
    return {
        "ranges": format_ranges(stream.ranges),
        "topic_ids": dict(sorted(stream.topic_ids.items())),
        "stream_key": stream.stream_key,
        "input_format": int(stream.input_format),
        "input_config": dict(sorted(stream.input_config.items())),
    }


def _spec_json(spec: Spec) -> dict[str, Any]:
    return {"dtype": spec.dtype.str, "shape": list(spec.shape)}


def _spec(facts: Mapping[str, Any]) -> Spec:
    return Spec(np.dtype(facts["dtype"]), tuple(facts["shape"]))


def _field_json(field: Field) -> dict[str, Any]:
    return {"name": field.name, **_spec_json(field.spec), "start": field.start, "stop": field.stop}


def _field(facts: Mapping[str, Any]) -> Field:
    return Field(facts["name"], _spec(facts), facts["start"], facts["stop"])


def _clear(folder: Path) -> None:
    """The manifest first: without it the rest is nothing."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.glob("*.npy"):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
