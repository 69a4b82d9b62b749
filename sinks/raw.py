"""Sends samples and labels as the bytes of numpy arrays, and announces them as one stream."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, StreamAnnouncement
from streams.codecs import Array, Spec
from streams.codecs.raw import RawCodec, config_of
from streams.control import CONTROL_TOPIC, STREAM_HEADER, check, deployment_key, encode
from streams.kafka import KafkaSettings, ensure_topics, partitions_of
from streams.writer import StreamProducer

# Rows that are copied to bytes at once: a whole array would be in memory twice.
_ROWS_AT_ONCE = 4096


class RawSink:
    """A stream of samples and labels for the training `deployment_id`, which need not exist yet.

        with RawSink("localhost:9092", "digits", deployment_id=1) as sink:
            sink.send(image, label)              # one record
            sink.send_batch(images, labels)      # arrays of them

    When the `with` block ends, or at `close`, the stream is announced: which offsets it has, once Kafka has confirmed
    every record. When the block ends by an exception nothing is announced, and what was sent belongs to no training.

    topic: made with `partitions` (1) partitions if it does not exist. Records go to its partitions in turn.
    validation_rate, test_rate: the parts of the records that are not trained on, in [0, 1).
    data_type, label_type: numpy's names; that of the first sample and label unless given.
    data_reshape, label_reshape: a shape, as numbers separated by blanks; that of the first ones unless given.
    options: librdkafka's properties (security, for instance).

    Samples and labels may be anything that numpy makes arrays of. A label may be left out, but then all of them.
    """

    def __init__(  # noqa: PLR0913
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        description: str = "",
        validation_rate: float = 0.0,
        test_rate: float = 0.0,
        control_topic: str = CONTROL_TOPIC,
        data_type: str | None = None,
        label_type: str | None = None,
        data_reshape: str | None = None,
        label_reshape: str | None = None,
        partitions: int | None = None,
        restrictions: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.announcement = StreamAnnouncement(
            message_id=str(uuid.uuid4()),
            stream_key=uuid.uuid4().hex,
            deployment_id=deployment_id,
            input_format=DATA_FORMAT_RAW,
            validation_rate=validation_rate,
            test_rate=test_rate,
            description=description,
            restrictions=restrictions,
        )
        """What is announced; its ranges are complete when the sink is closed."""
        self._check_announcement(topic)
        self._kafka = KafkaSettings(bootstrap_servers, options or {})
        self._topic = topic
        self._control_topic = control_topic
        self._partition_count = partitions or 1
        self._samples = _Column("sample", data_type, data_reshape)
        self._labels = _Column("label", label_type, label_reshape)
        self._producer: StreamProducer | None = None
        self._open = ExitStack()
        self._partitions: Iterator[int] = iter(())
        self._closed = False

    def __enter__(self) -> RawSink:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    @property
    def sent(self) -> int:
        """Records given to `send` and `send_batch`."""
        return self._producer.sent if self._producer is not None else self.announcement.record_count

    def send(self, sample: ArrayLike, label: ArrayLike | None = None) -> None:
        """Send one record; waits while too many are unconfirmed.

        Raises InvalidArgument (SCHEMA_MISMATCH) for another shape or type than the first, InvalidArgument when it is
        too large, Unavailable (NOT_DELIVERED) when Kafka has refused an earlier one.
        """
        labels = None if label is None else np.asarray(label)[np.newaxis]
        self.send_batch(np.asarray(sample)[np.newaxis], labels)

    def send_batch(self, samples: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Send the rows of `samples` `(n, ...)` with those of `labels` `(n, ...)`. Raises what `send` raises."""
        samples = np.asarray(samples)
        if labels is not None:
            labels = np.asarray(labels)
            if len(labels) != len(samples):
                raise InvalidArgument(
                    error_pb2.REASON_SCHEMA_MISMATCH, f"there are {len(samples)} samples and {len(labels)} labels"
                )
        producer = self._start()
        for start in range(0, len(samples), _ROWS_AT_ONCE):
            values = self._samples.rows(samples[start : start + _ROWS_AT_ONCE])
            keys = self._labels.rows(None if labels is None else labels[start : start + _ROWS_AT_ONCE])
            # Keys and partitions have no end; values go first, so that no partition is taken for nothing.
            producer.send_all(zip(values, keys, self._partitions, strict=False))

    def close(self) -> None:
        """Wait until Kafka has confirmed every record, then announce the stream. A second call does nothing.

        Raises Unavailable (NOT_DELIVERED) with the number of records that are not confirmed, FailedPrecondition
        (EMPTY_STREAM) when nothing was sent; then nothing is announced.
        """
        if self._closed:
            return
        producer, self._closed = self._producer, True
        with self._open:
            if producer is None or not producer.sent:
                raise FailedPrecondition(error_pb2.REASON_EMPTY_STREAM, "nothing was sent, so nothing is announced")
            producer.flush()
            self._complete(producer)
            headers, value = encode(self.announcement)
            key = deployment_key(self.announcement.deployment_id)
            producer.announce(self._control_topic, key, value, headers)
            self._producer = None

    def abandon(self) -> None:
        """End without an announcement. Records that were sent stay in the log and belong to no stream."""
        self._closed = True
        self._producer = None
        self._open.close()

    def _start(self) -> StreamProducer:
        """Connect at the first use."""
        if self._producer is None:
            if self._closed:
                raise FailedPrecondition(error_pb2.REASON_WRONG_STATE, "the sink is closed; make another one")
            ensure_topics(self._kafka, {self._topic: self._partition_count, self._control_topic: 1})
            self._partitions = itertools.cycle(partitions_of(self._kafka, self._topic))
            header = (STREAM_HEADER, self.announcement.stream_key)
            self._producer = self._open.enter_context(StreamProducer(self._kafka, self._topic, headers=[header]))
        return self._producer

    def _complete(self, producer: StreamProducer) -> None:
        self.announcement.ranges.extend(producer.ranges())
        self.announcement.record_count = producer.sent
        assert self._samples.spec is not None, "something was sent"
        self.announcement.input_config.update(config_of(self._samples.spec, self._labels.spec))

    def _check_announcement(self, topic: str) -> None:
        """Before anything is sent: what would be wrong with the announcement at the end."""
        draft = StreamAnnouncement()
        draft.CopyFrom(self.announcement)
        draft.ranges.add(topic=topic)
        check(draft)


