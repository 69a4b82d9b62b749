"""A stream's records as memory-mapped arrays in a folder, read from Kafka once."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import IO, Any

import numpy as np
from confluent_kafka import Message

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument, ResourceExhausted
from headrace.v1 import error_pb2
from headrace.v1.deployment_pb2 import COUNT_MISMATCH_ACCEPT, CountMismatch
from headrace.v1.stream_pb2 import Stream, StreamAnnouncement
from streams.codecs import Array, BadRecord, Codec, Decoded, Spec, codec_for
from streams.kafka import KafkaSettings
from streams.offsets import format_ranges
from streams.reader import WAIT_S, RangeReader, RecordBatch, Wait

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
# Undecodable records that an error shows.
_SHOWN = 3
_HASH_BYTES = 1 << 20
_HEADER_BYTES = 512
_REPORT_EVERY_S = 0.2

# Called with offsets read, offsets in all, records per second.
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Spool:
    """The rows of a stream, in the order in which they were read.

    samples, labels: `.npy` files of `(rows, *spec.shape)`, for `np.load(..., mmap_mode="r")`; None without labels.
    decode_error_count: records that were left out because they could not be decoded.
    record_count: records read, those included; others_count: records of other streams in the same ranges.
    sources: what the numbers of `partitions.npy` stand for: (topic, partition), sorted.
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
    sources: list[tuple[str, int]]

    def read(self, name: str) -> Array:
        """One of `samples`, `labels`, `offsets`, `partitions`, `timestamps` (milliseconds), mapped read-only."""
        array: Array = np.load(self.folder / f"{name}.npy", mmap_mode="r" if self.rows else None)
        return array


def spool_stream(  # noqa: PLR0913
    stream: Stream | StreamAnnouncement,
    kafka: KafkaSettings,
    folder: Path,
    *,
    on_progress: Progress | None = None,
    on_wait: Callable[[Wait], None] | None = None,
    stop: threading.Event | None = None,
    decode_error_limit: float = 0.0,
    count_mismatch: CountMismatch | int = CountMismatch.COUNT_MISMATCH_FAIL,
    wait_s: float = WAIT_S,
) -> Spool:
    """Read the stream's ranges into arrays in `folder`, or take what an earlier call left there for the same stream.

    Memory is bounded, whatever the size of the stream. An interrupted call leaves nothing that the next one would take
    for complete.

    decode_error_limit: the part of the records that may be undecodable, in [0, 1]; 0: the first ends it.
    count_mismatch: what to do when fewer or more records are read than were announced.

    Raises what RangeReader raises, and InvalidArgument (INVALID_FORMAT, DECODE_ERROR with the first three by partition
    and offset), FailedPrecondition (COUNT_MISMATCH, EMPTY_STREAM), ResourceExhausted (DISK_FULL), Cancelled.
    """
    left = open_spool(folder, stream)
    if left is not None and left.decode_error_count <= decode_error_limit * left.record_count:
        log.info("the stream was spooled before", extra={"rows": left.rows})
        return left
    codec = codec_for(stream.input_format, stream.input_config)
    reader = RangeReader(kafka, stream.ranges, stream_key=stream.stream_key, wait_s=wait_s, stop=stop)
    _clear(folder)
    errors = _DecodeErrors(decode_error_limit, reader.records_total)
    report = _Reporter(on_progress, reader)
    with reader, _Arrays(folder, codec) as arrays, _disk_errors(folder):
        reader.check(on_wait)
        for batch in reader.batches():
            arrays.append(batch, errors)
            report.some()
        report.all()
        errors.check(reader.records_read)
        _check_count(reader, stream.record_count, count_mismatch)
        return _seal(folder, stream, reader, arrays, errors.count)


