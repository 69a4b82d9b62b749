"""A few records from all over a stream: what a model is calibrated with that learned from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from headrace.v1.deployment_pb2 import COUNT_MISMATCH_ACCEPT
from headrace.v1.model_pb2 import Signature
from headrace.v1.stream_pb2 import OffsetRange, Stream
from streams.kafka import KafkaSettings, log_ends
from streams.offsets import count_offsets
from streams.spool import Spool, spool_stream

# More records hardly change what a converter learns of them, which is how large numbers become.
ROWS = 256
# Records that follow each other are often alike: many short slices.
SLICE_ROWS = 8
SAMPLES_BYTES = 128 * 1024 * 1024
KAFKA_WAIT_S = 15.0


def read_samples(stream: Stream, signature: Signature, kafka: KafkaSettings, folder: Path) -> Spool:
    """Reads at most about ROWS records of the stream again, into `folder`.

    Raises DATA_EXPIRED when Kafka has deleted all of them, TOPIC_RECREATED, UNKNOWN_TOPIC, KAFKA_UNAVAILABLE.
    """
    some = Stream()
    some.CopyFrom(stream)
    del some.ranges[:]
    some.ranges.extend(slices(what_is_left(stream.ranges, kafka) or stream.ranges, rows_that_fit(signature)))
    some.record_count = 0
    # Records that the training left out are left out here.
    return spool_stream(
        some,
        kafka,
        folder,
        decode_error_limit=1.0,
        count_mismatch=COUNT_MISMATCH_ACCEPT,
        limit_bytes=2 * SAMPLES_BYTES,
        wait_s=KAFKA_WAIT_S,
    )


def what_is_left(ranges: Sequence[OffsetRange], kafka: KafkaSettings) -> list[OffsetRange]:
    """The ranges without what retention has deleted of them."""
    ends = {topic: log_ends(kafka, topic, KAFKA_WAIT_S) for topic in {one.topic for one in ranges}}
    left = []
    for one in ranges:
        found = ends[one.topic].get(one.partition)
        start = one.start if found is None else max(one.start, found.low)
        if start < one.end:
            left.append(OffsetRange(topic=one.topic, partition=one.partition, start=start, end=one.end))
    return left


def rows_that_fit(signature: Signature) -> int:
    """ROWS, or fewer of large samples."""
    # Eight bytes an element: a record may be wider than the model's own type.
    row_bytes = 8 * sum(math.prod(max(1, length) for length in spec.shape[1:]) for spec in signature.inputs)
    return max(1, min(ROWS, SAMPLES_BYTES // max(1, row_bytes)))


def slices(ranges: Sequence[OffsetRange], rows: int) -> list[OffsetRange]:
    """About `rows` offsets in slices evenly over the ranges, one of each range at least; all of few."""
    total = count_offsets(ranges)
    if total <= rows:
        return list(ranges)
    return [one for whole in ranges for one in _slices_of(whole, rows * (whole.end - whole.start) / total)]


def _slices_of(whole: OffsetRange, rows: float) -> list[OffsetRange]:
    count = math.ceil(rows / SLICE_ROWS)
    step = (whole.end - whole.start) / max(1, count)
    length = max(1, min(SLICE_ROWS, math.floor(step), math.ceil(rows)))
    starts = [whole.start + math.floor(step * number) for number in range(count)]
    return [OffsetRange(topic=whole.topic, partition=whole.partition, start=at, end=at + length) for at in starts]
