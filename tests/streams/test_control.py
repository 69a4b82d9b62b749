import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_AVRO,
    DATA_FORMAT_RAW,
    DIALECT_HEADRACE,
    DIALECT_KAFKA_ML,
    OffsetRange,
    StreamAnnouncement,
)
from streams.control import decode, deployment_key, encode, encode_legacy
from streams.offsets import format_ranges
from tests.streams.test_offsets import disjoint_ranges

# As Kafka-ML's own sinks write it.
RAW_MESSAGE = {
    "topic": "mnist:0:0:70000",
    "input_format": "RAW",
    "description": "handwritten digits",
    "dataset_restrictions": "{}",
    "input_config": {"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", "label_reshape": ""},
    "validation_rate": 0.1,
    "test_rate": 0.05,
    "total_msg": 70000,
}
# Its config as a text inside the text, with schemas as objects, and a key that newer versions add.
AVRO_MESSAGE = {
    "topic": "copd:0:0:5,copd:1:3:9",
    "unsupervised_topic": "copd-raw:0:0:100",
    "input_format": "AVRO",
    "input_config": json.dumps({"data_scheme": {"type": "record", "name": "d", "fields": []}, "label_scheme": "{}"}),
    "validation_rate": None,
    "total_msg": None,
    "incremental": None,
    "added_later": [1, 2],
}


def a_range(topic: str, partition: int, start: int, end: int) -> OffsetRange:
    return OffsetRange(topic=topic, partition=partition, start=start, end=end)


def legacy(body: object, key: bytes = b"\x07") -> StreamAnnouncement:
    announcement, dialect = decode(key, None, json.dumps(body).encode())
    assert dialect == DIALECT_KAFKA_ML
    return announcement


rates = st.floats(0, 0.49)
announcements = st.builds(
    StreamAnnouncement,
    message_id=st.uuids().map(str),
    deployment_id=st.integers(0, 2**63 - 1),
    ranges=disjoint_ranges(),
    unsupervised_ranges=st.just([]) | disjoint_ranges(),
    unsupervised_open_topics=st.lists(st.sampled_from(["u", "v"]), unique=True),
    input_format=st.sampled_from([DATA_FORMAT_RAW, DATA_FORMAT_AVRO]),
    input_config=st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4),
    validation_rate=rates,
    test_rate=rates,
    record_count=st.integers(0, 2**63 - 1),
    description=st.text(max_size=30),
    restrictions=st.text(max_size=30),
)


@given(announcements)
def test_our_dialect_survives_the_log(announcement: StreamAnnouncement) -> None:
    headers, value = encode(announcement)
    assert decode(deployment_key(announcement.deployment_id), headers, value) == (announcement, DIALECT_HEADRACE)


@given(announcements)
def test_kafka_mls_dialect_says_the_same(announcement: StreamAnnouncement) -> None:
    key, value = encode_legacy(announcement)
    read, dialect = decode(key, [], value)
    assert dialect == DIALECT_KAFKA_ML
    read.message_id = announcement.message_id
    assert read == announcement


def test_a_message_of_kafka_ml_is_read() -> None:
    announcement = legacy(RAW_MESSAGE)
    assert announcement.deployment_id == 7
    assert format_ranges(announcement.ranges) == "mnist:0:0:70000"
    assert announcement.input_format == DATA_FORMAT_RAW
    assert dict(announcement.input_config) == RAW_MESSAGE["input_config"]
    assert (announcement.validation_rate, announcement.test_rate) == (0.1, 0.05)
    assert announcement.record_count == 70000
    assert announcement.restrictions == "{}"
    assert not announcement.incremental


def test_a_config_may_be_a_text_and_a_schema_an_object() -> None:
    announcement = legacy(AVRO_MESSAGE, (300).to_bytes(2, "big"))
    assert announcement.deployment_id == 300
    assert format_ranges(announcement.ranges) == "copd:0:0:5,copd:1:3:9"
    assert format_ranges(announcement.unsupervised_ranges) == "copd-raw:0:0:100"
    assert json.loads(announcement.input_config["data_scheme"]) == {"type": "record", "name": "d", "fields": []}
    assert announcement.input_config["label_scheme"] == "{}"


