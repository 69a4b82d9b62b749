"""The messages of the control topic: which offsets are a data set. Two dialects live on it.

- Ours: the header `headrace-message: headrace.v1.StreamAnnouncement`, the value that message in protobuf.
- Kafka-ML's: the key is the deployment's id as big-endian bytes (one byte in the wild), the value JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from google.protobuf.message import DecodeError

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_AVRO,
    DATA_FORMAT_RAW,
    DIALECT_HEADRACE,
    DIALECT_KAFKA_ML,
    DataFormat,
    Dialect,
    Stream,
    StreamAnnouncement,
)
from streams.offsets import MAX_OFFSET, check_ranges, format_ranges, is_topic_name, parse_topics

CONTROL_TOPIC = "KAFKA_ML_CONTROL_TOPIC"
MESSAGE_HEADER = "headrace-message"
MESSAGE_NAME = "headrace.v1.StreamAnnouncement"
# On every record of our sinks: to which stream it belongs.
STREAM_HEADER = "headrace-stream"
# As large as Kafka's brokers take a record by default. More would not fit the catalog's messages.
MAX_VALUE_BYTES = 1024 * 1024

Header = tuple[str, bytes | str | None]


def encode(announcement: StreamAnnouncement) -> tuple[list[tuple[str, str | bytes | None]], bytes]:
    """Headers and value in our dialect. The key is up to the sender: `deployment_key`."""
    return [(MESSAGE_HEADER, MESSAGE_NAME.encode())], announcement.SerializeToString(deterministic=True)


def encode_legacy(announcement: StreamAnnouncement) -> tuple[bytes, bytes]:
    """Key and value as Kafka-ML's back-end sends a data source again, byte for byte: its keys, in its order.

    What that back-end does not keep follows only where there is something to say, as its sinks write it.
    """
    body: dict[str, Any] = {
        "input_format": DataFormat.Name(announcement.input_format).removeprefix("DATA_FORMAT_"),
        "input_config": _legacy_config(announcement),
        "description": announcement.description,
        "topic": ",".join(filter(None, [format_ranges(announcement.ranges), *announcement.open_topics])),
        "validation_rate": _legacy_rate(announcement.validation_rate),
        "test_rate": _legacy_rate(announcement.test_rate),
        # Kafka-ML's online sinks do not know how many there will be.
        "total_msg": announcement.record_count if announcement.ranges else announcement.record_count or None,
    }
    if announcement.unsupervised_ranges or announcement.unsupervised_open_topics:
        unsupervised = [format_ranges(announcement.unsupervised_ranges), *announcement.unsupervised_open_topics]
        body["unsupervised_topic"] = ",".join(filter(None, unsupervised))
    if announcement.restrictions not in ("", "{}"):
        body["dataset_restrictions"] = announcement.restrictions
    if announcement.incremental and not announcement.open_topics:
        body["incremental"] = True
    return deployment_key(announcement.deployment_id), json.dumps(body).encode()


# The keys of Kafka-ML's own sinks, in their order; each sink writes all of its own.
_LEGACY_CONFIG: Mapping[int, Sequence[str]] = {
    DATA_FORMAT_RAW: ("data_type", "label_type", "data_reshape", "label_reshape"),
    DATA_FORMAT_AVRO: ("data_scheme", "label_scheme"),
}


def _legacy_config(announcement: StreamAnnouncement) -> dict[str, str | None]:
    """What was null when it came is not in our map, and becomes null again."""
    config = announcement.input_config
    known = _LEGACY_CONFIG.get(announcement.input_format, ())
    first = {name: config.get(name) for name in known}
    return {**first, **{name: config[name] for name in sorted(config) if name not in first}}


def _legacy_rate(rate: float) -> float | int:
    """A whole number without a point: Kafka-ML's message has been through a browser."""
    return int(rate) if rate.is_integer() else rate