def open_spool(folder: Path, stream: Stream | StreamAnnouncement | None = None) -> Spool | None:
    """The spool in the folder; None if there is none, or it is incomplete, damaged or (with `stream`) another one's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["version"] != FORMAT_VERSION or (stream is not None and manifest["stream"] != _identity(stream)):
            return None
        for name, facts in manifest["arrays"].items():
            if _sha256(folder / name) != facts["sha256"]:
                log.warning("a spooled array is damaged; reading the stream again", extra={"array": name})
                return None
        return _spool(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    )


def _seal(
    folder: Path, stream: Stream | StreamAnnouncement, reader: RangeReader, arrays: _Arrays, decode_errors: int
) -> Spool:
    """Write the manifest, which makes the spool complete.

    The arrays need no fsync: their digests are checked when they are opened.
    """
    manifest = {
        "version": FORMAT_VERSION,
        "stream": _identity(stream),
        "rows": arrays.rows,
        "records": reader.records_read,
        "decode_errors": decode_errors,
        "others": reader.records_of_others,
        "sample": _spec_json(arrays.codec.sample_spec),
        "label": _spec_json(arrays.codec.label_spec) if arrays.codec.label_spec is not None else None,
        "sources": reader.places,
        "arrays": arrays.finish(),
    }
    temporary = folder / f"{MANIFEST}.new"
    with temporary.open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)
    _sync_folder(folder)
    return _spool(folder, manifest)


class _Arrays:
    """The growing `.npy` files of one spool. A thread writes and digests them beside the reading."""

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.codec = codec
        self.rows = 0
        self._folder = folder
        self._files: dict[str, _GrowingArray] = {}
        self._open = ExitStack()

    def __enter__(self) -> _Arrays:
        self._folder.mkdir(parents=True, exist_ok=True)
        names = ["samples", "offsets", "partitions", "timestamps"]
        names += ["labels"] if self.codec.label_spec is not None else []
        for name in names:
            file = self._open.enter_context((self._folder / f"{name}.npy").open("wb"))
            self._files[name] = _GrowingArray(file)
        self._writer = self._open.enter_context(_Writer())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def append(self, batch: RecordBatch, errors: _DecodeErrors) -> None:
        """Decode the batch and append its good rows; `errors` gets the others, and may raise."""
        decoded = {"samples": self.codec.decode_samples(list(map(Message.value, batch)))}
        if self.codec.label_spec is not None:
            decoded["labels"] = self.codec.decode_labels(list(map(Message.key, batch)))
        good = _good_in_all(decoded.values(), len(batch))
        if len(good) < len(batch):
            errors.add(batch, decoded.values())
        columns = _places(batch) | {name: part.rows for name, part in decoded.items()}
        for name, rows in columns.items():
            known = decoded[name].good if name in decoded else np.arange(len(batch))
            self._writer.put(self._files[name], rows if len(good) == len(known) else rows[np.isin(known, good)])
        self.rows += len(good)

    def finish(self) -> dict[str, dict[str, str]]:
        """Complete the files. File name → facts for the manifest."""
        self._writer.finish()
        specs = {"samples": self.codec.sample_spec, "labels": self.codec.label_spec}
        return {f"{name}.npy": {"sha256": file.finish(specs.get(name))} for name, file in self._files.items()}


def _places(batch: RecordBatch) -> dict[str, Array]:
    times = map(itemgetter(1), map(Message.timestamp, batch))
    return {
        "offsets": batch.offsets,
        "partitions": batch.places.astype(np.int32),
        "timestamps": np.fromiter(times, np.int64, len(batch)),
    }


class _Writer:
    """One thread that appends rows to arrays, in order; at most a few batches wait for it."""

    def __init__(self) -> None:
        self._queue: Queue[tuple[_GrowingArray, Array] | None] = Queue(maxsize=16)
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._failure: OSError | None = None

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def put(self, array: _GrowingArray, rows: Array) -> None:
        """Append the rows soon; waits while too much is waiting. Raises the OSError of an earlier write."""
        self._raise_failure()
        self._queue.put((array, rows))

    def finish(self) -> None:
        """Return when everything is written."""
        self._queue.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            array, rows = item
            try:
                if self._failure is None:
                    array.append(rows)
            except OSError as error:
                self._failure = error
            finally:
                self._queue.task_done()


class _GrowingArray:
    """A `.npy` file that is written row by row; its header, of a fixed size, is written last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._rows = 0
        self._spec: Spec | None = None
        file.write(bytes(_HEADER_BYTES))

    def append(self, rows: Array) -> None:
        if self._spec is None and len(rows):
            self._spec = Spec(rows.dtype, rows.shape[1:])
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        self._file.write(data)
        self._digest.update(data)
        self._rows += len(rows)

    def finish(self, spec: Spec | None) -> str:
        """Write the header; the digest of the rows, with their type and number."""
        spec = self._spec or spec or Spec(np.dtype(np.int64), ())
        header = _npy_header(spec, self._rows)
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
        return hashlib.sha256(header + self._digest.digest()).hexdigest()


