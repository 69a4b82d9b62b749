"""Which reader a file needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cli.files.arrays import NpyFile, NpzFile
from cli.files.avro import AvroFile
from cli.files.json_lines import JsonLinesFile
from cli.files.record_file import COMMAS, Layout, RecordFile, bad_file
from cli.files.rows_of_text import CsvFile

KINDS = "CSV (numbers, with a header), JSON lines, NPZ, NPY or Avro"
_BY_SUFFIX: Mapping[str, Callable[[Path], RecordFile]] = {
    ".csv": CsvFile, ".jsonl": JsonLinesFile, ".ndjson": JsonLinesFile,
    ".npz": NpzFile, ".npy": NpyFile, ".avro": AvroFile,
}  # fmt: skip


def open_file(path: Path, layout: Layout = COMMAS) -> RecordFile:
    """The records of a file, by the kind that its suffix names.

    layout: of a CSV file. Raises InvalidArgument where it is given to another kind, there is no such file, or its
    beginning is not of that kind.
    """
    if not path.exists():
        raise bad_file(f"there is no file {path}")
    if path.is_dir():
        raise bad_file(f"{path} is a folder; give a file: {KINDS}")
    kind = _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise bad_file(f"{path}: files of this kind cannot be read; give one of {', '.join(_BY_SUFFIX)}")
    if kind is CsvFile:
        return CsvFile(path, layout)
    if layout != COMMAS:
        raise bad_file(f"{path}: --delimiter and --no-header are for CSV files")
    return kind(path)
