"""Files of results by their SHA-256, in any place that fsspec reaches; and uploads on their way there."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from control_plane.store import Store, results
from headrace.chunks import CHUNK_BYTES
from headrace.errors import Aborted, DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from headrace.failpoints import fail_at
from headrace.v1 import error_pb2


class ArtifactStore:
    """Complete files under `<url>/<first two digits>/<sha256>`; partial ones in the folder `uploads`."""

    def __init__(self, url: str, uploads: Path) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._uploads = uploads
        self._open: dict[Path, Upload] = {}
        # Between storing a file and recording it, nobody may find it unused and remove it.
        self.recording = asyncio.Lock()

    async def size_of(self, sha256: str) -> int | None:
        """The size of a complete file; None where there is none."""
        return await asyncio.to_thread(self._size_of, sha256)

    async def uploaded(self, result_id: int, sha256: str) -> int:
        """Bytes of a partial or complete upload that are held."""
        complete = await self.size_of(sha256)
        if complete is not None:
            return complete
        part = self._part(result_id, sha256)
        return part.stat().st_size if part.exists() else 0

    @contextmanager
    def upload(self, result_id: int, sha256: str, offset: int) -> Iterator[Upload]:
        """Go on with a partial file at `offset`. Whoever was writing it before is stopped (it lost its connection).

        Raises FailedPrecondition when fewer bytes are held.
        """
        part = self._part(result_id, sha256)
        if before := self._open.get(part):
            before.supersede()
        upload = self._open[part] = Upload(part, offset)
        try:
            yield upload
        finally:
            upload.close()
            if self._open.get(part) is upload:
                del self._open[part]

    async def check(self, upload: Upload, sha256: str, size_bytes: int) -> None:
        """Put a complete upload on disk and compare it. Raises DataLoss when size or digest differ."""
        await asyncio.to_thread(self._check, upload, sha256, size_bytes)

    async def keep(self, upload: Upload, sha256: str) -> None:
        """Give a checked upload its place under its digest, durably. Hold `recording` until it is recorded."""
        await asyncio.to_thread(self._keep, upload, sha256)

    async def chunks(self, sha256: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes from `offset` on. Raises DataLoss when the file is gone."""
        file = await asyncio.to_thread(self._open_stored, sha256, offset)
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            await asyncio.to_thread(file.close)

    async def remove_unused(self, store: Store, digests: list[str]) -> None:
        """Remove the files among these that no result has any more."""
        async with self.recording:
            for sha256 in digests:
                if not await store.read(partial(results.digest_is_used, sha256)):
                    await asyncio.to_thread(self._remove, sha256)

    def forget_uploads(self, older_than_s: float) -> None:
        """Remove partial files that nobody has gone on with for so long."""
        for part in self._uploads.glob("*.part"):
            if time.time() - part.stat().st_mtime > older_than_s:
                part.unlink(missing_ok=True)

    def _part(self, result_id: int, sha256: str) -> Path:
        return self._uploads / f"{result_id}-{sha256}.part"

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _size_of(self, sha256: str) -> int | None:
        with _storage_errors(self._root):
            path = self._path(sha256)
            return int(self._files.size(path)) if self._files.exists(path) else None

    def _check(self, upload: Upload, sha256: str, size_bytes: int) -> None:
        with _storage_errors(self._uploads):
            upload.sync()
            _check_digest(upload, sha256, size_bytes)

    def _keep(self, upload: Upload, sha256: str) -> None:
        with _storage_errors(self._root):
            fail_at("artifact_before_rename")
            if isinstance(self._files, LocalFileSystem):
                _move_durably(upload.part, Path(self._path(sha256)))
            else:
                self._files.put_file(str(upload.part), self._path(sha256))
                upload.part.unlink()

    def _open_stored(self, sha256: str, offset: int) -> Any:
        try:
            file = self._files.open(self._path(sha256), "rb")
        except FileNotFoundError as error:
            raise DataLoss(
                error_pb2.REASON_NO_ARTIFACT,
                f"the file {sha256} is recorded, but it is gone from {self._root}; restore it or train again",
                sha256=sha256,
                storage=self._root,
            ) from error
        file.seek(offset)
        return file

    def _remove(self, sha256: str) -> None:
        with _storage_errors(self._root):
            try:
                self._files.rm_file(self._path(sha256))
            except FileNotFoundError:
                return


class Upload:
    """One partial file being written."""

    def __init__(self, part: Path, offset: int) -> None:
        self.part = part
        self._lock = threading.Lock()
        self._superseded = False
        with _storage_errors(part.parent):
            part.parent.mkdir(parents=True, exist_ok=True)
            held = part.stat().st_size if part.exists() else 0
            if offset > held:
                raise _wrong_offset(offset, held)
            # Unbuffered: a full disk shows at the write, and never again when the file is closed.
            self._file = part.open("ab", buffering=0)
            if held > offset:
                # What lies behind the offset is sent again.
                self._file.truncate(offset)
        self.size = offset

    async def write(self, chunk: bytes) -> None:
        """Append. Raises Aborted when another call has taken the upload over, DISK_FULL when nothing more fits."""
        await asyncio.to_thread(self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        with self._lock, _storage_errors(self.part.parent):
            self._check_own()
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
            self.size += len(chunk)

    def sync(self) -> None:
        """Put what arrived on disk. Raises Aborted when another call has taken the upload over."""
        with self._lock:
            self._check_own()
            os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Remove what arrived: nothing that is kept of it could become right."""
        with self._lock:
            self._check_own()
            self.part.unlink()

    def supersede(self) -> None:
        with self._lock:
            self._superseded = True
            self._file.close()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _check_own(self) -> None:
        if self._superseded:
            message = "another call goes on with this upload"
            raise Aborted(error_pb2.REASON_FENCED, message, upload=self.part.stem)


def _check_digest(upload: Upload, sha256: str, size_bytes: int) -> None:
    with upload.part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = upload.part.stat().st_size
    if (digest, size) == (sha256, size_bytes):
        return
    upload.discard()
    raise DataLoss(
        error_pb2.REASON_DIGEST_MISMATCH,
        f"{size} bytes with the SHA-256 {digest} arrived, {size_bytes} with {sha256} were promised; send all again",
        size_bytes=size,
        sha256=digest,
        promised_size_bytes=size_bytes,
        promised_sha256=sha256,
    )


def _move_durably(source: Path, target: Path) -> None:
    """Rename a synced file; when this returns, a crash of the machine cannot undo it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_durably(source, target)
    for folder in (target.parent, target.parent.parent):
        _sync_folder(folder)


def _copy_durably(source: Path, target: Path) -> None:
    """For artifacts on another file system than the home folder."""
    copy = target.with_suffix(".copy")
    with source.open("rb") as read, copy.open("wb") as written:
        shutil.copyfileobj(read, written, CHUNK_BYTES)
        written.flush()
        os.fsync(written.fileno())
    copy.replace(target)
    source.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wrong_offset(offset: int, held: int) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE,
        f"the upload cannot go on at byte {offset}: {held} bytes are held; ask GetUpload for the offset",
        offset=offset,
        held_bytes=held,
    )


@contextmanager
def _storage_errors(where: object) -> Iterator[None]:
    """A full disk, and a storage that fails, as errors that say where."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"the disk that holds {where} is full"
            raise ResourceExhausted(error_pb2.REASON_DISK_FULL, message, retry_after_s=10, path=where) from error
        message = f"the artifacts at {where} cannot be reached: {error}"
        raise Unavailable(error_pb2.REASON_STORAGE_UNAVAILABLE, message, retry_after_s=5, path=where) from error
