"""The dead letters of an input topic: shown newest first, and sent to it again."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict

from control_plane.answers import is_cut, model_of, refusal_of, source_of, source_text
from headrace.errors import DeadlineExceeded, FailedPrecondition, NotFound
from headrace.v1.predictions_pb2 import DeadLetter, RecordSource
from headrace.v1.stream_pb2 import OffsetRange
from streams.answers import DEAD_LETTER_HEADERS, dead_letter_topic
from streams.codecs import Codec
from streams.kafka import KafkaSettings, Message, headers_of, log_ends, partitions_of, time_of
from streams.reader import RangeReader
from streams.replay import Copy, Replayed, Replayer

ASK_TIMEOUT_S = 6.0
READ_S = 5.0
MAX_TEXT = 2000
MAX_NUMBERS = 10_000
# The first look is as long as the page; where other reasons or holes are in the way the next is longer.
_LONGER = 8

Ends = dict[int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """Dead letters, newest first. ends: where each partition's next page ends; None behind the last."""

    letters: list[DeadLetter]
    ends: Ends | None


class DeadLetters:
    """Of the inferences that read `input_topic`."""

    def __init__(self, kafka: KafkaSettings, input_topic: str) -> None:
        self._kafka, self._input_topic = kafka, input_topic
        self._topic = dead_letter_topic(input_topic)

    def page(self, codec: Codec | None, count: int, ends: Mapping[int, int] | None, reason: str) -> Page:
        """At most `count` before `ends`, decoded by the codec. Raises NotFound (UNKNOWN_TOPIC), Unavailable."""
        logs = log_ends(self._kafka, self._topic, ASK_TIMEOUT_S)
        lows = {number: one.low for number, one in logs.items()}
        starts = {number: min((ends or {}).get(number, one.stable), one.stable) for number, one in logs.items()}
        found: dict[int, list[Message]] = {number: [] for number in logs}
        length = count
        while look := _look(self._topic, found, starts, lows, count, length):
            for one in look:
                found[one.partition][:0] = self._read(one, reason)
                starts[one.partition] = one.start
            length *= _LONGER
        chosen = _newest(found, count)
        for message in chosen:
            found[_partition(message)].pop()
        after = {number: _offset(rest[-1]) + 1 if rest else starts[number] for number, rest in found.items()}
        is_last = all(after[number] <= lows[number] for number in after)
        return Page(_shown(chosen, codec), None if is_last else after)

    def replay(self, ends: Mapping[int, int], reason: str, within_s: float) -> Replayed:
        """See Replayer."""
        partitions = partitions_of(self._kafka, self._input_topic, ASK_TIMEOUT_S)

        def copy_of(letter: Message) -> Copy | None:
            source = source_of(source_text(letter))
            number = source.partition if source is not None else _partition(letter)
            question = self._question(source) if is_cut(letter) else letter
            if question is None:
                return None
            kept = [header for header in headers_of(question) if header[0] not in DEAD_LETTER_HEADERS]
            partition = partitions[number % len(partitions)]
            return Copy(self._input_topic, partition, question.key(), question.value(), kept)

        return Replayer(self._kafka, self._topic, _reason, copy_of).replay(ends, reason, within_s=within_s)

    def ends(self) -> Ends:
        """What stands there now."""
        return {number: one.stable for number, one in log_ends(self._kafka, self._topic, ASK_TIMEOUT_S).items()}

    def _question(self, source: RecordSource | None) -> Message | None:
        """Where the dead letter has not all of it; None if retention has taken it."""
        if source is None:
            return None
        place = OffsetRange(topic=source.topic, partition=source.partition, start=source.offset, end=source.offset + 1)
        try:
            with RangeReader(self._kafka, [place], wait_s=0) as reader:
                return next(chain.from_iterable(reader.batches()), None)
        except (FailedPrecondition, NotFound, DeadlineExceeded) as error:
            log.warning("a dead letter cannot be sent again", extra={"cause": str(error)})
            return None

    def _read(self, one: OffsetRange, reason: str) -> list[Message]:
        with RangeReader(self._kafka, [one], wait_s=READ_S) as reader:
            return [each for each in chain.from_iterable(reader.batches()) if not reason or _reason(each) == reason]


def _look(
    topic: str, found: Mapping[int, Sequence[Message]], starts: Ends, lows: Ends, count: int, length: int
) -> list[OffsetRange]:
    """The offsets before `starts` of the partitions that may have more of the newest."""
    return [
        OffsetRange(topic=topic, partition=number, start=max(lows[number], start - length), end=start)
        for number, start in starts.items()
        if start > lows[number] and len(found[number]) < count
    ]


def _newest(found: Mapping[int, Sequence[Message]], count: int) -> list[Message]:
    """By time, but within a partition by offset: a page then ends at one offset in each."""
    merged = heapq.merge(*(reversed(each) for each in found.values()), key=lambda letter: -letter.timestamp()[1])
    return [letter for _, letter in zip(range(count), merged, strict=False)]


def _shown(letters: Sequence[Message], codec: Codec | None) -> list[DeadLetter]:
    shown = [_letter(letter) for letter in letters]
    if codec is not None and letters:
        decoded = codec.decode_samples([letter.value() for letter in letters])
        for index, row in zip(decoded.good.tolist(), decoded.rows, strict=True):
            if (sample := _sample(codec, np.asarray(row))) is not None:
                shown[index].sample.CopyFrom(sample)
    return shown


def _letter(letter: Message) -> DeadLetter:
    refusal = refusal_of(letter)
    value = letter.value()
    return DeadLetter(
        source=source_of(source_text(letter)),
        partition=_partition(letter),
        offset=_offset(letter),
        reason=refusal.reason if refusal else "",
        message=refusal.message if refusal else "",
        model=model_of(letter),
        time=time_of(letter),
        key=_text(letter.key()),
        value=_text(value),
        value_size_bytes=len(value or b""),
    )


def _sample(codec: Codec, row: np.ndarray) -> struct_pb2.Value | None:
    """Numbers, or an object of the fields; None of what is too long or no number."""
    if row.dtype.kind not in "biuf" or row.size > MAX_NUMBERS or not np.isfinite(row).all():
        return None
    flat = row.reshape(-1)
    fields = {one.name: flat[one.start : one.stop].reshape(one.spec.shape).tolist() for one in codec.fields}
    return ParseDict(fields or row.tolist(), struct_pb2.Value())


def _text(content: bytes | str | None) -> str:
    """Text where it is some; hexadecimal digits else."""
    data = content.encode() if isinstance(content, str) else content or b""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _cut(data[:MAX_TEXT].hex())
    return _cut(text if text.isprintable() else data[:MAX_TEXT].hex())


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _reason(letter: Message) -> str:
    refusal = refusal_of(letter)
    return refusal.reason if refusal is not None else ""


def _partition(letter: Message) -> int:
    number = letter.partition()
    assert number is not None
    return number


def _offset(letter: Message) -> int:
    offset = letter.offset()
    assert offset is not None
    return offset
