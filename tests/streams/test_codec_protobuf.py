import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import DATA_FORMAT_PROTOBUF
from streams.codecs import Codec, codec_for

Field = descriptor_pb2.FieldDescriptorProto
REPEATED = Field.LABEL_REPEATED


def file_of(
    messages: dict[str, Sequence[tuple[Any, ...]]], *, name: str = "t.proto", syntax: str = "proto3"
) -> descriptor_pb2.FileDescriptorProto:
    """Messages by name, of fields (name, type or message, label)."""
    file = descriptor_pb2.FileDescriptorProto(name=name, package="t", syntax=syntax)
    file.enum_type.add(name="Colour").value.extend(
        [
            descriptor_pb2.EnumValueDescriptorProto(name=text, number=number)
            for number, text in enumerate(["RED", "BLUE"])
        ]
    )
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (field_name, kind, *label) in enumerate(fields, start=1):
            field = message.field.add(name=field_name, number=number, label=label[0] if label else Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type = Field.TYPE_ENUM if kind == "Colour" else Field.TYPE_MESSAGE
                field.type_name = f".t.{kind}"
            else:
                field.type = kind
    return file


def text_of(*files: descriptor_pb2.FileDescriptorProto) -> str:
    return base64.b64encode(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()).decode()


def made(file: descriptor_pb2.FileDescriptorProto, name: str, **values: Any) -> bytes:
    pool = DescriptorPool()
    pool.Add(file)
    message: Message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))(**values)
    return message.SerializeToString()


def codec(file: descriptor_pb2.FileDescriptorProto, message: str = "t.M", **config: str) -> Codec:
    return codec_for(DATA_FORMAT_PROTOBUF, {"descriptor_set": text_of(file), "data_message": message, **config})


NUMBERS = {
    Field.TYPE_DOUBLE: ("float64", 1.1),
    Field.TYPE_FLOAT: ("float32", 1.5),
    Field.TYPE_INT32: ("int32", -(2**31)),
    Field.TYPE_INT64: ("int64", -(2**63)),
    Field.TYPE_UINT32: ("uint32", 2**32 - 1),
    Field.TYPE_UINT64: ("uint64", 2**64 - 1),
    Field.TYPE_SINT32: ("int32", -5),
    Field.TYPE_SINT64: ("int64", 2**63 - 1),
    Field.TYPE_FIXED32: ("uint32", 2**32 - 1),
    Field.TYPE_FIXED64: ("uint64", 2**64 - 1),
    Field.TYPE_SFIXED32: ("int32", -7),
    Field.TYPE_SFIXED64: ("int64", -(2**62) - 1),
    Field.TYPE_BOOL: ("bool", True),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_kind_of_number_keeps_its_type(kind: Any) -> None:
    dtype, value = NUMBERS[kind]
    file = file_of({"M": [("a", kind)], "V": [("a", kind, REPEATED)]})
    decoded = codec(file).decode_samples([made(file, "M", a=value), b""])
    assert (decoded.rows.dtype, decoded.rows.tolist()) == (np.dtype(dtype), [value, 0])
    vectors = codec(file, "t.V").decode_samples([made(file, "V", a=[value, 0, value])])
    assert (vectors.rows.dtype, vectors.rows.tolist()) == (np.dtype(dtype), [[value, 0, value]])


MIXED = file_of(
    {
        "Point": [("x", Field.TYPE_FLOAT), ("y", Field.TYPE_DOUBLE)],
        "M": [
            ("pixels", Field.TYPE_BYTES),
            ("at", "Point"),
            ("colour", "Colour"),
            ("sizes", Field.TYPE_INT32, REPEATED),
            ("is_big", Field.TYPE_BOOL),
        ],
        "L": [("label", Field.TYPE_INT32)],
    }
)


def test_a_message_of_several_fields_is_one_row() -> None:
    reading = codec(MIXED, label_message="t.L")
    assert not reading.sample_spec.is_known
    full = made(MIXED, "M", pixels=b"\1\xff", at={"x": 0.5, "y": 0.1}, colour=1, sizes=[7, 8, 9], is_big=True)
    decoded = reading.decode_samples([full, made(MIXED, "M", pixels=b"\0\0", sizes=[1, 2, 3])])
    assert decoded.rows.tolist() == [[1, 255, 0.5, 0.1, 1, 7, 8, 9, 1], [0, 0, 0, 0, 0, 1, 2, 3, 0]]
    assert [field.name for field in reading.fields] == ["pixels", "at.x", "at.y", "colour", "sizes", "is_big"]
    assert reading.decode_labels([made(MIXED, "L", label=3), b""]).rows.tolist() == [3, 0]
    assert reading.config["data_shapes"] == "2 - - - 3 -"
    later = codec_for(DATA_FORMAT_PROTOBUF, reading.config)
    assert (later.sample_spec, later.fields, later.label_spec) == (
        reading.sample_spec,
        reading.fields,
        reading.label_spec,
    )
    assert later.encode_samples(decoded.rows[:1]) == [full]


def test_each_bad_record_has_its_reason_and_the_others_go_on() -> None:
    reading = codec(MIXED)
    good = made(MIXED, "M", pixels=b"\1\2", sizes=[1, 2])
    reading.decode_samples([good, good, made(MIXED, "M", pixels=b"\1", sizes=[1])])
    bad = [
        None,
        b"\xff",
        good + b"\x0a\x7f",
        b"\x0a" + b"\xff" * 20,
        good[:-1],
        made(MIXED, "M", pixels=b"\1\2"),
        made(MIXED, "M", pixels=b"\1\2\3", sizes=[1, 2]),
        b"\x12" + b"\xff\xff\xff\xff\x0f" + good,
        b"\x0b" * 10_000,
        b"",
    ]
    decoded = reading.decode_samples([good, *bad, good])
    assert decoded.good.tolist() == [0, len(bad) + 1]
    assert [one.index for one in decoded.bad] == list(range(1, len(bad) + 1))
    reasons = [one.reason for one in decoded.bad]
    assert "no value" in reasons[0]
    assert "no message t.M" in reasons[1]
    assert "0 numbers in the field sizes, where others have 2" in reasons[5]
    assert "3 numbers in the field pixels" in reasons[6]


def test_a_required_field_that_is_missing_is_bad() -> None:
    file = file_of({"M": [("a", Field.TYPE_INT32, Field.LABEL_REQUIRED)]}, syntax="proto2")
    decoded = codec(file).decode_samples([made(file, "M", a=1), b""])
    assert decoded.rows.tolist() == [1]
    assert "required fields a" in decoded.bad[0].reason


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), max_size=8))
def test_any_bytes_are_rows_or_bad(records: list[bytes | None]) -> None:
    reading = codec(MIXED)
    for _ in range(2):
        decoded = reading.decode_samples(records)
        assert sorted([*decoded.good.tolist(), *(one.index for one in decoded.bad)]) == list(range(len(records)))
        assert len(decoded.rows) == len(decoded.good)


