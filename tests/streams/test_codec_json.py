import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import DATA_FORMAT_JSON
from streams.codecs import Codec, codec_for


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def codec(**config: str) -> Codec:
    return codec_for(DATA_FORMAT_JSON, config)


@pytest.mark.parametrize(
    ("config", "record", "row"),
    [
        ({}, 1.5, np.float32(1.5)),
        ({}, [1, 2, 3], np.array([1, 2, 3], np.float32)),
        ({"data_type": "uint8"}, [[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], np.uint8)),
        ({"data_type": "uint8", "data_reshape": "2 2"}, [1, 2, 3, 4], np.array([[1, 2], [3, 4]], np.uint8)),
        ({"data_reshape": "4"}, [[1, 2], [3, 4]], np.array([1, 2, 3, 4], np.float32)),
        ({}, {"a": 1, "b": 2.5}, np.array([1, 2.5], np.float32)),
        ({}, {"a": 1, "b": True}, np.array([1, 1], np.float32)),
        ({"data_fields": "b a"}, {"a": 1, "b": 2}, np.array([2, 1], np.float32)),
        ({"data_fields": '["b b", "a"]'}, {"a": 1, "b b": 2}, np.array([2, 1], np.float32)),
        ({}, {"a": [[1, 2]], "b": {"c": 3, "d": [4]}}, np.array([1, 2, 3, 4], np.float32)),
        ({"data_type": "int64"}, {"id": 2**60 + 1}, np.int64(2**60 + 1)),
        ({"data_type": "int64"}, [2**60 + 1, 2.0], np.array([2**60 + 1, 2])),
        ({"data_type": "bool"}, [True, False], np.array([True, False])),
        ({"data_type": "uint64"}, [2**64 - 1], np.array([2**64 - 1], np.uint64)),
        ({"data_type": "double"}, 0.1, np.float64(0.1)),
    ],
)
def test_a_record_becomes_a_row(config: dict[str, str], record: Any, row: Any) -> None:
    reading = codec(**config)
    decoded = reading.decode_samples([text(record)] * 3)
    assert not decoded.bad
    np.testing.assert_array_equal(decoded.rows, np.array([row] * 3))
    assert decoded.rows.dtype == row.dtype
    assert reading.sample_spec.shape == row.shape


def test_the_form_of_the_first_records_stays() -> None:
    first = codec()
    first.decode_samples([text({"width": 1, "pixels": [1, 2], "more": {"age": 3}})])
    assert first.config["data_fields"] == "width pixels more.age"
    assert first.config["data_shapes"] == "- 2 -"
    for reading in (first, codec_for(DATA_FORMAT_JSON, first.config)):
        decoded = reading.decode_samples([text({"more": {"age": 3}, "pixels": [1, 2], "width": 7}), text([1, 2, 3, 4])])
        assert decoded.rows.tolist() == [[7, 1, 2, 3]]
        assert [one.index for one in decoded.bad] == [1]
        assert [(field.name, field.start, field.stop) for field in reading.fields] == [
            ("width", 0, 1),
            ("pixels", 1, 3),
            ("more.age", 3, 4),
        ]


def test_an_open_length_is_that_of_most_records() -> None:
    reading = codec()
    decoded = reading.decode_samples([b"[1]", b"[1, 2]", b"[3, 4]", b"[]"])
    assert decoded.good.tolist() == [1, 2]
    assert reading.sample_spec.shape == (2,)


@pytest.mark.parametrize(
    ("keys", "labels", "dtype"),
    [
        ([b"1", b"2"], [1, 2], "int64"),
        ([b"1", b"2.5"], [1, 2.5], "float32"),
        ([b'{"class": 1}', b'{"class": 0}'], [1, 0], "int64"),
        ([b"[0, 1]", b"[1, 0]"], [[0, 1], [1, 0]], "int64"),
    ],
)
def test_labels_have_the_type_of_the_first_batch(keys: list[bytes], labels: list[Any], dtype: str) -> None:
    reading = codec(label_type="auto")
    decoded = reading.decode_labels(keys)
    assert decoded.rows.tolist() == labels
    assert decoded.rows.dtype == dtype
    assert reading.config["label_type"] == dtype


@pytest.mark.parametrize("key", [{"label_type": "int8"}, {"label_fields": "class"}, {"label_reshape": "2"}])
def test_records_have_labels_where_the_config_says_anything_of_them(key: dict[str, str]) -> None:
    assert codec().label_spec is None
    assert codec(**key).label_spec is not None