def _npy_header(spec: Spec, rows: int) -> bytes:
    """Version 1.0 of numpy's format, filled up with blanks to a fixed size."""
    shape = (rows, *(max(length, 0) for length in spec.shape))
    text = repr({"descr": np.lib.format.dtype_to_descr(spec.dtype), "fortran_order": False, "shape": shape})
    room = _HEADER_BYTES - 10 - 1
    assert len(text) <= room
    return b"\x93NUMPY\x01\x00" + (room + 1).to_bytes(2, "little") + text.ljust(room).encode("latin1") + b"\n"


def _sha256(path: Path) -> str:
    """As `_GrowingArray.finish` computes it: rows first, since the header was written last."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return hashlib.sha256(header + digest.digest()).hexdigest()


class _DecodeErrors:
    """Counts undecodable records and keeps the first few."""

    def __init__(self, limit: float, total: int) -> None:
        self._limit = limit
        self._total = total
        self._shown: list[tuple[str, int, int, str]] = []
        self.count = 0

    def add(self, batch: Sequence[Message], parts: Iterable[Decoded]) -> None:
        """Raises DECODE_ERROR as soon as more are bad than the limit could ever allow."""
        bad: dict[int, BadRecord] = {}
        for part in parts:
            for record in part.bad:
                bad.setdefault(record.index, record)
        self.count += len(bad)
        for index in sorted(bad)[: _SHOWN - len(self._shown)]:
            message = batch[index]
            place = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            self._shown.append((*place, bad[index].reason))
        if self.count > self._limit * self._total:
            raise self._error()

    def check(self, records: int) -> None:
        if self.count > self._limit * records:
            raise self._error()

    def _error(self) -> InvalidArgument:
        examples = "; ".join(f"{topic}/{part} offset {at}: {why}" for topic, part, at, why in self._shown)
        facts: dict[str, object] = {}
        for number, (topic, partition, offset, why) in enumerate(self._shown):
            suffix = f"_{number + 1}" if number else ""
            facts |= {f"topic{suffix}": topic, f"partition{suffix}": partition}
            facts |= {f"offset{suffix}": offset, f"cause{suffix}": why}
        error = InvalidArgument(
            error_pb2.REASON_DECODE_ERROR,
            f"{self.count} records cannot be decoded (decode_error_limit allows {self._limit:.1%}): {examples}",
        )
        error.metadata = {name: str(value) for name, value in {**facts, "count": self.count}.items()}
        return error


class _Reporter:
    """Tells the progress a few times a second."""

    def __init__(self, on_progress: Progress | None, reader: RangeReader) -> None:
        self._on_progress = on_progress
        self._reader = reader
        self._started = self._last = time.monotonic()

    def some(self) -> None:
        if time.monotonic() - self._last >= _REPORT_EVERY_S:
            self.all()

    def all(self) -> None:
        self._last = time.monotonic()
        if self._on_progress is not None:
            rate = self._reader.records_read / max(self._last - self._started, 1e-9)
            self._on_progress(self._reader.offsets_done, self._reader.records_total, rate)


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
        "stream_key": stream.stream_key,
        "input_format": int(stream.input_format),
        "input_config": dict(sorted(stream.input_config.items())),
    }


def _spec_json(spec: Spec) -> dict[str, Any]:
    return {"dtype": spec.dtype.str, "shape": list(spec.shape)}


def _spec(facts: Mapping[str, Any]) -> Spec:
    return Spec(np.dtype(facts["dtype"]), tuple(facts["shape"]))


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