TREE = {f"T{level}": [("left", f"T{level - 1}"), ("right", f"T{level - 1}")] for level in range(1, 40)}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ({"M": []}, "no fields"),
        ({"M": [("a", Field.TYPE_INT32), ("name", Field.TYPE_STRING)]}, "name: the type string"),
        ({"M": [("a", Field.TYPE_BYTES, REPEATED)]}, "a: a repeated bytes"),
        ({"M": [("a", "N", REPEATED)], "N": [("b", Field.TYPE_INT32)]}, "a: a repeated message"),
        ({"M": [("a", "N")], "N": [("b", Field.TYPE_STRING)]}, "a.b: the type string"),
        ({"M": [("a", "M")]}, "a: the message t.M in itself"),
        ({"M": [("a", "T39")], "T0": [("x", Field.TYPE_INT32)], **TREE}, "more than 4096 fields"),
        ({"N": [("b", Field.TYPE_INT32)]}, "'t.M' is no message of the descriptor set, which has t.N"),
    ],
)
def test_a_message_of_other_things_names_the_field(messages: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec(file_of(messages))
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == ["data_message"]
    assert text in caught.value.fields[0].description


MISSING_IMPORT = descriptor_pb2.FileDescriptorProto(name="t.proto", dependency=["google/protobuf/timestamp.proto"])
CIRCLE = [descriptor_pb2.FileDescriptorProto(name=name, dependency=[other]) for name, other in [("a", "b"), ("b", "a")]]
WRONG_TYPE = file_of({"M": [("a", "Nowhere")]})


@pytest.mark.parametrize(
    ("descriptor_set", "text"),
    [
        ("", "0 files"),
        ("no base64!", "base64"),
        (base64.b64encode(b"\xff" * 9).decode(), "no serialized FileDescriptorSet"),
        ("A" * 2_000_000, "2000000 characters"),
        (text_of(MISSING_IMPORT), "include_imports"),
        (text_of(*CIRCLE), "circle"),
        (text_of(WRONG_TYPE), "cannot be built"),
    ],
)
def test_a_descriptor_set_that_is_none_is_refused(descriptor_set: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec_for(DATA_FORMAT_PROTOBUF, {"descriptor_set": descriptor_set, "data_message": "t.M"})
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == ["descriptor_set"]
    assert text in caught.value.fields[0].description


def test_files_may_come_in_any_order() -> None:
    inner = file_of({"Point": [("x", Field.TYPE_INT32)]}, name="inner.proto")
    outer = descriptor_pb2.FileDescriptorProto(
        name="outer.proto", package="t", syntax="proto3", dependency=["inner.proto"]
    )
    outer.message_type.add(name="M").field.add(
        name="at", number=1, type=Field.TYPE_MESSAGE, type_name=".t.Point", label=1
    )
    config = {"descriptor_set": text_of(outer, inner), "data_message": ".t.M"}
    assert codec_for(DATA_FORMAT_PROTOBUF, config).decode_samples([b"\x0a\x02\x08\x07"]).rows.tolist() == [7]
