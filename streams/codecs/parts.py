"""A codec of two parts: one for the samples, one for the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streams.codecs import Decoded, Field, Rows, Spec
from streams.codecs.layout import Layout
from streams.codecs.records import Records


class Part(Protocol):
    """Encodes and decodes the samples, or the labels."""

    @property
    def layout(self) -> Layout: ...
    @property
    def config(self) -> dict[str, str]:
        """Its keys of the input_config, with what was decided since."""

    def settle(self, rows: Rows) -> None:
        """Take the lengths that are open from the rows."""

    def decode(self, records: Records) -> Decoded: ...
    def encode(self, rows: Rows) -> list[bytes]: ...


class PartsCodec:
    """The samples are the records' values, the labels their keys."""

    def __init__(self, samples: Part, labels: Part | None, config: Mapping[str, str] | None = None) -> None:
        self._samples = samples
        self._labels = labels
        self._shared = dict(config or {})

    @property
    def sample_spec(self) -> Spec:
        return self._samples.layout.spec

    @property
    def label_spec(self) -> Spec | None:
        return None if self._labels is None else self._labels.layout.spec

    @property
    def fields(self) -> tuple[Field, ...]:
        return self._samples.layout.fields

    @property
    def config(self) -> dict[str, str]:
        return self._shared | self._samples.config | (self._labels.config if self._labels is not None else {})

    def settle(self, samples: Rows, labels: Rows | None) -> None:
        """Take the lengths that are open from rows that are going to be encoded."""
        self._samples.settle(samples)
        if self._labels is not None and labels is not None:
            self._labels.settle(labels)

    def decode_samples(self, values: Records) -> Decoded:
        return self._samples.decode(values)

    def decode_labels(self, keys: Records) -> Decoded:
        assert self._labels is not None, "the records have no labels"
        return self._labels.decode(keys)

    def encode_samples(self, rows: Rows) -> list[bytes]:
        return self._samples.encode(rows)

    def encode_labels(self, rows: Rows) -> list[bytes]:
        assert self._labels is not None, "the records have no labels"
        return self._labels.encode(rows)
