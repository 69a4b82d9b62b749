"""The records of a stream as files that the worker maps: read from Kafka once, split by row numbers."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.deployment_pb2 import TrainingSettings
from headrace.v1.result_pb2 import SplitSizes
from headrace.v1.stream_pb2 import Stream
from streams.kafka import KafkaSettings
from streams.reader import Wait
from streams.split import SplitRows, split_rows
from streams.spool import Spool, open_spool, spool_stream


@dataclass(frozen=True)
class Data:
    """Rows of a stream on disk."""

    spool: Spool
    rows: dict[str, Path]
    """`training`, `validation`, `test`: the row numbers of each (int64, .npy); only those that have any."""
    sizes: SplitSizes
    reading_s: float


def read_data(
    stream: Stream,
    settings: TrainingSettings,
    kafka: KafkaSettings,
    folder: Path,
    *,
    on_progress: Callable[[int, int, float], None],
    on_wait: Callable[[Wait], None],
    stop: threading.Event,
    wait_s: float,
) -> Data:
    """Reads the stream into `folder`, unless an earlier attempt has, and splits its rows.

    `on_progress` is called with offsets read, offsets in all, rows per second; `on_wait` while records are not yet
    written. Raises what `spool_stream` raises, and
    EMPTY_STREAM when no row is left to train on.
    """
    spool, reading_s = _spool(
        stream, settings, kafka, folder, on_progress=on_progress, on_wait=on_wait, stop=stop, wait_s=wait_s
    )
    split = split_rows(
        spool,
        validation_rate=stream.validation_rate,
        test_rate=stream.test_rate,
        seed=settings.seed,
        split=settings.split,
    )
    _check_any(split, stream)
    sizes = SplitSizes(training=len(split.training), validation=len(split.validation), test=len(split.test))
    return Data(spool, _write_rows(split, folder / "rows"), sizes, reading_s)


def _spool(
    stream: Stream,
    settings: TrainingSettings,
    kafka: KafkaSettings,
    folder: Path,
    **reading: Any,
) -> tuple[Spool, float]:
    """The records and the seconds that it took to read them, in this attempt or an earlier one."""
    records, seconds = folder / "records", folder / "reading_s"
    left = open_spool(records, stream)
    if left is not None and seconds.exists():
        return left, float(seconds.read_text() or 0)
    started = time.monotonic()
    spool = spool_stream(
        stream,
        kafka,
        records,
        decode_error_limit=settings.decode_error_limit,
        count_mismatch=settings.count_mismatch,
        **reading,
    )
    reading_s = time.monotonic() - started
    seconds.write_text(f"{reading_s:.6f}")
    return spool, reading_s


def _check_any(split: SplitRows, stream: Stream) -> None:
    if len(split.training):
        return
    raise InvalidArgument(
        error_pb2.REASON_EMPTY_STREAM,
        f"no record is left to train on: the rates {stream.validation_rate:g} for validation and {stream.test_rate:g} "
        f"for the test take all {len(split.validation) + len(split.test)}",
        validation=len(split.validation),
        test=len(split.test),
    )


def _write_rows(split: SplitRows, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, rows in (("training", split.training), ("validation", split.validation), ("test", split.test)):
        if len(rows):
            paths[name] = folder / f"{name}.npy"
            np.save(paths[name], rows)
    return paths
