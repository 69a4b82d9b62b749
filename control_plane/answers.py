"""Records of output topics and of dead-letter topics as messages of the API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import timestamp_pb2

from headrace.v1 import predictions_pb2
from streams.answers import CUT_HEADER, ERROR_HEADER, ERROR_MESSAGE_HEADER, MODEL_HEADER, SOURCE_HEADER
from streams.outputs import AnswerReader

# On questions of Predict; inferencers copy headers, so the answer has it too.
REQUEST_HEADER = "headrace-request"


class Record(Protocol):
    """What is needed of a Kafka message."""

    def headers(self) -> Any: ...
    def value(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Refused:
    """Why a question became a dead letter."""

    reason: str
    message: str


def request_of(record: Record) -> str:
    """The id that Predict gave to its question; empty on other records."""
    return _header(record.headers(), REQUEST_HEADER)


def refusal_of(record: Record) -> Refused | None:
    """Of a dead letter; None of an answer."""
    headers = record.headers()
    reason = _header(headers, ERROR_HEADER)
    return Refused(reason, _header(headers, ERROR_MESSAGE_HEADER)) if reason else None


def is_cut(record: Record) -> bool:
    """Whether a dead letter has less than its question."""
    return bool(_header(record.headers(), CUT_HEADER))


def prediction_of(record: Record, reader: AnswerReader) -> predictions_pb2.Prediction | None:
    """Of an answer that `reader` can decode; None of anything else."""
    try:
        nested = reader.values(record.value())
        values, shape = _flat([nested]), _shape(nested)
        label = reader.label(record.value())
    except (ValueError, TypeError):
        return None
    time = timestamp_pb2.Timestamp()
    time.FromMilliseconds(max(0, record.timestamp()[1]))
    return predictions_pb2.Prediction(
        values=values,
        shape=shape if len(shape) > 1 else (),
        source=source_of(source_text(record)),
        model=model_of(record),
        time=time,
        label=label.name if label else "",
        score=label.score if label else 0.0,
    )


def source_text(record: Record) -> str:
    """The place of the question, as an inferencer writes it."""
    return _header(record.headers(), SOURCE_HEADER)


def model_of(record: Record) -> str:
    """The model and version that answered."""
    return _header(record.headers(), MODEL_HEADER)


def source_of(text: str) -> predictions_pb2.RecordSource | None:
    """Of `topic/partition/offset`."""
    topic, *numbers = text.rsplit("/", 2)
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    return predictions_pb2.RecordSource(topic=topic, partition=int(numbers[0]), offset=int(numbers[1]))


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


def _header(headers: Any, name: str) -> str:
    for key, content in headers or ():
        if key == name:
            return content.decode(errors="replace") if isinstance(content, bytes) else content or ""
    return ""