@pytest.mark.parametrize(
    ("good", "record", "reason"),
    [
        (b"[1, 2]", None, "no value"),
        (b"[1, 2]", b"", "no JSON"),
        (b"[1, 2]", b"[1, 2", "no JSON"),
        (b"[1, 2]", b"[1, 2] 3", "no JSON"),
        (b"[1, 2]", b"\xff\xfe", "no JSON"),
        (b"[1, 2]", b"\xef\xbb\xbf[1, 2]", "byte order mark"),
        (b"[1, 2]", b"[NaN, 1]", "NaN"),
        (b"[1, 2]", b"[Infinity, 1]", "Infinity"),
        (b"[1, 2]", b"[1e400, 1]", "cannot hold"),
        (b"[1, 2]", b"[1e39, 1]", "float32 cannot hold"),
        (b"[1, 2]", b'["1", "2"]', "other things than numbers"),
        (b"[1, 2]", b"[1, null]", "other things than numbers"),
        (b"[1, 2]", b"[1, [2]]", "other things than numbers"),
        (b"[1, 2]", b"[1, 2, 3]", "shape (3,)"),
        (b"[1, 2]", b"[[1], [2, 3]]", "uneven"),
        (b"[1, 2]", b'{"a": 1, "b": 2}', "object"),
        (b"[1, 2]", b"true false", "no JSON"),
        (b"[1, 2]", b'"text"', "a text"),
        (b"[1, 2]", b"null", "null"),
        (b"[1, 2]", b"[" * 10_000, "deep"),
        (b"[1, 2]", b"[" * 10_000 + b"]" * 10_000, "deep"),
        (b"[1, 2]", b"[" * 65 + b"1" + b"]" * 65, "deep"),
        (b"[1, 2]", b'{"a":' * 10_000, "deep"),
        (b"[1, 2]", b"[" + b"1," * 5_000_000 + b"1]", "10000003 bytes"),
        (b'{"a": 1, "b": 2}', b'{"a": 1}', "lacks the fields b"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2, "c": 3}', "unknown fields c"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "a": 1, "b": 2}', "twice"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2, "\\u0061": 3}', "twice"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": "2"}', "the field b is a text"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": [2]}', "the field b has the shape (1,)"),
        (b'{"a": 1, "b": 2}', b'{"a": 1, "b": {}}', "lacks the fields b"),
        (b'{"a": 1, "b": 2}', b'{"a.b": 1, "b": 2}', "dot"),
        (b'{"a": 1, "b": 2}', b"[1, 2]", "no object"),
        (b'{"a": {"b": 1}, "c": 2}', b'{"a": {"b": 1, "b": 1}, "c": 2}', "twice"),
        (b'{"a": {"b": 1}, "c": 2}', b'{"a": 1, "c": 2}', "lacks the fields a.b"),
    ],
)
def test_a_bad_record_has_its_reason_and_the_others_go_on(good: bytes, record: bytes | None, reason: str) -> None:
    reading = codec()
    assert not reading.decode_samples([good] * 2).bad
    started = time.process_time()
    decoded = reading.decode_samples([good, record, good])
    assert time.process_time() - started < 2
    assert decoded.good.tolist() == [0, 2]
    assert len(decoded.rows) == 2
    (bad,) = decoded.bad
    assert bad.index == 1
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("data_type", "record"),
    [
        ("uint8", b"[256]"),
        ("uint8", b"[-1]"),
        ("int8", b"[1.5]"),
        ("int64", b"[9223372036854775808]"),
        ("int64", b"[1e300]"),
        ("uint64", b"[18446744073709551616]"),
        ("bool", b"[2]"),
        ("float16", b"[100000]"),
        ("float64", b"[1" + b"0" * 400 + b"]"),
    ],
)
def test_a_number_that_the_type_cannot_hold_is_bad(data_type: str, record: bytes) -> None:
    decoded = codec(data_type=data_type, data_reshape="1").decode_samples([b"[1]", record])
    assert decoded.rows.tolist() == [[1]]
    assert "cannot hold" in decoded.bad[0].reason


NUMBERS = st.one_of(st.booleans(), st.integers(), st.floats(), st.none(), st.text(max_size=3))
VALUES = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), inner)
)


