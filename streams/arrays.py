"""Arrays that grow on disk, written beside the reading, and digests that tell later whether they are still whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import IO, Any

import numpy as np

from streams.codecs import Array, Spec
from streams.reader import Run, runs_of

_HEADER_BYTES = 512
_CHUNK_BYTES = 1 << 20
# So much may wait for the disk: memory is bounded, whatever a codec makes of the records.
_WAITING_BYTES = 32 * 1024 * 1024


class Digests:
    """A SHA-256 per partition (by its number), over its rows in order. Where batches begin and end does not matter."""

    def __init__(self) -> None:
        self._by_place: dict[int, Any] = {}

    def update(self, rows: Array, runs: Sequence[Run]) -> None:
        data = as_bytes(rows)
        size = len(data) // max(1, len(rows))
        for place, start, stop in runs:
            digest = self._by_place.get(place)
            if digest is None:
                digest = self._by_place[place] = hashlib.sha256()
            digest.update(data[start * size : stop * size])

    def of(self, place: int) -> bytes:
        """The digest of the rows so far; that of nothing where there are none."""
        return bytes((self._by_place.get(place) or hashlib.sha256()).digest())


class GrowingArray:
    """A `.npy` file that is written row by row; its header, of a fixed size, is written last.

    spec: of the rows that were appended; None before the first.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rows = 0
        self.spec: Spec | None = None
        self.digests = Digests()
        file.write(bytes(_HEADER_BYTES))

    def append(self, rows: Array, runs: Sequence[Run]) -> None:
        """runs: to which partitions the rows belong."""
        if self.spec is None and len(rows):
            self.spec = Spec(rows.dtype, rows.shape[1:])
        self._file.write(as_bytes(rows))
        self.digests.update(rows, runs)
        self._rows += len(rows)

    def finish(self, spec: Spec) -> None:
        """Write the header; `spec` is that of an array without rows."""
        self._file.seek(0)
        self._file.write(_npy_header(self.spec or spec, self._rows))
        self._file.flush()


def open_array(path: Path, spec: Spec, rows: int) -> Array:
    """The array, mapped read-only. Raises OSError, and ValueError for a file that is no array of so many such rows."""
    header = _npy_header(spec, rows)
    with path.open("rb") as file:
        if file.read(_HEADER_BYTES) != header or path.stat().st_size != _HEADER_BYTES + rows * _row_bytes(spec):
            raise ValueError(f"{path.name} is not an array of {rows} rows of {spec}")
    array: Array = np.load(path, mmap_mode="r" if rows else None)
    return array


def digests_of(rows: Array, places: Array) -> Digests:
    """As they were computed while the rows were appended. A chunk at a time: the arrays may be larger than memory."""
    digests = Digests()
    step = max(1, _CHUNK_BYTES // max(1, rows.dtype.itemsize * int(np.prod(rows.shape[1:]))))
    for start in range(0, len(rows), step):
        digests.update(rows[start : start + step], list(runs_of(places[start : start + step])))
    return digests


def as_bytes(rows: Array) -> memoryview:
    """The elements' bytes, without a copy where they lie in order."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


def _row_bytes(spec: Spec) -> int:
    return spec.dtype.itemsize * int(np.prod([max(length, 0) for length in spec.shape], dtype=np.int64))


def _npy_header(spec: Spec, rows: int) -> bytes:
    """Version 1.0 of numpy's format, filled up with blanks to a fixed size."""
    shape = (rows, *(max(length, 0) for length in spec.shape))
    text = repr({"descr": np.lib.format.dtype_to_descr(spec.dtype), "fortran_order": False, "shape": shape})
    room = _HEADER_BYTES - 10 - 1
    assert len(text) <= room
    return b"\x93NUMPY\x01\x00" + (room + 1).to_bytes(2, "little") + text.ljust(room).encode("latin1") + b"\n"


class Writer:
    """One thread that appends rows to arrays, in order; a bounded number of bytes waits for it."""

    def __init__(self) -> None:
        self._queue: Queue[tuple[GrowingArray, Array, Sequence[Run]] | None] = Queue(maxsize=64)
        self._room = threading.Condition()
        self._waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def put(self, array: GrowingArray, rows: Array, runs: Sequence[Run]) -> None:
        """Append the rows soon; waits while too much is waiting. Raises what an earlier write raised."""
        self._raise_failure()
        with self._room:
            self._room.wait_for(lambda: not self._waiting_bytes or self._waiting_bytes + rows.nbytes <= _WAITING_BYTES)
            self._waiting_bytes += rows.nbytes
        self._queue.put((array, rows, runs))

    def finish(self) -> None:
        """Return when everything is written."""
        self._queue.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            array, rows, runs = item
            try:
                if self._failure is None:
                    array.append(rows, runs)
            except Exception as error:  # raised where the rows come from; a thread that died would never take any
                self._failure = error
            with self._room:
                self._waiting_bytes -= rows.nbytes
                self._room.notify_all()
            del item, array, rows
            self._queue.task_done()
