"""The records of a stream as files that the worker maps: read from Kafka once, split by row numbers."""

import threading
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
from streams.offsets import format_ranges
from streams.preflight import Wait
from streams.split import SplitRows, split_rows
from streams.spool import Spool, spool_stream
from trainer.sole_reader import sole_reader

# How many a message names.
SHOWN_RANGES = 3


@dataclass(frozen=True)
class Data:
    """Rows of a stream on disk."""

    spool: Spool
    rows: dict[str, Path]
    """`training`, `validation`, `test`: the row numbers of each (int64, .npy); only those that have any."""
    sizes: SplitSizes


def read_data(
    stream: Stream,
    settings: TrainingSettings,
    kafka: KafkaSettings,
    folder: Path,
    shared: Path | None,
    *,
    stop: threading.Event,
    on_wait: Callable[[Wait], None],
    **reading: Any,
) -> Data:
    """Reads the stream into `folder`, unless an earlier attempt has, and splits its rows.

    shared: the folder of all trainings on this stream; one of them reads it, and the others wait for that.
    reading: passed on to `spool_stream`. Raises what that raises, and EMPTY_STREAM when no row is left to train on.
    """
    with sole_reader(shared or folder, stop, on_wait):
        spool = spool_stream(
            stream,
            kafka,
            (shared or folder) / "records",
            decode_error_limit=settings.decode_error_limit,
            count_mismatch=settings.count_mismatch,
            stop=stop,
            on_wait=on_wait,
            **reading,
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
    return Data(spool, _write_rows(split, folder / "rows"), sizes)


def _check_any(split: SplitRows, stream: Stream) -> None:
    if len(split.training):
        return
    others = len(split.validation) + len(split.test)
    why = (
        f"the rates {stream.validation_rate:g} for validation and {stream.test_rate:g} for the test take all {others}"
        if others
        else f"the stream has none in {_shown(stream)}; send some, and announce them"
    )
    raise InvalidArgument(
        error_pb2.REASON_EMPTY_STREAM,
        f"no record is left to train on: {why}",
        validation=len(split.validation),
        test=len(split.test),
    )


def _shown(stream: Stream) -> str:
    rest = len(stream.ranges) - SHOWN_RANGES
    return format_ranges(stream.ranges[:SHOWN_RANGES]) + (f" and {rest} more" if rest > 0 else "")


def _write_rows(split: SplitRows, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, rows in (("training", split.training), ("validation", split.validation), ("test", split.test)):
        if len(rows):
            paths[name] = folder / f"{name}.npy"
            np.save(paths[name], rows)
    return paths