@settings(deadline=None)
@given(
    st.lists(st.one_of(VALUES.map(text), st.binary(max_size=8), st.none()), max_size=6),
    st.sampled_from(["int8", "float32"]),
)
@example([b'{"a": 1, "": {"a": 2}}'], "int8")
def test_any_bytes_are_rows_or_bad(records: list[bytes | None], data_type: str) -> None:
    reading = codec(data_type=data_type, label_type="auto")
    for decode in (reading.decode_samples, reading.decode_labels) * 2:
        decoded = decode(records)
        assert sorted([*decoded.good.tolist(), *(one.index for one in decoded.bad)]) == list(range(len(records)))
        assert len(decoded.rows) == len(decoded.good)
    again = codec_for(DATA_FORMAT_JSON, reading.config)
    if reading.sample_spec.is_known:
        np.testing.assert_array_equal(again.decode_samples(records).rows, reading.decode_samples(records).rows)


@settings(deadline=None)
@given(st.data())
def test_one_bad_record_changes_nothing_of_the_others(data: st.DataObject) -> None:
    # A batch of like records is read as a whole, one with a bad record each by itself: both alike.
    number = st.one_of(
        st.integers(-(2**70), 2**70), st.floats(width=16, allow_nan=False, allow_infinity=False), st.booleans()
    )
    records = [
        text(row) for row in data.draw(st.lists(st.lists(number, min_size=2, max_size=2), min_size=1, max_size=4))
    ]
    config = {
        "data_type": data.draw(st.sampled_from(["int64", "uint8", "float32", "float64", "bool"])),
        "data_reshape": "2",
    }
    whole = codec(**config).decode_samples(records)
    parts = codec(**config).decode_samples([*records, b"x"])
    np.testing.assert_array_equal(whole.rows, parts.rows)
    assert whole.good.tolist() == parts.good.tolist()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"data_type": "text"}, "data_type"),
        ({"data_type": "complex64"}, "data_type"),
        ({"data_type": "auto"}, "data_type"),
        ({"label_type": "object"}, "label_type"),
        ({"data_fields": "a b a"}, "data_fields"),
        ({"data_fields": "a a.b"}, "data_fields"),
        ({"data_fields": "[1]"}, "data_fields"),
        ({"data_fields": "[" * 5000}, "data_fields"),
        ({"data_fields": "a b", "data_reshape": "2"}, "data_reshape"),
        ({"data_fields": "a b", "data_shapes": "2"}, "data_shapes"),
        ({"data_reshape": "2 x"}, "data_reshape"),
        ({"label_reshape": "0"}, "label_reshape"),
    ],
)
def test_a_wrong_config_names_the_field(config: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec(**config)
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == [field]
    assert "float32" in caught.value.metadata["known_types"]


def test_what_json_cannot_carry_is_not_sent() -> None:
    for number in (np.nan, np.inf):
        with pytest.raises(InvalidArgument) as caught:
            codec().encode_samples(np.array([1.0, number], np.float32))
        assert caught.value.reason_name == "SCHEMA_MISMATCH"


def test_objects_in_objects_are_written_as_they_are_read() -> None:
    writing = codec(data_fields="a.x a.y b", data_shapes="- 2 -")
    records = writing.encode_samples(np.array([[1, 2, 3, 4]], np.float32))
    assert json.loads(records[0]) == {"a": {"x": 1, "y": [2, 3]}, "b": 4}
    assert writing.decode_samples(records).rows.tolist() == [[1, 2, 3, 4]]


def test_it_needs_the_base_install_only() -> None:
    script = """
import sys
sys.modules["orjson"] = None
from headrace.v1.stream_pb2 import DATA_FORMAT_JSON
from streams.codecs import codec_for
codec = codec_for(DATA_FORMAT_JSON, {"data_type": "float64"})
good = b'{"a": 1, "b": 2.5}'
assert codec.decode_samples([good] * 2).rows.tolist() == [[1, 2.5]] * 2
for bad in (b'{"a": NaN, "b": 1}', b'{"a": 1, "a": 1, "b": 1}', b'[' * 100000, b'\\xff'):
    assert codec.decode_samples([good, bad]).good.tolist() == [0], bad
assert codec.encode_samples(codec.decode_samples([good]).rows) == [b'{"a":1.0,"b":2.5}']
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
