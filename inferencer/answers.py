"""From a model's outputs to the records of the output topic and of the dead-letter topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from headrace.v1 import error_pb2
from streams.answers import ERROR_HEADER, ERROR_MESSAGE_HEADER, MESSAGE_LIMIT, MODEL_HEADER, SOURCE_HEADER

Header = tuple[str, str | bytes | None]

OWN_HEADERS = frozenset({MODEL_HEADER, SOURCE_HEADER})
DEAD_LETTER_HEADERS = OWN_HEADERS | {ERROR_HEADER, ERROR_MESSAGE_HEADER}

JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True)
class Refusal:
    """Why a record gets no answer."""

    reason: int
    message: str

    @property
    def reason_name(self) -> str:
        """`DECODE_ERROR`, …"""
        return error_pb2.Reason.Name(self.reason).removeprefix("REASON_")


def encode_answers(outputs: Mapping[str, np.ndarray]) -> list[bytes | Refusal]:
    """One value per row: `{"values": [...]}`, or a refusal where a number is NaN or infinite.

    `outputs`: name to array of shape (rows, …). With several outputs `values` is the last one, the model's
    final answer, and `outputs` has all of them by name.
    """
    arrays = [np.ascontiguousarray(array) for array in outputs.values()]
    rows = len(arrays[-1])
    if rows == 0:
        return []
    finite = np.ones(rows, dtype=bool)
    for array in arrays:
        if array.dtype.kind == "f":
            finite &= np.isfinite(array.reshape(rows, -1)).all(axis=1)
    encode = _encode_single if len(arrays) == 1 else _encode_several
    encoded = encode(list(outputs), arrays)
    if finite.all():
        return list(encoded)
    refusal = Refusal(
        error_pb2.REASON_NAN_OUTPUT,
        "the model answered NaN or infinity; check the scale of the record's values",
    )
    return [value if good else refusal for value, good in zip(encoded, finite, strict=True)]


def _encode_single(names: Sequence[str], arrays: Sequence[np.ndarray]) -> list[bytes]:
    answers = arrays[0]
    if answers.ndim == 1:
        answers = answers.reshape(-1, 1)
    if answers.ndim > 2 or answers.shape[1] == 0:
        return [orjson.dumps({"values": row}, option=JSON_OPTIONS) for row in answers]
    # One call for all rows, then cut between them: a call per row takes twice as long.
    rows = orjson.dumps(answers, option=JSON_OPTIONS)[2:-2].split(b"],[")
    return [b'{"values":[' + row + b"]}" for row in rows]


def _encode_several(names: Sequence[str], arrays: Sequence[np.ndarray]) -> list[bytes]:
    rows = zip(*(map(np.atleast_1d, array) for array in arrays), strict=True)
    return [
        orjson.dumps({"values": row[-1], "outputs": dict(zip(names, row, strict=True))}, option=JSON_OPTIONS)
        for row in rows
    ]


def answer_headers(copied: Sequence[Header] | None, model: bytes, source: bytes) -> list[Header]:
    """The question's headers, then ours; those of an inference before us in a chain are replaced."""
    kept = [header for header in copied or () if header[0] not in OWN_HEADERS]
    return [*kept, (MODEL_HEADER, model), (SOURCE_HEADER, source)]


def dead_letter_headers(copied: Sequence[Header] | None, model: bytes, source: bytes, refusal: Refusal) -> list[Header]:
    """The question's headers, then the reason, the source and the model."""
    kept = [header for header in copied or () if header[0] not in DEAD_LETTER_HEADERS]
    return [
        *kept,
        (ERROR_HEADER, refusal.reason_name.encode()),
        (ERROR_MESSAGE_HEADER, refusal.message[:MESSAGE_LIMIT].encode()),
        (SOURCE_HEADER, source),
        (MODEL_HEADER, model),
    ]
