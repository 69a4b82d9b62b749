"""Files of records: CSV, JSON lines, NPZ, NPY and Avro container files, read in batches of columns."""

from cli.files.opening import open_file
from cli.files.record_file import UNNAMED, Array, Columns, Layout, RecordFile

__all__ = ["UNNAMED", "Array", "Columns", "Layout", "RecordFile", "open_file"]