def test_a_bare_topic_is_an_incremental_stream() -> None:
    announcement = legacy({**RAW_MESSAGE, "topic": "live"})
    assert announcement.incremental
    assert list(announcement.open_topics) == ["live"]


def test_the_same_message_has_the_same_id_and_another_has_not() -> None:
    assert legacy(RAW_MESSAGE).message_id == legacy(RAW_MESSAGE).message_id
    assert legacy(RAW_MESSAGE).message_id != legacy(RAW_MESSAGE, b"\x08").message_id


# What Kafka-ML's back-end writes when a person sends a data source again from its pages: the fields that it keeps, in
# the order of its serializer; the rates as numbers that have been through a browser.
SENT_AGAIN = (
    b'{"input_format": "RAW", "input_config": {"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", '
    b'"label_reshape": null}, "description": "d\\u00edgitos", "topic": "mnist:0:0:60000,mnist:1:5:10005", '
    b'"validation_rate": 0.1, "test_rate": 0, "total_msg": 70000}'
)
AVRO_SENT_AGAIN = (
    b'{"input_format": "AVRO", "input_config": {"data_scheme": "{\\"type\\": \\"int\\"}", "label_scheme": '
    b'"{\\"type\\": \\"long\\"}"}, "description": "", "topic": "copd:0:0:9", "validation_rate": 0.15, '
    b'"test_rate": 0.125, "total_msg": 9}'
)
ONLINE_SENT_AGAIN = (
    b'{"input_format": "RAW", "input_config": {"data_type": "float64", "label_type": "int64", "data_reshape": "8", '
    b'"label_reshape": "1"}, "description": "", "topic": "live", "validation_rate": 0.1, "test_rate": 0, '
    b'"total_msg": null}'
)


@pytest.mark.parametrize("value", [SENT_AGAIN, AVRO_SENT_AGAIN, ONLINE_SENT_AGAIN])
def test_a_message_that_is_sent_again_is_byte_for_byte_kafka_mls(value: bytes) -> None:
    announcement, dialect = decode(b"\x07", None, value)
    assert dialect == DIALECT_KAFKA_ML
    announcement.deployment_id = 9
    assert encode_legacy(announcement) == (b"\x09", value)


def test_what_kafka_ml_would_lose_is_sent_again_behind_what_it_sends() -> None:
    announcement = legacy({**AVRO_MESSAGE, "dataset_restrictions": {"region": "eu"}, "incremental": True})
    _, value = encode_legacy(announcement)
    sent = json.loads(value)
    assert list(sent)[7:] == ["unsupervised_topic", "dataset_restrictions", "incremental"]
    assert sent["unsupervised_topic"] == "copd-raw:0:0:100"
    assert (json.loads(sent["dataset_restrictions"]), sent["incremental"]) == ({"region": "eu"}, True)