def deployment_key(deployment_id: int) -> bytes:
    """The id as big-endian bytes, as few as it needs."""
    return deployment_id.to_bytes(max(1, (deployment_id.bit_length() + 7) // 8), "big")


def decode(
    key: bytes | None, headers: Iterable[Header] | None, value: bytes | None
) -> tuple[StreamAnnouncement, Dialect]:
    """The announcement of a control record, checked, and its dialect.

    Raises InvalidArgument: MALFORMED_REQUEST where it cannot be read at all, INVALID_RANGE, INVALID_FORMAT,
    INVALID_FIELD (every bad field at once).
    """
    if len(value or b"") > MAX_VALUE_BYTES:
        raise _malformed(f"its value has {len(value or b'')} bytes, at most {MAX_VALUE_BYTES} are taken")
    names = [_text(content) for name, content in headers or () if name == MESSAGE_HEADER]
    if names:
        return _decode_ours(names[-1], value), DIALECT_HEADRACE
    return _decode_legacy(key, value), DIALECT_KAFKA_ML


def addressee(key: bytes | None, headers: Iterable[Header] | None, value: bytes | None) -> int:
    """The deployment that a record is meant for, also of one that `decode` refuses; 0 where none can be read."""
    deployment_id = int.from_bytes(key or b"", "big")
    if any(name == MESSAGE_HEADER for name, _ in headers or ()):
        with suppress(DecodeError):
            deployment_id = StreamAnnouncement.FromString(value or b"").deployment_id
    return deployment_id if 0 < deployment_id <= MAX_OFFSET else 0


def topics_of(stream: Stream | StreamAnnouncement) -> set[str]:
    """The topics that hold its records."""
    in_ranges = {one.topic for one in (*stream.ranges, *stream.unsupervised_ranges)}
    return in_ranges | {*stream.open_topics, *stream.unsupervised_open_topics}


def check(announcement: StreamAnnouncement, *, ranges_follow: bool = False) -> None:
    """Raise InvalidArgument unless the announcement names a data set that can be: ranges, rates, format.

    ranges_follow: it may have none yet. Every bad field at once; the reason is that of the first of INVALID_RANGE,
    INVALID_FIELD, INVALID_FORMAT.
    """
    if errors := list(_errors_of(announcement, ranges_follow)):
        raise together(errors)


def together(errors: Sequence[InvalidArgument]) -> InvalidArgument:
    """One error with the fields and facts of all of them, and the reason of the first."""
    if len(errors) == 1:
        return errors[0]
    fields = [bad for error in errors for bad in error.fields]
    combined = InvalidArgument(errors[0].reason, "; ".join(error.message for error in errors), fields=fields)
    for error in reversed(errors):
        combined.metadata |= error.metadata
    return combined


def _errors_of(announcement: StreamAnnouncement, ranges_follow: bool) -> Iterator[InvalidArgument]:
    for name in ("ranges", "unsupervised_ranges"):
        try:
            check_ranges(list(getattr(announcement, name)), name)
        except InvalidArgument as error:
            yield error
    bad = list(_bad_fields(announcement))
    if not announcement.ranges and not announcement.open_topics and not ranges_follow:
        bad.append(FieldViolation("ranges", "neither ranges nor open topics are given"))
    if bad:
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in bad)
        yield InvalidArgument(error_pb2.REASON_INVALID_FIELD, f"the control message is wrong: {text}", fields=bad)
    if announcement.input_format not in _FORMATS.values():
        yield _unknown_format(announcement.input_format)


def _bad_fields(announcement: StreamAnnouncement) -> Iterator[FieldViolation]:
    yield from _bad_rates(announcement)
    yield from _bad_numbers(announcement)
    if (size := announcement.ByteSize()) > MAX_VALUE_BYTES:
        yield FieldViolation("ranges", f"the announcement has {size} bytes, at most {MAX_VALUE_BYTES} are taken")
    if not announcement.message_id or len(announcement.message_id) > 200:
        yield FieldViolation("message_id", "must be given, with at most 200 characters")
    for name in ("open_topics", "unsupervised_open_topics"):
        for index, topic in enumerate(getattr(announcement, name)):
            if not is_topic_name(topic):
                yield FieldViolation(f"{name}[{index}]", f"{topic[:100]!r} is no name of a topic")


def _bad_rates(announcement: StreamAnnouncement) -> list[FieldViolation]:
    rates = {"validation_rate": announcement.validation_rate, "test_rate": announcement.test_rate}
    bad = [
        FieldViolation(name, f"{rate:g} is not in [0, 1)")
        for name, rate in rates.items()
        if not (math.isfinite(rate) and 0 <= rate < 1)
    ]
    if not bad and sum(rates.values()) >= 1:
        bad.append(FieldViolation("test_rate", "validation_rate and test_rate leave nothing to train on"))
    return bad


def _bad_numbers(announcement: StreamAnnouncement) -> list[FieldViolation]:
    numbers = {"deployment_id": announcement.deployment_id, "record_count": announcement.record_count}
    return [FieldViolation(name, f"{value} is negative") for name, value in numbers.items() if value < 0]


def _decode_ours(name: str, value: bytes | None) -> StreamAnnouncement:
    if name != MESSAGE_NAME:
        raise _malformed(f"the header {MESSAGE_HEADER} names {name[:100]!r}; this version knows {MESSAGE_NAME}")
    try:
        announcement = StreamAnnouncement.FromString(value or b"")
    except DecodeError as error:
        raise _malformed(f"its value is no {MESSAGE_NAME} in protobuf") from error
    check(announcement)
    return announcement


def _decode_legacy(key: bytes | None, value: bytes | None) -> StreamAnnouncement:
    deployment_id = int.from_bytes(key or b"", "big")
    if not key or deployment_id > MAX_OFFSET:
        raise _malformed("its key is not a deployment's id as big-endian bytes")
    body = _parse_json(value or b"")
    ranges, open_topics = parse_topics(_string(body, "topic"))
    unsupervised, open_unsupervised = parse_topics(_string(body, "unsupervised_topic"))
    announcement = StreamAnnouncement(
        # The same bytes are the same announcement: it has no id of its own.
        message_id="kafka-ml-" + hashlib.sha256(key + b"\0" + (value or b"")).hexdigest(),
        deployment_id=deployment_id,
        ranges=ranges,
        unsupervised_ranges=unsupervised,
        open_topics=open_topics,
        unsupervised_open_topics=open_unsupervised,
        input_format=_format(_string(body, "input_format", "RAW")),
        input_config=_config(body),
        validation_rate=_rate(body, "validation_rate"),
        test_rate=_rate(body, "test_rate"),
        record_count=_count(body),
        description=_string(body, "description"),
        restrictions=_restrictions(body),
        incremental=bool(open_topics) or body.get("incremental") is True,
    )
    check(announcement)
    return announcement


def _parse_json(value: bytes) -> dict[str, Any]:
    try:
        body = json.loads(value.decode(), parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()  # JSON may hold halves of surrogate pairs, which are no text
    except (ValueError, RecursionError) as error:
        raise _malformed(f"its value is no JSON in UTF-8 ({error})") from error
    if not isinstance(body, dict):
        raise _malformed("its value is no JSON object")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _string(body: Mapping[str, Any], name: str, default: str = "") -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise _bad_field(name, "a text", value)
    return value


def _rate(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if value is None or value == "":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise _bad_field(name, "a number in [0, 1)", value)
    return float(value)


def _count(body: Mapping[str, Any]) -> int:
    value = body.get("total_msg")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_OFFSET:
        raise _bad_field("total_msg", "a number of records", value)
    return value


def _restrictions(body: Mapping[str, Any]) -> str:
    value = body.get("dataset_restrictions")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _config(body: Mapping[str, Any]) -> dict[str, str]:
    """An object, or an object as JSON text; values that are no texts as JSON, so that a schema may be either. Null is
    what Kafka-ML's sinks write for what was not given: it is left out.
    """
    value = body.get("input_config")
    if isinstance(value, str):
        value = _parse_json(value.encode()) if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad_field("input_config", "an object", value)
    return {name: _config_text(content) for name, content in value.items() if content is not None}


def _config_text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


_FORMATS = {name.removeprefix("DATA_FORMAT_"): number for name, number in DataFormat.items() if number != 0}


def _format(name: str) -> DataFormat:
    if name.upper() not in _FORMATS:
        raise _unknown_format(name)
    return cast(DataFormat, _FORMATS[name.upper()])


def _unknown_format(given: object) -> InvalidArgument:
    known = ", ".join(_FORMATS)
    return InvalidArgument(
        error_pb2.REASON_INVALID_FORMAT,
        f"the input format {given!r} is unknown; the known ones are {known}",
        fields=[FieldViolation("input_format", f"must be one of {known}")],
        input_format=given,
        known=known,
    )


def _bad_field(name: str, expected: str, value: object) -> InvalidArgument:
    problem = f"must be {expected}, not {str(value)[:100]!r}"
    fields = [FieldViolation(name, problem)]
    return InvalidArgument(
        error_pb2.REASON_INVALID_FIELD, f"the control message is wrong: {name} {problem}", fields=fields
    )


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(error_pb2.REASON_MALFORMED_REQUEST, f"the control message cannot be read: {why}")


def _text(content: bytes | str | None) -> str:
    return content.decode(errors="replace") if isinstance(content, bytes) else content or ""
