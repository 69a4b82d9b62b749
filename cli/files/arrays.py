"""NumPy's files: one array (NPY), or several by name (NPZ)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cli.files.record_file import ROWS_AT_ONCE, UNNAMED, Array, Columns, bad_file

# The names that people give the two arrays of an NPZ file.
SAMPLE_NAMES = ("x", "X", "data", "samples", "images", "x_train", "arr_0")
LABEL_NAMES = ("y", "Y", "target", "labels", "label", "y_train", "arr_1")


class NpyFile:
    """The rows of one array, which stays on the disk."""

    typed = True
    has_fields = False
    kind = "array"
    names: tuple[str, ...] = (UNNAMED,)

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise bad_file(f"{path} is no NPY file of a plain array: {error}") from error
        if isinstance(self._array, np.lib.npyio.NpzFile):
            raise bad_file(f"{path} holds several arrays; give it the suffix .npz")

    def place(self, number: int) -> str:
        return f"row {number}"

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.names, ()

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        return _batches({name: _plain(self.path, name, self._array) for name in names})


class NpzFile:
    """Arrays of as many rows; those that are asked for are loaded."""

    typed = True
    has_fields = False
    kind = "array"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: dict[str, Array] = {}
        with self._open() as file:
            self.names = tuple(file.files)

    def place(self, number: int) -> str:
        return f"row {number}"

    def suggested(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        samples = [name for name in SAMPLE_NAMES if name in self.names]
        labels = [name for name in LABEL_NAMES if name in self.names]
        return tuple(samples[:1]), tuple(labels[:1])

    def read(self, names: Sequence[str]) -> Iterator[Columns]:
        arrays = {name: self._array(name) for name in names}
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} in {name!r}" for name, size in sizes.items())
            raise bad_file(f"{self.path}: arrays of different lengths: {told}; there must be as many of all")
        return _batches(arrays)

    def _array(self, name: str) -> Array:
        if name not in self._loaded:
            with self._open() as file:
                try:
                    self._loaded[name] = _plain(self.path, name, file[name])
                except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
                    raise bad_file(f"{self.path}: {name!r} is no plain array: {error}") from error
        return self._loaded[name]

    def _open(self) -> np.lib.npyio.NpzFile:
        try:
            file = np.load(self.path, allow_pickle=False)
        except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise bad_file(f"{self.path} is no NPZ file of plain arrays: {error}") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise bad_file(f"{self.path} holds one array; give it the suffix .npy")
        return file


def _plain(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind not in "biuf" or array.ndim == 0 or not array.size:
        of = f", array {name!r}" if name else ""
        raise bad_file(f"{path}{of}: {array.dtype} with the shape {array.shape}; rows of numbers are needed")
    return array


def _batches(arrays: Columns) -> Iterator[Columns]:
    count = min(map(len, arrays.values()))
    for start in range(0, count, ROWS_AT_ONCE):
        yield {name: _native(array[start : start + ROWS_AT_ONCE]) for name, array in arrays.items()}


def _native(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
