"""From a model's outputs to the records of the output topic and of the dead-letter topic."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import orjson

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.inference_pb2 import Inference
from streams.answers import (
    ANSWER_HEADERS,
    CUT_HEADER,
    DEAD_LETTER_HEADERS,
    ERROR_HEADER,
    ERROR_MESSAGE_HEADER,
    MESSAGE_LIMIT,
    MODEL_HEADER,
    REQUEST_HEADER,
    SOURCE_HEADER,
)
from streams.outputs import JSON_FORMATS, output_codec, output_rows

Header = tuple[str, str | bytes | None]


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


# By name, arrays of shape (rows, …).
Outputs = Mapping[str, np.ndarray]
# One value per row, or a refusal where a number is NaN or infinite.
Encode = Callable[[Outputs], list[bytes | Refusal]]


def encoder_of(inference: Inference) -> Encode:
    """How the inference answers. Raises InvalidArgument where its `output_config` is wrong."""
    if inference.output_format not in JSON_FORMATS:
        return CodecAnswers(inference.output_format, dict(inference.output_config)).encode
    if inference.HasField("labels"):
        return partial(encode_answers, labels=list(inference.labels.names))
    return encode_answers


def encode_answers(outputs: Outputs, labels: Sequence[str] | None = None) -> list[bytes | Refusal]:
    """`{"values": [...]}`. With several outputs `values` is the last one, the model's final answer, and `outputs` has
    all of them by name.

    labels: adds `label` and `score`, the best class and its score; empty: the class's number.
    """
    arrays = [np.ascontiguousarray(array) for array in outputs.values()]
    if len(arrays[-1]) == 0:
        return []
    encoded = _encode_single(arrays[0]) if len(arrays) == 1 else _encode_several(list(outputs), arrays)
    if labels is not None:
        encoded = _labelled(encoded, arrays[-1], labels)
    return _refuse_nan(encoded, arrays)


class CodecAnswers:
    """RAW, AVRO or PROTOBUF, by an inference's `output_config`."""

    def __init__(self, data_format: int, config: Mapping[str, str]) -> None:
        self._format, self._config = data_format, dict(config)
        output_codec(data_format, config)

    def encode(self, outputs: Outputs) -> list[bytes | Refusal]:
        """See Encode. Raises InvalidArgument (SCHEMA_MISMATCH) for other outputs than the configuration says."""
        if len(next(iter(outputs.values()))) == 0:
            return []
        # Anew for each batch: where lengths are open, a codec keeps those of the first one.
        codec = output_codec(self._format, self._config)
        encoded = codec.encode_samples(output_rows(self._format, codec, outputs))
        return _refuse_nan(encoded, list(outputs.values()))


def _refuse_nan(encoded: list[bytes], arrays: Sequence[np.ndarray]) -> list[bytes | Refusal]:
    finite = np.ones(len(encoded), dtype=bool)
    for array in arrays:
        if array.dtype.kind == "f":
            finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if finite.all():
        return list(encoded)
    refusal = Refusal(
        error_pb2.REASON_NAN_OUTPUT,
        "the model answered NaN or infinity; check the scale of the record's values",
    )
    return [value if good else refusal for value, good in zip(encoded, finite, strict=True)]


def _labelled(encoded: Sequence[bytes], scores: np.ndarray, names: Sequence[str]) -> list[bytes]:
    """The answers with the best class of `scores` `(rows, classes)`."""
    if scores.ndim != 2 or not scores.shape[1] or (names and len(names) != scores.shape[1]):
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"the model answers in the shape {list(scores.shape[1:])}, which {len(names) or 'no'} labels cannot name",
        )
    best = scores.argmax(axis=1)
    tops = scores[np.arange(len(scores)), best].astype(np.float32)
    written = orjson.dumps(tops, option=JSON_OPTIONS)[1:-1].split(b",")
    classes = [orjson.dumps(name) for name in names] or [b"%d" % number for number in range(scores.shape[1])]
    return [
        b'%s,"label":%s,"score":%s}' % (answer[:-1], classes[number], top)
        for answer, number, top in zip(encoded, best.tolist(), written, strict=True)
    ]


def _encode_single(answers: np.ndarray) -> list[bytes]:
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


def answers_headers(
    copied: Iterable[Sequence[Header]], model: bytes, sources: Iterable[bytes], *, request: bytes
) -> list[list[Header]]:
    """Of each answer: its question's headers, then ours; those of an inference before us in a chain are replaced.

    request: how the value of REQUEST_HEADER begins on questions to us; one to another inference is left out.
    """
    by = (MODEL_HEADER, model)
    return [
        [*_kept(headers, _REPLACED, request), by, (SOURCE_HEADER, source)] if headers else [by, (SOURCE_HEADER, source)]
        for headers, source in zip(copied, sources, strict=True)
    ]


def dead_letter_headers(
    copied: Sequence[Header] | None,
    model: bytes,
    source: bytes,
    refusal: Refusal,
    *,
    request: bytes,
    is_cut: bool = False,
) -> list[Header]:
    """The question's headers, then the reason, the source and the model; `request` as of `answers_headers`."""
    return [
        *_kept(copied or (), _REPLACED_ON_DEAD_LETTERS, request),
        (ERROR_HEADER, refusal.reason_name.encode()),
        (ERROR_MESSAGE_HEADER, refusal.message[:MESSAGE_LIMIT].encode()),
        (SOURCE_HEADER, source),
        (MODEL_HEADER, model),
        *([(CUT_HEADER, b"true")] if is_cut else []),
    ]


_REPLACED = ANSWER_HEADERS | {REQUEST_HEADER}
_REPLACED_ON_DEAD_LETTERS = DEAD_LETTER_HEADERS | {REQUEST_HEADER}


def _kept(headers: Sequence[Header], replaced: frozenset[str], request: bytes) -> list[Header]:
    kept = []
    for header in headers:  # for each record, and a comprehension over so few takes twice as long
        if header[0] not in replaced or _asks_us(header, request):
            kept.append(header)
    return kept


def _asks_us(header: Header, request: bytes) -> bool:
    name, value = header
    return name == REQUEST_HEADER and isinstance(value, bytes) and value.startswith(request)