class _Column:
    """The samples or the labels: all of one type and shape, those that were asked for or those of the first row."""

    def __init__(self, name: str, type_name: str | None, reshape: str | None) -> None:
        self._name = name
        self._type_name = type_name
        self._reshape = reshape
        self.spec: Spec | None = None
        """None before the first row, and for labels that are left out."""
        self._started = False
        if type_name is not None or reshape is not None:
            _parse(type_name or "uint8", reshape or "")  # a wrong name is told at once

    def rows(self, array: Array | None) -> Iterator[bytes | None]:
        """The bytes of each row; None without end where labels are left out."""
        if not self._started:
            self.spec = None if array is None else self._spec_of(array)
            self._started = True
        if array is None or self.spec is None:
            if array is not None or self.spec is not None:
                raise InvalidArgument(error_pb2.REASON_SCHEMA_MISMATCH, "some records have labels and some have none")
            return itertools.repeat(None)
        return self._bytes(array, self.spec)

    def _bytes(self, array: Array, spec: Spec) -> Iterator[bytes]:
        self._check(array, spec)
        data = np.ascontiguousarray(array, spec.dtype.newbyteorder("<")).tobytes()
        size = spec.row_bytes
        return (data[start : start + size] for start in range(0, len(data), size))

    def _check(self, array: Array, spec: Spec) -> None:
        row = array.shape[1:]
        if math.prod(row) == math.prod(spec.shape) and _fits(array, spec.dtype):
            return
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"a {self._name} is {array.dtype.name} {row}, where this stream has {spec}",
            given=f"{array.dtype.name} {row}",
            expected=spec,
        )

    def _spec_of(self, array: Array) -> Spec:
        """What was asked for; the rest as the first row has it."""
        type_name = self._type_name or array.dtype.name
        reshape = self._reshape if self._reshape is not None else " ".join(map(str, array.shape[1:]))
        spec = _parse(type_name, reshape)
        shape = array.shape[1:] if self._reshape is None else _filled(spec.shape, array.shape[1:])
        return Spec(spec.dtype, shape)


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether nothing but precision is lost: Python's own whole numbers are int64, whatever they are meant for."""
    if np.can_cast(array.dtype, dtype, "same_kind"):
        return True
    if array.dtype.kind not in "iu" or dtype.kind not in "iu" or not array.size:
        return False
    limits = np.iinfo(dtype)
    return bool(limits.min <= array.min() and array.max() <= limits.max)


def _parse(type_name: str, reshape: str) -> Spec:
    """Of the names that RAW knows. Raises InvalidArgument (INVALID_FORMAT) with the known ones."""
    return RawCodec.from_config({"data_type": type_name, "data_reshape": reshape}).sample_spec


def _filled(shape: tuple[int, ...], row: tuple[int, ...]) -> tuple[int, ...]:
    """The open length of the shape, from the size of a row."""
    return tuple(math.prod(row) // -math.prod(shape) if length == -1 else length for length in shape)
