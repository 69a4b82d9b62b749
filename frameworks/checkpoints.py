"""Checkpoints of one training in a folder: whole ones only, the last two, each with the epochs up to it.

A checkpoint is one file: magic, size of the header, header (JSON), arrays, and the SHA-256 of all that. It is written
under another name, synced and renamed, so whatever carries the name was whole when it got it. The epochs lie in a file
beside it that only grows; a checkpoint says how much of it belongs to it, and that part's digest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frameworks.failure import Failure
from frameworks.tree import Tree, flatten, unflatten

MAGIC = b"HRCHKPT1"
HEAD = struct.Struct("<8sQ")
DIGEST_BYTES = hashlib.sha256().digest_size
KEPT = 2
EPOCHS = "epochs.jsonl"
# Epochs may take milliseconds: their checkpoints take a second's distance, and a fiftieth of the time.
EPOCH_PAUSE_S = 1.0
PAUSE_PER_COST = 50
FULL = (errno.ENOSPC, errno.EDQUOT)

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, order=True)
class Position:
    """Where a training is."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the next one."""


START = Position()


@dataclass(frozen=True)
class Checkpoint:
    """A training at a position."""

    position: Position
    seconds: float
    """How long it has trained, over all attempts."""
    state: Tree
    epochs: Sequence[Metrics]
    """Metrics of the epochs done."""


class Checkpoints:
    """The folder. `digest` names the training: what has another one is not its own and is not looked at."""

    def __init__(self, folder: Path, digest: str, interval_s: float) -> None:
        self._folder, self._digest, self._interval_s = folder, digest, interval_s
        self._log = _EpochLog(folder / EPOCHS)
        self._written = time.monotonic()
        self._cost_s = 0.0

    def load(self) -> Checkpoint | None:
        """The newest that is whole, to go on after it; call it once, before anything else.

        Those that are not whole are told of in the log of the run, and then removed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.part"):
            left.unlink()
        for path in reversed(self._paths()):
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                print(f"CHECKPOINT_CORRUPT: {path.name} cannot be used ({error}); going on from what is before it")
            path.unlink(missing_ok=True)
        self._log.begin()
        return None

    def remember(self, metrics: Metrics) -> None:
        """An epoch is done. It is on the disk with the next checkpoint."""
        self._log.append(metrics)

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether it is time for another one."""
        pause_s = self._interval_s
        if epoch_ended:
            pause_s = min(pause_s, max(EPOCH_PAUSE_S, PAUSE_PER_COST * self._cost_s))
        return time.monotonic() - self._written >= pause_s

    def write(self, position: Position, seconds: float, state: Tree) -> None:
        """Blocks until it is on the disk. Raises UnsavableError, and DISK_FULL: then the one before stays."""
        began = time.monotonic()
        parts = self._encoded(position, seconds, state)
        try:
            self._store(position, parts)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._prune(1)
            self._store_or_fail(position, parts)
        self._prune(KEPT)
        self._written = time.monotonic()
        self._cost_s = self._written - began

    def _encoded(self, position: Position, seconds: float, state: Tree) -> list[memoryview]:
        arrays: list[np.ndarray] = []
        tree = flatten(state, arrays)
        header = {
            "digest": self._digest,
            "epoch": position.epoch,
            "step": position.step,
            "seconds": seconds,
            "epochs_bytes": self._log.size,
            "epochs_sha256": self._log.sha256,
            "arrays": [{"dtype": array.dtype.name, "shape": list(array.shape)} for array in arrays],
            "state": tree,
        }
        text = json.dumps(header).encode()
        parts = [memoryview(HEAD.pack(MAGIC, len(text)) + text), *map(_bytes_of, arrays)]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return [*parts, memoryview(digest.digest())]

    def _store_or_fail(self, position: Position, parts: Sequence[memoryview]) -> None:
        try:
            self._store(position, parts)
        except OSError as error:
            if error.errno not in FULL:
                raise
            size = sum(part.nbytes for part in parts)
            message = f"a checkpoint of {size} bytes does not fit on the disk; free some space and train again"
            raise Failure("DISK_FULL", message, size_bytes=size) from error

    def _store(self, position: Position, parts: Sequence[memoryview]) -> None:
        path = self._folder / f"{position.epoch:010}-{position.step:010}.checkpoint"
        part_path = path.with_suffix(".part")
        try:
            self._log.sync()
            with part_path.open("wb", buffering=0) as file:
                for part in parts:
                    _write_all(file.fileno(), part)
                os.fsync(file.fileno())
            part_path.rename(path)
        except OSError:
            part_path.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)

    def _prune(self, kept: int) -> None:
        for path in self._paths()[:-kept]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._folder.glob("*.checkpoint"))

    def _read(self, path: Path) -> Checkpoint:
        header, body = _opened(path)
        if header["digest"] != self._digest:
            raise ValueError("it is of another training: of other code, settings, records or versions")
        epochs = self._log.go_on(header["epochs_bytes"], header["epochs_sha256"])
        state = unflatten(header["state"], list(_arrays(header["arrays"], body)))
        return Checkpoint(Position(header["epoch"], header["step"]), header["seconds"], state, epochs)


class _EpochLog:
    """The metrics of all epochs, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self.size = 0
        self._unwritten = b""

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def begin(self) -> None:
        self._path.unlink(missing_ok=True)

    def go_on(self, size: int, sha256: str) -> list[Metrics]:
        """Cuts the file to what belongs to a checkpoint, and reads that."""
        data = self._path.read_bytes()[:size] if size else b""
        digest = hashlib.sha256(data)
        if len(data) != size or digest.hexdigest() != sha256:
            raise ValueError("its epochs are not what they were")
        if self._path.exists():
            os.truncate(self._path, size)
        self._digest, self.size, self._unwritten = digest, size, b""
        return [json.loads(line) for line in data.splitlines()]

    def append(self, metrics: Metrics) -> None:
        line = json.dumps(metrics).encode() + b"\n"
        self._unwritten += line
        self._digest.update(line)
        self.size += len(line)

    def sync(self) -> None:
        if not self._unwritten:
            return
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # At its place and not at the end: an earlier try may have written a part of it.
            _write_all(file, memoryview(self._unwritten), self.size - len(self._unwritten))
            os.fsync(file)
        finally:
            os.close(file)
        self._unwritten = b""


def _opened(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Header and arrays of a file that is what was written. Raises ValueError when it is not."""
    data = np.fromfile(path, np.uint8)
    if len(data) < HEAD.size + DIGEST_BYTES:
        raise ValueError("it is cut")
    content = data[:-DIGEST_BYTES]
    if hashlib.sha256(content.data).digest() != data[-DIGEST_BYTES:].tobytes():
        raise ValueError("its bytes are not what was written")
    magic, size = HEAD.unpack(content[: HEAD.size].tobytes())
    if magic != MAGIC:
        raise ValueError("it is no checkpoint of this version")
    header: dict[str, Any] = json.loads(content[HEAD.size : HEAD.size + size].tobytes())
    return header, content[HEAD.size + size :]


def _arrays(layouts: Sequence[Mapping[str, Any]], body: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for layout in layouts:
        dtype = np.dtype(layout["dtype"])
        size = dtype.itemsize * int(np.prod(layout["shape"], dtype=np.int64))
        # Copied, because what lies between others is not aligned.
        yield body[start : start + size].copy().view(dtype).reshape(layout["shape"])
        start += size


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_all(file: int, data: memoryview, offset: int | None = None) -> None:
    while data:
        written = os.write(file, data) if offset is None else os.pwrite(file, data, offset)
        data = data[written:]
        offset = None if offset is None else offset + written


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
