"""The events of one attempt in a file: what the collector has not acknowledged yet survives the process."""

import contextlib
import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import ResourceExhausted
from headrace.v1 import error_pb2
from headrace.v1.result_collector_pb2 import ReportRequest

RECORD = struct.Struct("<II")  # length of the message, CRC-32 of the message; length 0: nothing follows
AHEAD_BYTES = 256 * 1024
RESERVE_BYTES = 64 * 1024
FORGET_BYTES = 4 * 1024 * 1024


class Journal:
    """An append-only file of ReportRequests with rising `seq`.

    Space is reserved ahead of the writing, and the last `RESERVE_BYTES` of it are for final events only: so a full disk
    can still be reported. Offsets count from the first event ever appended. Appending, reading and syncing may happen
    on different threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._lock = threading.Lock()
        self._start = 0  # the offset of the file's first byte
        self._end = 0
        self._reserved = 0
        self._synced = 0

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._reserve()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1

    def append(self, request: ReportRequest, *, final: bool = False) -> None:
        """Writes one event; a final one may use the reserve. Raises DISK_FULL, and then nothing is written."""
        body = request.SerializeToString()
        record = RECORD.pack(len(body), zlib.crc32(body)) + body
        with self._lock:
            self._make_room(len(record), final)
            _write_all(self._file, record, self._end - self._start)
            self._end += len(record)

    def read(self, offset: int) -> tuple[ReportRequest, int] | None:
        """The event at `offset` (0 is the first) and the offset of the next one; None at the end."""
        with self._lock:
            offset = max(offset, self._start)
            if offset >= self._end:
                return None
            found = _read(self._file, offset - self._start)
            return found and (found[0], found[1] + self._start)

    def find(self, seq: int) -> int:
        """The offset of the event `seq`, or the end when it is not written yet."""
        offset = 0
        while (found := self.read(offset)) is not None and found[0].seq < seq:
            offset = found[1]
        return offset

    def sync(self) -> None:
        """Blocks until everything appended before the call is on the disk."""
        with self._lock:
            end = self._end
            file = os.dup(self._file) if end > self._synced else -1
        if file < 0:
            return
        try:
            os.fdatasync(file)
        finally:
            os.close(file)
        self._synced = max(self._synced, end)

    def forget(self) -> None:
        """Nobody needs what was appended so far: its room may be used again."""
        with self._lock:
            if self._end - self._start < FORGET_BYTES:
                return
            os.ftruncate(self._file, 0)
            self._start, self._reserved = self._end, 0
            self._reserve()

    def _make_room(self, size: int, final: bool) -> None:
        while self._end - self._start + size > self._reserved - (0 if final else RESERVE_BYTES):
            try:
                self._reserve()
            except OSError as error:
                raise _disk_error(error, self.path) from error

    def _reserve(self) -> None:
        os.posix_fallocate(self._file, self._reserved, AHEAD_BYTES)
        self._reserved += AHEAD_BYTES


def read_journal(path: Path) -> Iterator[ReportRequest]:
    """The events of a journal that another process left, up to the first that is not whole."""
    with contextlib.ExitStack() as stack:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        stack.callback(os.close, file)
        offset = 0
        while (found := _read(file, offset)) is not None:
            request, offset = found
            yield request


def _read(file: int, offset: int) -> tuple[ReportRequest, int] | None:
    head = os.pread(file, RECORD.size, offset)
    if len(head) < RECORD.size:
        return None
    length, checksum = RECORD.unpack(head)
    body = os.pread(file, length, offset + RECORD.size)
    if length == 0 or len(body) < length or zlib.crc32(body) != checksum:
        return None
    return ReportRequest.FromString(body), offset + RECORD.size + length


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _disk_error(error: OSError, path: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    return ResourceExhausted(
        error_pb2.REASON_DISK_FULL,
        f"the disk is full: no event fits into {path.parent}; free some space and train again",
        path=str(path),
    )
