from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO, DATA_FORMAT_JSON, DATA_FORMAT_PROTOBUF, DATA_FORMAT_RAW
from streams.codecs import Array, Codec, Rows, codec_for, codec_of

NUMBERS = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip


def raw(**config: str) -> Codec:
    return codec_for(DATA_FORMAT_RAW, config)


@given(st.data())
def test_rows_of_any_type_and_shape_survive_the_log(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(NUMBERS)))
    shape = data.draw(arrays.array_shapes(max_dims=4, max_side=4))
    rows = data.draw(arrays.arrays(dtype, (data.draw(st.integers(1, 5)), *shape)))
    codec = raw(data_type=dtype.name, data_reshape=" ".join(map(str, shape)))
    decoded = codec.decode_samples(codec.encode_samples(rows))
    np.testing.assert_array_equal(decoded.rows, rows)
    assert (decoded.rows.dtype, decoded.rows.shape) == (dtype, rows.shape)
    assert not decoded.bad


@pytest.mark.parametrize(
    ("alias", "dtype"),
    [
        ("half", "float16"),
        ("float", "float32"),
        ("double", "float64"),
        ("bool", "bool"),
        ("f4", "float32"),
        ("<i8", "int64"),
    ],
)
def test_kafka_mls_names_mean_its_types(alias: str, dtype: str) -> None:
    assert raw(data_type=alias, data_reshape="3").sample_spec.dtype == np.dtype(dtype)


def test_a_text_is_kept_as_bytes() -> None:
    codec = raw(data_type="uint8", label_type="string")
    decoded = codec.decode_labels([b"katze", "größe".encode(), b"x" * 65, None])
    assert decoded.rows.tolist() == [b"katze", "größe".encode()]
    assert [bad.index for bad in decoded.bad] == [2, 3]


@pytest.mark.parametrize(
    ("type_name", "reshape", "record", "expected"),
    [
        ("uint8", "", b"\x03", np.array([3], np.uint8)),
        ("uint16", "", b"\x01\x00\x00\x01", np.array([1, 256], np.uint16)),
        ("float32", "", np.arange(6, dtype="<f4").tobytes(), np.arange(6, dtype=np.float32)),
        ("float32", "2 3", np.arange(6, dtype="<f4").tobytes(), np.arange(6, dtype=np.float32).reshape(2, 3)),
        ("float32", "-1 3", np.arange(6, dtype="<f4").tobytes(), np.arange(6, dtype=np.float32).reshape(2, 3)),
        ("float32", "(2, 3)", np.arange(6, dtype="<f4").tobytes(), np.arange(6, dtype=np.float32).reshape(2, 3)),
        ("bool", "", b"\x00\x02\xff", np.array([False, True, True])),
    ],
)
def test_bytes_become_the_row(type_name: str, reshape: str, record: bytes, expected: np.ndarray[Any, Any]) -> None:
    codec = raw(data_type=type_name, data_reshape=reshape)
    (row,) = codec.decode_samples([record]).rows
    np.testing.assert_array_equal(row, expected)
    assert codec.sample_spec.shape == expected.shape


@pytest.mark.parametrize(
    ("records", "bad"),
    [
        ([b"1234", b"123", b"5678"], {1: "3 bytes"}),
        ([b"1234", None, b"", b"56789"], {1: "no value", 2: "0 bytes", 3: "5 bytes"}),
        ([b"123", b"12345"], {0: "3 bytes", 1: "5 bytes"}),  # together as long as two rows
        ([None], {0: "no value"}),
    ],
)
def test_records_of_another_size_are_named_and_the_others_kept(
    records: Sequence[bytes | None], bad: dict[int, str]
) -> None:
    decoded = raw(data_type="int8", data_reshape="2 2").decode_samples(records)
    assert {one.index for one in decoded.bad} == set(bad)
    assert all(bad[one.index] in one.reason for one in decoded.bad)
    assert decoded.good.tolist() == [index for index in range(len(records)) if index not in bad]
    assert decoded.rows.shape == (len(decoded.good), 2, 2)


def test_an_open_length_is_that_of_most_records_and_stays() -> None:
    codec = raw(data_type="float32", label_type="uint8")
    assert not codec.sample_spec.is_known
    first = codec.decode_samples([b"x", bytes(12), bytes(12), bytes(8)])
    assert codec.sample_spec.shape == (3,)
    assert first.good.tolist() == [1, 2]
    assert codec.decode_samples([bytes(8), bytes(12)]).good.tolist() == [1]


def test_a_batch_that_no_open_length_fits_is_all_bad() -> None:
    decoded = raw(data_type="float32").decode_samples([b"123", None, b""])
    assert [one.index for one in decoded.bad] == [0, 1, 2]
    assert len(decoded.rows) == 0


def test_rows_stay_what_they_are_while_others_are_decoded() -> None:
    """Buffers are used again, and never one whose rows are in use, whoever decodes."""
    codec = codec_for(DATA_FORMAT_RAW, {"data_type": "int32", "data_reshape": "4"})

    def decoded(first: int) -> list[tuple[Array, Array]]:
        batches = [np.full((count, 4), first + count, np.int32) for count in range(1, 200)]
        every = [(batch, codec.decode_samples(codec.encode_samples(batch)).rows) for batch in batches]
        return every[::3]  # the rows of the others are not in use any more

    with ThreadPoolExecutor(4) as threads:
        every = [pair for pairs in threads.map(decoded, range(0, 8000, 1000)) for pair in pairs]
    for sent, rows in every:
        assert np.array_equal(rows, sent)


