"""Sends samples and labels as the bytes of numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Unpack

import numpy as np

from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, DataFormat
from sinks.encoder import texts_of
from sinks.rows import mismatch
from sinks.stream import SinkSettings, StreamSink
from streams.codecs import Array, Rows, Spec
from streams.codecs.fitting import fits, misfit
from streams.codecs.raw import STRING_BYTES, RawCodec, config_of, spec_of_config


class RawSink(StreamSink):
    """A stream of samples and labels for the training `deployment_id`, which need not exist yet, as plain arrays.

        with RawSink("localhost:9092", "digits", deployment_id=1) as sink:
            sink.send(image, label)              # one record
            sink.send_batch(images, labels)      # arrays of them

    When the `with` block ends, or at `close`, the stream is announced: which offsets it has, once Kafka has confirmed
    every record. When the block ends by an exception nothing is announced, and what was sent belongs to no training.

    Samples and labels may be anything that numpy makes arrays of. A label may be left out, but then all of them;
    samples without a label beside labelled ones are `send_unsupervised`. A sample of several fields takes another sink.

    topic: made with `partitions` (1) partitions if it does not exist. Records go to its partitions in turn.
    data_type, label_type: numpy's names; that of the first sample and label unless given.
    data_reshape, label_reshape: a shape, as numbers separated by blanks; that of the first ones unless given.
    settings: those of `SinkSettings`: `validation_rate`, `test_rate`, `description`, `transactional`, `stream_id`,
        `on_progress`, `options` (librdkafka's properties: security, for instance), …

    What is promised, whatever happens between:

    - Memory is bounded: `send` waits while Kafka is behind.
    - The announced ranges hold the records of this sink, each once, and no others, also where another producer
      writes to the same partitions at the same time.
    - A process that is killed has announced nothing, or everything. Run it again with the same `stream_id`: what was
      left over belongs to no stream, and a run that had come to its end already is recorded once.
    - `transactional=True`: readers (read_committed) see nothing before the announcement, and then all, together. What
      takes longer than a third of `transaction_s` is committed in parts, the announcement with the last. A process that
      is killed leaves a transaction open, and readers wait at it for `transaction_s`, or until a sink with the same
      `stream_id` starts.

    Raises InvalidArgument for wrong settings at once, before anything is sent; see `send` and `close` for the rest.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        data_type: str | None = None,
        label_type: str | None = None,
        data_reshape: str | None = None,
        label_reshape: str | None = None,
        **settings: Unpack[SinkSettings],
    ) -> None:
        given = {"data_type": data_type, "data_reshape": data_reshape}
        given |= {"label_type": label_type, "label_reshape": label_reshape}
        encoder = RawEncoder({name: value for name, value in given.items() if value is not None})
        super().__init__(bootstrap_servers, topic, deployment_id, encoder, **settings)


class RawEncoder:
    """The bytes of rows of one type and shape: those of the configuration, what it leaves open as the first ones."""

    def __init__(self, config: Mapping[str, str]) -> None:
        config = texts_of(config)
        self._samples = _Column("sample", "data", config.get("data_type"), config.get("data_reshape"))
        self._labels = _Column("label", "label", config.get("label_type"), config.get("label_reshape"))

    @property
    def data_format(self) -> DataFormat:
        return DATA_FORMAT_RAW

    @property
    def config(self) -> dict[str, str]:
        assert self._samples.spec is not None, "something was sent"
        return config_of(self._samples.spec, self._labels.spec)

    def samples(self, rows: Rows, labels: Rows | None) -> Iterable[bytes]:
        return self._samples.encode(rows)

    def labels(self, rows: Rows) -> Iterable[bytes]:
        return self._labels.encode(rows)

    @property
    def decided(self) -> tuple[Spec | None, Spec | None]:
        return self._samples.spec, self._labels.spec

    def undo(self, decided: tuple[Spec | None, Spec | None]) -> None:
        self._samples.spec, self._labels.spec = decided


class _Column:
    """The samples or the labels: all of one type and shape, those that were asked for or those of the first row."""

    def __init__(self, name: str, prefix: str, type_name: str | None, reshape: str | None) -> None:
        self._name = name
        self._prefix = prefix
        self._type_name = type_name
        self._reshape = reshape
        self.spec: Spec | None = None
        """None before the first row, and for labels that are left out."""
        if type_name is not None or reshape is not None:
            self._parse("uint8" if type_name is None else type_name, reshape or "")  # a wrong name is told at once

    def encode(self, rows: Rows) -> Iterable[bytes]:
        """The bytes of each row."""
        if isinstance(rows, Mapping):
            fields = ", ".join(rows)
            raise mismatch(f"a {self._name} has the fields {fields}, where RAW has none; use AvroSink or JsonSink")
        if self._type_name == "string":
            rows = self._texts(rows)
        spec = self.spec = self.spec or self._spec_of(rows)
        self._check(rows, spec)
        return RawCodec(spec, None).encode_samples(rows)

    def _check(self, array: Array, spec: Spec) -> None:
        if spec.dtype.kind == "S":
            self._check_lengths(array, spec.dtype.itemsize)
            return
        row = array.shape[1:]
        alike = math.prod(row) == math.prod(spec.shape)
        if alike and fits(array, spec.dtype):
            return
        raise mismatch(
            f"a {self._name} is {array.dtype.name} {row}, where this stream has {spec}"
            + (f": {misfit(array, spec.dtype)}" if alike else ""),
            given=f"{array.dtype.name} {row}",
            expected=spec,
        )

    def _texts(self, array: Array) -> Array:
        """As they are sent, in UTF-8: numpy would make bytes of numbers too."""
        if array.dtype.kind not in "SU" or array.ndim != 1:
            raise mismatch(
                f"a {self._name} is {array.dtype.name} {array.shape[1:]}, where this stream has single texts"
            )
        return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array

    def _check_lengths(self, texts: Array, width: int) -> None:
        longest = max(map(len, texts.tolist()), default=0)
        if longest > width:
            raise mismatch(
                f"a {self._name} is a text of {longest} bytes, where {width} fit; {self._prefix}_reshape gives another"
                " width"
            )

    def _spec_of(self, array: Array) -> Spec:
        """What was asked for; the rest as the first row has it."""
        if self._type_name == "string":
            return self._parse("string", self._reshape or str(max(STRING_BYTES, array.dtype.itemsize)))
        type_name = self._type_name or array.dtype.name
        reshape = self._reshape if self._reshape is not None else " ".join(map(str, array.shape[1:]))
        spec = self._parse(type_name, reshape)
        shape = array.shape[1:] if self._reshape is None else _filled(spec.shape, array.shape[1:])
        return Spec(spec.dtype, shape)

    def _parse(self, type_name: str, reshape: str) -> Spec:
        """Of the names that RAW knows. Raises InvalidArgument (INVALID_FORMAT) with the known ones."""
        return spec_of_config({f"{self._prefix}_type": type_name, f"{self._prefix}_reshape": reshape}, self._prefix)


def _filled(shape: tuple[int, ...], row: tuple[int, ...]) -> tuple[int, ...]:
    """The open length of the shape, from the size of a row."""
    return tuple(math.prod(row) // -math.prod(shape) if length == -1 else length for length in shape)
