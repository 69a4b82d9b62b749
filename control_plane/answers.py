"""Records of output topics and of dead-letter topics as messages of the API."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headrace.errors import HeadraceError
from headrace.v1 import predictions_pb2
from streams.answers import (
    CUT_HEADER,
    ERROR_HEADER,
    ERROR_MESSAGE_HEADER,
    MODEL_HEADER,
    REQUEST_HEADER,
    SOURCE_HEADER,
)
from streams.kafka import Message, headers_of, time_of
from streams.outputs import AnswerReader

log = logging.getLogger(__name__)

# What decoding raises for a record that is no answer of ours: anybody may write to an output topic.
_NO_ANSWER = (ValueError, TypeError, OverflowError, RecursionError, HeadraceError)


@dataclass(frozen=True)
class Refused:
    """Why a question became a dead letter."""

    reason: str
    message: str


def request_of(record: Message) -> str:
    """What Predict wrote on the question, where this answers or refuses it; empty on other records."""
    return _header(record, REQUEST_HEADER)


def refusal_of(record: Message) -> Refused | None:
    """Of a dead letter; None of an answer."""
    reason = _header(record, ERROR_HEADER)
    return Refused(reason, _header(record, ERROR_MESSAGE_HEADER)) if reason else None


def is_cut(record: Message) -> bool:
    """Whether a dead letter has less than its question."""
    return bool(_header(record, CUT_HEADER))


def prediction_of(record: Message, reader: AnswerReader) -> predictions_pb2.Prediction | None:
    """Of an answer that `reader` can decode; None of anything else."""
    try:
        return _decoded(record, reader)
    except _NO_ANSWER as error:
        log.debug("passed over: no answer", extra={"offset": record.offset(), "cause": str(error)})
        return None


def _decoded(record: Message, reader: AnswerReader) -> predictions_pb2.Prediction:
    nested = reader.values(record.value())
    shape, label = _shape(nested), reader.label(record.value())
    return predictions_pb2.Prediction(
        values=_flat([nested]),
        shape=shape if len(shape) > 1 else (),
        source=source_of(source_text(record)),
        model=model_of(record),
        time=time_of(record),
        label=label.name if label else "",
        score=label.score if label else 0.0,
    )


def source_text(record: Message) -> str:
    """The place of the question, as an inferencer writes it."""
    return _header(record, SOURCE_HEADER)


def model_of(record: Message) -> str:
    """The model and version that answered."""
    return _header(record, MODEL_HEADER)


def source_of(text: str) -> predictions_pb2.RecordSource | None:
    """Of `topic/partition/offset`; None of anything else, also of numbers that Kafka does not have."""
    topic, *numbers = text.rsplit("/", 2)
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    try:
        return predictions_pb2.RecordSource(topic=topic, partition=int(numbers[0]), offset=int(numbers[1]))
    except ValueError:
        return None


def _flat(nested: Iterable[Any]) -> list[float]:
    numbers: list[float] = []
    for one in nested:
        if isinstance(one, list):
            numbers += _flat(one)
        else:
            numbers.append(float(one))
    return numbers


def _shape(nested: Any) -> list[int]:
    shape = []
    while isinstance(nested, list):
        shape.append(len(nested))
        nested = nested[0] if nested else None
    return shape


def _header(record: Message, name: str) -> str:
    for key, content in headers_of(record):
        if key == name:
            return content.decode(errors="replace") if isinstance(content, bytes) else content or ""
    return ""
