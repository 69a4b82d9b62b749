"""The first records of a recorded stream, as a training would see them. Little is read, whatever the stream's size."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from headrace.errors import Cancelled, FailedPrecondition, FieldViolation, InvalidArgument
from headrace.v1 import error_pb2, model_pb2
from headrace.v1.stream_catalog_pb2 import GetStreamHeadResponse, StreamRecord
from headrace.v1.stream_pb2 import OffsetRange, Stream
from streams.codecs import Array, Codec, Decoded, Spec, codec_for
from streams.kafka import KafkaSettings, LogEnds, Message, log_ends, time_of, topic_ids, unknown_topic
from streams.reader import RangeReader

DEFAULT_COUNT = 10
MAX_COUNT = 100
# A person waits. Where a range begins with holes or with records of others, this is how far it is looked through.
READ_S = 5.0
ASK_TIMEOUT_S = 6.0
# All of an answer's numbers take eight bytes each, and a message has four MiB.
MAX_NUMBERS = 300_000
MAX_READ_BYTES = 16 * 1024 * 1024
# The first look is as long as the answer; where holes are in the way the next is longer.
_LONGER = 16
_LITTLE_PREFETCH = {"queued.max.messages.kbytes": "2048", "fetch.message.max.bytes": "262144"}

Place = tuple[str, int]


def head_count(given: int) -> int:
    """How many records a request asks for."""
    if 0 <= given <= MAX_COUNT:
        return given or DEFAULT_COUNT
    problem = f"must be 1 to {MAX_COUNT} (0: {DEFAULT_COUNT}), not {given}"
    fields = [FieldViolation("record_count", problem)]
    raise InvalidArgument(
        error_pb2.REASON_INVALID_FIELD, f"record_count {problem}", fields=fields, field="record_count"
    )


def read_head(kafka: KafkaSettings, stream: Stream, count: int) -> GetStreamHeadResponse:
    """At most `count` records, the same number from each partition as far as it has them.

    Of a stream that has lost its first records, those that are left. Raises InvalidArgument (INVALID_FORMAT), NotFound
    (UNKNOWN_TOPIC), FailedPrecondition (DATA_EXPIRED, TOPIC_RECREATED), Unavailable.
    """
    codec = codec_for(stream.input_format, stream.input_config)
    check_topics(kafka, stream, ASK_TIMEOUT_S)
    found = _first_records(kafka, _readable_ranges(kafka, stream), stream.stream_key, count)
    chosen = list(chain.from_iterable(zip_longest(*found.values())))
    messages = [message for message in chosen if message is not None][:count]
    return _response(codec, sorted(messages, key=_position))


def check_topics(kafka: KafkaSettings, stream: Stream, timeout_s: float) -> None:
    """Raise FailedPrecondition (TOPIC_RECREATED) where a topic is no longer the one that was announced."""
    found = topic_ids(kafka, stream.topic_ids, timeout_s)
    for topic, announced in sorted(stream.topic_ids.items()):
        if found.get(topic, announced) != announced:
            raise FailedPrecondition(
                error_pb2.REASON_TOPIC_RECREATED,
                f"the topic {topic!r} was deleted and made anew since the stream {stream.id} was announced: "
                "its offsets are other records now; send the data again",
                resource="stream",
                id=stream.id,
                topic=topic,
                announced=announced,
                found=found[topic],
            )


def _readable_ranges(kafka: KafkaSettings, stream: Stream) -> list[OffsetRange]:
    """What is left and written of the stream; of an open-ended one, what its topics hold."""
    ends = {topic: log_ends(kafka, topic, ASK_TIMEOUT_S) for topic in _labelled_topics(stream)}
    announced = [one for one in stream.ranges if one.start < one.end]
    for topic in stream.open_topics:
        whole = ends[topic].items()
        announced += [OffsetRange(topic=topic, partition=n, start=one.low, end=one.stable) for n, one in whole]
    readable = [_cut(one, _ends_of(one, ends[one.topic])) for one in announced]
    if announced and all(_ends_of(one, ends[one.topic]).low >= one.end > 0 for one in announced):
        raise _expired(stream)
    return [one for one in readable if one.start < one.end]


def _labelled_topics(stream: Stream) -> set[str]:
    return {one.topic for one in stream.ranges} | set(stream.open_topics)


def _ends_of(one: OffsetRange, ends: dict[int, LogEnds]) -> LogEnds:
    if one.partition not in ends:
        raise unknown_topic(one.topic, one.partition)
    return ends[one.partition]


def _cut(one: OffsetRange, ends: LogEnds) -> OffsetRange:
    start, end = max(one.start, ends.low), min(one.end, ends.stable)
    return OffsetRange(topic=one.topic, partition=one.partition, start=start, end=end)


def _first_records(
    kafka: KafkaSettings, ranges: Sequence[OffsetRange], stream_key: str, count: int
) -> dict[Place, list[Message]]:
    """Up to `count` of each partition; fewer when the time or the bytes are used up."""
    modest = replace(kafka, options={**kafka.options, **_LITTLE_PREFETCH})
    found: dict[Place, list[Message]] = defaultdict(list)
    left, length, bytes_left = list(ranges), count, MAX_READ_BYTES
    with _time_is_up(READ_S) as stop, suppress(Cancelled):
        while left and bytes_left > 0:
            look, left = _split(left, length)
            length *= _LONGER
            with RangeReader(modest, look, stream_key=stream_key, wait_s=READ_S, stop=stop) as reader:
                for message in chain.from_iterable(reader.batches()):
                    records = found[_place(message)]
                    if len(records) < count and bytes_left > 0:
                        records.append(message)
                        bytes_left -= len(message)
            left = [one for one in left if len(found[one.topic, one.partition]) < count]
    return {place: found[place] for place in sorted(found)}


@contextmanager
def _time_is_up(after_s: float) -> Iterator[threading.Event]:
    """An event that is set after a while."""
    stop = threading.Event()
    timer = threading.Timer(after_s, stop.set)
    timer.name = "stream-head-deadline"
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


def _split(ranges: Sequence[OffsetRange], length: int) -> tuple[list[OffsetRange], list[OffsetRange]]:
    """The first `length` offsets of the first range of each partition, and the rest."""
    look: dict[Place, OffsetRange] = {}
    rest = []
    for one in ranges:
        place = (one.topic, one.partition)
        if place in look:
            rest.append(one)
            continue
        middle = min(one.start + length, one.end)
        look[place] = OffsetRange(topic=one.topic, partition=one.partition, start=one.start, end=middle)
        if middle < one.end:
            rest.append(OffsetRange(topic=one.topic, partition=one.partition, start=middle, end=one.end))
    return list(look.values()), rest


def _response(codec: Codec, messages: Sequence[Message]) -> GetStreamHeadResponse:
    records = [_record(message) for message in messages]
    _decode(records, codec.decode_samples([message.value() for message in messages]), "sample")
    if codec.label_spec is not None:
        _decode(records, codec.decode_labels([message.key() for message in messages]), "label")
    return GetStreamHeadResponse(
        records=_fitting(records),
        sample=_tensor("", codec.sample_spec),
        label=None if codec.label_spec is None else _tensor("", codec.label_spec),
        fields=[_tensor(field.name, field.spec) for field in codec.fields],
    )


def _record(message: Message) -> StreamRecord:
    topic, partition, offset = _position(message)
    return StreamRecord(topic=topic, partition=partition, offset=offset, time=time_of(message))


def _decode(records: Sequence[StreamRecord], decoded: Decoded, name: str) -> None:
    """Fill in the field `name` (sample, label) of the good records, and of the others why they are not."""
    for index, row in zip(decoded.good.tolist(), decoded.rows, strict=True):
        _fill(records[index], name, np.asarray(row))
    for bad in decoded.bad:
        _add_error(records[bad.index], bad.reason)


def _fill(record: StreamRecord, name: str, row: Array) -> None:
    if row.dtype.kind in "SU":
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in row.ravel().tolist()]
        setattr(record, f"{name}_text", " ".join(texts))
    elif row.size > MAX_NUMBERS:
        _add_error(record, f"its {name} has {row.size} numbers, more than are shown here ({MAX_NUMBERS})")
    else:
        getattr(record, name).extend(_numbers(row).tolist())


def _numbers(row: Array) -> Array:
    """In row-major order; a complex number as two."""
    flat = np.ascontiguousarray(row).ravel()
    parts = flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
    return parts.astype(np.float64)


def _add_error(record: StreamRecord, reason: str) -> None:
    record.decode_error = "; ".join(filter(None, [record.decode_error, reason]))


def _fitting(records: Sequence[StreamRecord]) -> list[StreamRecord]:
    """As many as an answer has room for, and one in any case."""
    shown: list[StreamRecord] = []
    numbers = 0
    for record in records:
        numbers += len(record.sample) + len(record.label)
        if shown and numbers > MAX_NUMBERS:
            break
        shown.append(record)
    return shown


def _tensor(name: str, spec: Spec) -> model_pb2.TensorSpec:
    dtype = "string" if spec.dtype.kind in "SU" else spec.dtype.name
    return model_pb2.TensorSpec(name=name, dtype=dtype, shape=spec.shape)


def _place(message: Message) -> Place:
    topic, partition, _ = _position(message)
    return topic, partition


def _position(message: Message) -> tuple[str, int, int]:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def _expired(stream: Stream) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_DATA_EXPIRED,
        f"Kafka has deleted every record of the stream {stream.id}; send the data again",
        resource="stream",
        id=stream.id,
    )
