"""Files of samples and labels, as arrays."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidArgument, not_yet
from headrace.v1 import error_pb2

Array = npt.NDArray[np.generic]

# The names that people give the two arrays of an NPZ file.
SAMPLE_NAMES = ("x", "X", "data", "samples", "images", "x_train", "arr_0")
LABEL_NAMES = ("y", "Y", "target", "labels", "label", "y_train", "arr_1")


@dataclass(frozen=True)
class Records:
    """samples: (n, …); labels: (n, …) or None."""

    samples: Array
    labels: Array | None

    def __len__(self) -> int:
        return len(self.samples)


def read_records(path: Path, *, label: str = "", samples: str = "") -> Records:
    """The records of a CSV file with a header, or of an NPZ file.

    label: the column (CSV) or array (NPZ) with the labels. samples: the array with the samples (NPZ).
    Raises InvalidArgument naming line and column of what is no number, Unimplemented for other files.
    """
    if not path.exists():
        raise _invalid(f"there is no file {path}")
    if path.is_dir():
        raise _invalid(f"{path} is a folder; give a CSV or NPZ file")
    match path.suffix.lower():
        case ".csv":
            return _read_csv(path, label)
        case ".npz":
            return _read_npz(path, samples, label)
        case ".npy":
            return Records(_load(path), None)
        case other:
            raise not_yet(f"sending {other or 'such'} files", "send a CSV file (numbers, with a header) or an NPZ file")


def _read_csv(path: Path, label: str) -> Records:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if label and label not in header:
            raise _invalid(f"{path} has no column {label!r}; it has: {', '.join(header) or 'no header at all'}")
        rows = [_numbers(path, header, row, reader.line_num) for row in reader if row]
    if not rows:
        raise _invalid(f"{path} has no rows under its header")
    values = np.array(rows, dtype=np.float64)
    if not label:
        return Records(values.astype(np.float32), None)
    column = header.index(label)
    return Records(np.delete(values, column, axis=1).astype(np.float32), _as_labels(values[:, column]))


def _numbers(path: Path, header: Sequence[str], row: Sequence[str], line: int) -> list[float]:
    if len(row) != len(header):
        raise _invalid(f"{path}, line {line}: {len(row)} values under a header of {len(header)} columns")
    numbers = []
    for name, text in zip(header, row, strict=True):
        try:
            numbers.append(float(text))
        except ValueError as error:
            raise _invalid(f"{path}, line {line}, column {name!r}: {text!r} is no number") from error
    return numbers


def _as_labels(values: npt.NDArray[np.float64]) -> Array:
    """Whole numbers are classes: int32. Anything else stays a number: float32."""
    whole = np.isfinite(values).all() and (values == np.round(values)).all() and np.abs(values).max() < 2**31
    return values.astype(np.int32 if whole else np.float32)


def _read_npz(path: Path, samples: str, label: str) -> Records:
    arrays = _load_all(path)
    chosen = _choose(path, arrays, samples, SAMPLE_NAMES, "--samples")
    if chosen is None:
        raise _invalid(f"{path} has the arrays {', '.join(arrays)}; say with --samples which are the samples")
    labels = _choose(path, arrays, label, LABEL_NAMES, "--label")
    if labels is not None and len(labels) != len(chosen):
        raise _invalid(f"{path} has {len(chosen)} samples and {len(labels)} labels; there must be as many of both")
    return Records(_plain(path, chosen), _plain(path, labels) if labels is not None else None)


def _choose(path: Path, arrays: dict[str, Array], wanted: str, names: Sequence[str], option: str) -> Array | None:
    if wanted and wanted not in arrays:
        raise _invalid(f"{path} has no array {wanted!r}; it has: {', '.join(arrays)} ({option})")
    found = [wanted] if wanted else [name for name in names if name in arrays]
    return arrays[found[0]] if found else None


def _load_all(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise _invalid(f"{path} is no NPZ file of plain arrays: {error}") from error


def _load(path: Path) -> Array:
    try:
        loaded: Array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _invalid(f"{path} is no NPY file of a plain array: {error}") from error
    return _plain(path, loaded)


def _plain(path: Path, array: Array) -> Array:
    """Numbers in the byte order of the wire (little-endian)."""
    if array.dtype.kind not in "biuf" or array.ndim == 0 or not len(array):
        raise _invalid(f"{path}: an array of {array.dtype} with the shape {array.shape}; rows of numbers are needed")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_INVALID_FIELD, message)