# The values that Kafka-ML's sinks give to the keys of their messages, and what is to be understood.
RAW_CONFIG = {"data_type": "uint8", "label_type": "uint8", "data_reshape": "28 28", "label_reshape": ""}
CLOSED = {
    "topic": "t:0:0:5,t:1:0:7", "unsupervised_topic": None, "input_format": "RAW", "description": "",
    "dataset_restrictions": {}, "input_config": RAW_CONFIG, "validation_rate": 0, "test_rate": 0, "total_msg": 12,
    "incremental": False,
}  # fmt: skip
ONLINE = {
    "topic": "t", "unsupervised_topic": None, "input_format": "RAW", "description": "", "input_config": RAW_CONFIG,
    "validation_rate": 0.1, "test_rate": 0, "total_msg": None, "dataset_restrictions": {}, "incremental": True,
}  # fmt: skip
AVRO_CONFIG = {"data_scheme": '{"type": "int"}', "label_scheme": '{"type": "int"}'}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(CLOSED, StreamAnnouncement(restrictions="{}", record_count=12), id="RawSink"),
        pytest.param(
            {**CLOSED, "dataset_restrictions": '{"labels": "0-9"}'},
            StreamAnnouncement(restrictions='{"labels": "0-9"}', record_count=12),
            id="FederatedRawSink",
        ),
        pytest.param(
            {**CLOSED, "input_config": {**RAW_CONFIG, "label_reshape": None, "data_reshape": None}},
            StreamAnnouncement(
                restrictions="{}", record_count=12, input_config={"data_type": "uint8", "label_type": "uint8"}
            ),
            id="RawSink-without-shapes",
        ),
        pytest.param(
            {**CLOSED, "unsupervised_topic": "u:0:0:100"},
            StreamAnnouncement(restrictions="{}", record_count=12, unsupervised_ranges=[a_range("u", 0, 0, 100)]),
            id="RawSink-unsupervised",
        ),
        pytest.param(
            {**CLOSED, "input_format": "AVRO", "input_config": AVRO_CONFIG},
            StreamAnnouncement(
                restrictions="{}", record_count=12, input_format=DATA_FORMAT_AVRO, input_config=AVRO_CONFIG
            ),
            id="AvroSink",
        ),
        pytest.param(
            ONLINE,
            StreamAnnouncement(restrictions="{}", open_topics=["t"], incremental=True, validation_rate=0.1),
            id="OnlineRawSink",
        ),
        pytest.param(
            {**ONLINE, "topic": "t:0:0:5,t:1:0:7", "unsupervised_topic": "u", "total_msg": 12},
            StreamAnnouncement(
                restrictions="{}",
                incremental=True,
                validation_rate=0.1,
                record_count=12,
                unsupervised_open_topics=["u"],
            ),
            id="OnlineRawSink-unsupervised",
        ),
        pytest.param(
            {**CLOSED, "input_config": json.dumps(RAW_CONFIG)},
            StreamAnnouncement(restrictions="{}", record_count=12),
            id="input_config-as-text",
        ),
        pytest.param(
            {**CLOSED, "unsupervised_topic": ""},
            StreamAnnouncement(restrictions="{}", record_count=12),
            id="unsupervised_topic-empty",
        ),
    ],
)
@pytest.mark.parametrize(("key", "deployment_id"), [(b"\x01", 1), (b"\x01\x2c", 300), (b"1", 49)])
def test_every_sink_of_kafka_ml_is_understood(
    body: dict[str, object], expected: StreamAnnouncement, key: bytes, deployment_id: int
) -> None:
    read = legacy(body, key)
    wanted = StreamAnnouncement(deployment_id=deployment_id, message_id=read.message_id)
    wanted.MergeFrom(expected)
    wanted.input_format = wanted.input_format or DATA_FORMAT_RAW
    if not wanted.open_topics:
        wanted.ranges.extend([a_range("t", 0, 0, 5), a_range("t", 1, 0, 7)])
    if not wanted.input_config:
        wanted.input_config.update(RAW_CONFIG)
    assert read == wanted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"topic": "mnist:0:10:5"}, "INVALID_RANGE"),
        ({"topic": "mnist:0:0:10,mnist:0:5:20"}, "INVALID_RANGE"),
        ({"topic": "mnist:0:0:99999999999999999999"}, "INVALID_RANGE"),
        ({"topic": ""}, "INVALID_FIELD"),
        ({"topic": None}, "INVALID_FIELD"),
        ({"topic": 5}, "INVALID_FIELD"),
        ({"topic": "mnist:0:70000"}, "INVALID_RANGE"),
        ({"topic": "mnist:-1:0:5"}, "INVALID_RANGE"),
        ({"topic": "mnist:0:-5:5"}, "INVALID_RANGE"),
        ({"topic": "a b"}, "INVALID_RANGE"),
        ({"topic": ".."}, "INVALID_FIELD"),
        ({"test_rate": math.inf}, "MALFORMED_REQUEST"),
        ({"validation_rate": 1}, "INVALID_FIELD"),
        ({"validation_rate": -0.1}, "INVALID_FIELD"),
        ({"validation_rate": 0.6, "test_rate": 0.5}, "INVALID_FIELD"),
        ({"validation_rate": "0.5"}, "INVALID_FIELD"),
        ({"validation_rate": 10**400}, "INVALID_FIELD"),
        ({"validation_rate": math.nan}, "MALFORMED_REQUEST"),
        ({"total_msg": -1}, "INVALID_FIELD"),
        ({"total_msg": 2**63}, "INVALID_FIELD"),
        ({"input_format": "XML"}, "INVALID_FORMAT"),
        ({"input_config": [1]}, "INVALID_FIELD"),
        ({"input_config": "not json"}, "MALFORMED_REQUEST"),
        ({"description": "\ud800"}, "MALFORMED_REQUEST"),
    ],
)
def test_a_wrong_message_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        legacy({**RAW_MESSAGE, **change})
    assert caught.value.reason_name == reason


