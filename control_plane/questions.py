"""The questions to answers that people watch, in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np

from headrace.errors import HeadraceError
from headrace.v1.predictions_pb2 import Prediction
from streams.codecs import Array, Codec, codec_for
from streams.kafka import KafkaSettings
from streams.lookup import RecordLookup

# A look-up must not hold the answers up; what is not found by then has no summary. The first one connects.
LOOK_UP_S = 0.15
FIRST_LOOK_UP_S = 1.5
FEW = 12
# Kinds of numpy's types.
NUMBERS = "biuf"
MAX_TEXT = 120


class Questions:
    """Of one topic. Used by one thread; a context manager.

    data_format, config: how they are encoded, as the inference has it.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, data_format: int, config: Mapping[str, str]) -> None:
        self._topic, self._format, self._config = topic, data_format, config
        self._lookup = RecordLookup(kafka, topic)
        self._limit_s = FIRST_LOOK_UP_S

    def __enter__(self) -> Questions:
        self._lookup.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lookup.__exit__(kind, error, trace)

    def summarise(self, predictions: Sequence[Prediction]) -> None:
        """Fill in `input_summary` of those whose question is found in time."""
        wanted = {
            (one.source.partition, one.source.offset): one for one in predictions if one.source.topic == self._topic
        }
        if not wanted:
            return
        try:
            values = self._lookup.values(wanted, self._limit_s)
        except HeadraceError:
            return
        self._limit_s = LOOK_UP_S
        for place, text in zip(values, self._summaries(list(values.values())), strict=True):
            wanted[place].input_summary = text

    def _summaries(self, values: Sequence[bytes]) -> list[str]:
        if not values:
            return []
        # Anew each time: where lengths are open a codec keeps those of the first record.
        codec = codec_for(self._format, self._config)
        decoded = codec.decode_samples(values)
        texts = [_text(value) for value in values]
        for index, row in zip(decoded.good.tolist(), decoded.rows, strict=True):
            if (numbers := np.asarray(row)).dtype.kind in NUMBERS:
                texts[index] = summary_of(codec, numbers)
        return texts


def summary_of(codec: Codec, row: Array) -> str:
    """`5.1, 3.5, 1.4`, or `width 5.1, height 3.5`, or `28×28 numbers from 0 to 255, mean 33.1`."""
    flat = row.reshape(-1)
    if flat.size <= FEW and len(codec.fields) == flat.size:
        return _cut(", ".join(f"{one.name} {flat[one.start]:.4g}" for one in codec.fields))
    if flat.size <= FEW:
        return ", ".join(f"{number:.4g}" for number in flat)
    shape = "×".join(map(str, row.shape))
    return f"{shape} numbers from {flat.min():.4g} to {flat.max():.4g}, mean {flat.mean():.4g}"


def _text(value: bytes) -> str:
    """The beginning of what is no numbers."""
    text = value[:MAX_TEXT].decode(errors="replace")
    return _cut(text if text.isprintable() else value[:MAX_TEXT].hex())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