def test_a_stream_without_label_type_has_no_labels() -> None:
    assert raw(data_type="uint8").label_spec is None


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, {"data_type"}),
        ({"data_type": "flat"}, {"data_type"}),
        ({"data_type": "object"}, {"data_type"}),
        ({"data_type": "float128"}, {"data_type"}),
        ({"data_type": "f4,f4"}, {"data_type"}),
        ({"data_type": "uint8", "data_reshape": "28 x"}, {"data_reshape"}),
        ({"data_type": "uint8", "data_reshape": "0 5"}, {"data_reshape"}),
        ({"data_type": "uint8", "data_reshape": "-1 -1"}, {"data_reshape"}),
        ({"data_type": "uint8", "data_reshape": "99999999999 99999999999"}, {"data_reshape"}),
        ({"data_type": "no", "label_type": "no", "data_reshape": "y"}, {"data_type", "data_reshape", "label_type"}),
    ],
)
def test_a_wrong_config_names_every_field(config: dict[str, str], fields: set[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec_for(DATA_FORMAT_RAW, config)
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert {bad.field for bad in caught.value.fields} == fields
    assert "float32" in caught.value.metadata["known_types"]


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_config_is_taken_or_refused(type_name: str, reshape: str) -> None:
    reasons = []
    try:
        raw(data_type=type_name, data_reshape=reshape).decode_samples([b"", b"1234", None])
    except InvalidArgument as error:
        reasons.append(error.reason_name)
    assert reasons in ([], ["INVALID_FORMAT"])


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec_for(99, {})
    assert caught.value.reason_name == "INVALID_FORMAT"


FORMATS = {
    "RAW": DATA_FORMAT_RAW,
    "AVRO": DATA_FORMAT_AVRO,
    "JSON": DATA_FORMAT_JSON,
    "PROTOBUF": DATA_FORMAT_PROTOBUF,
}
with_fields = pytest.mark.parametrize("format_name", ["AVRO", "JSON", "PROTOBUF"])
# What these formats have: neither complex numbers nor texts.
ROW_TYPES = [name for name in NUMBERS if not name.startswith("complex")]


def drawn_rows(data: st.DataObject, count: int, dtype: str | None = None) -> Array:
    dtype_ = np.dtype(dtype or data.draw(st.sampled_from(ROW_TYPES)))
    shape = data.draw(st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 2)]))
    elements: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if dtype_.kind == "f" else {}
    if dtype_ == np.uint64:  # Avro's whole numbers have a sign
        elements = {"max_value": 2**63 - 1}
    return data.draw(arrays.arrays(dtype_, (count, *shape), elements=elements or None))


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_codec_of_rows_decodes_what_it_encodes(format_name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    samples, labels = drawn_rows(data, count), drawn_rows(data, count)
    written = codec_of(FORMATS[format_name], samples, labels)
    reading = codec_for(FORMATS[format_name], written.config)
    for rows, decoded in [
        (samples, reading.decode_samples(written.encode_samples(samples))),
        (labels, reading.decode_labels(written.encode_labels(labels))),
    ]:
        assert not decoded.bad
        np.testing.assert_array_equal(decoded.rows.reshape(rows.shape), rows)
    again = codec_for(FORMATS[format_name], reading.config)
    assert (again.sample_spec, again.label_spec) == (reading.sample_spec, reading.label_spec)


@with_fields
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_fields_become_one_row_in_their_order(format_name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    samples = {
        "height": drawn_rows(data, count, "float32"),
        "pixels": drawn_rows(data, count, "uint8"),
        "age": drawn_rows(data, count, "int16"),
    }
    written = codec_of(FORMATS[format_name], samples)
    reading = codec_for(FORMATS[format_name], written.config)
    decoded = reading.decode_samples(written.encode_samples(samples))
    assert reading.label_spec is None
    assert [field.name for field in reading.fields] == list(samples)
    for field in reading.fields:
        found = decoded.rows[:, field.start : field.stop].astype(field.spec.dtype).reshape(count, *field.spec.shape)
        np.testing.assert_array_equal(found, samples[field.name])
    assert decoded.rows.shape == (count, reading.fields[-1].stop)


@with_fields
def test_rows_of_another_form_are_refused(format_name: str) -> None:
    rows: Rows = {"a": np.zeros(2, np.float32), "b": np.zeros((2, 3), np.int32)}
    codec = codec_of(FORMATS[format_name], rows)
    others: list[Rows] = [
        {"a": np.zeros(2, np.float32)},
        {"a": np.zeros(2, np.float32), "b": np.zeros((2, 4), np.int32)},
        {"a": np.zeros(2, np.float32), "b": np.full((2, 3), 1j)},
        {"a": np.zeros(3, np.float32), "b": np.zeros((2, 3), np.int32)},
        np.zeros((2, 5), np.float32),
    ]
    for other in others:
        with pytest.raises(InvalidArgument) as caught:
            codec.encode_samples(other)
        assert caught.value.reason_name == "SCHEMA_MISMATCH"


@with_fields
def test_a_whole_row_is_split_into_its_fields(format_name: str) -> None:
    columns = {"a": np.arange(3, dtype=np.float32), "b": np.arange(12, dtype=np.int32).reshape(3, 2, 2)}
    codec = codec_of(FORMATS[format_name], columns)
    matrix = np.concatenate([column.reshape(3, -1) for column in columns.values()], axis=1)
    assert codec.encode_samples(matrix) == codec.encode_samples(columns)