@pytest.mark.parametrize("key", [None, b"", b"\xff" * 8, b"\x01" * 20])
def test_a_key_that_is_no_id_is_refused(key: bytes | None) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(key, None, json.dumps(RAW_MESSAGE).encode())
    assert caught.value.reason_name == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b"1" * 10_000,
        b" " * 10_000_000,
    ],
)
def test_a_value_that_is_no_object_is_refused(value: bytes | None) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(b"\x01", [("traceparent", b"00-1")], value)
    assert caught.value.reason_name == "MALFORMED_REQUEST"


@pytest.mark.parametrize("name", [b"headrace.v2.StreamAnnouncement", b"", b"\xff"])
def test_a_message_of_a_later_version_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(b"\x01", [("headrace-message", name)], b"")
    assert caught.value.reason_name == "MALFORMED_REQUEST"


def test_every_bad_field_of_ours_is_named_at_once() -> None:
    announcement = StreamAnnouncement(
        deployment_id=-1,
        ranges=[a_range("t", 0, 9, 5), a_range("t", -1, 0, 5)],
        open_topics=["no topic"],
        validation_rate=math.nan,
    )
    headers, value = encode(announcement)
    with pytest.raises(InvalidArgument) as caught:
        decode(None, headers, value)
    assert caught.value.reason_name == "INVALID_RANGE"
    assert [bad.field for bad in caught.value.fields] == [
        "ranges[0]", "ranges[1]", "validation_rate", "deployment_id", "message_id", "open_topics[0]", "input_format",
    ]  # fmt: skip


def test_a_message_as_large_as_the_catalog_takes_none_is_refused() -> None:
    too_large = {**RAW_MESSAGE, "description": "x" * 1024 * 1024}
    grows = {**RAW_MESSAGE, "description": "\u00e9" * 600 * 1024}  # two bytes each, where JSON may have had one
    for body in (too_large, grows):
        with pytest.raises(InvalidArgument) as caught:
            decode(b"\x01", None, json.dumps(body, ensure_ascii=False).encode())
        assert caught.value.reason_name == "MALFORMED_REQUEST"
    headers, value = encode(StreamAnnouncement(message_id="m", description="x" * 1024 * 1024))
    with pytest.raises(InvalidArgument):
        decode(None, headers, value)


@given(st.binary(max_size=200), st.booleans())
def test_bytes_are_a_message_or_refused(value: bytes, ours: bool) -> None:
    headers = [("headrace-message", b"headrace.v1.StreamAnnouncement")] if ours else []
    with pytest.raises(InvalidArgument):
        decode(b"\x01", headers, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*RAW_MESSAGE, "unsupervised_topic", "incremental"]), json_values))
def test_any_object_is_a_message_or_refused(change: dict[str, object]) -> None:
    reason, announcement = "", None
    try:
        announcement = legacy({**RAW_MESSAGE, **change})
    except InvalidArgument as error:
        reason = error.reason_name
    if announcement is None:
        assert reason in ("MALFORMED_REQUEST", "INVALID_RANGE", "INVALID_FIELD", "INVALID_FORMAT")
    else:
        assert announcement.ranges or announcement.open_topics
