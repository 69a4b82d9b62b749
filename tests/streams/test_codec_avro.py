"""Avro against fastavro, which reads record by record."""

import io
import json
import time
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO
from sinks.rows import row_of, rows_of
from streams.codecs import Codec, codec_for, codec_of

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
}


def avro(schema: Any, **config: str) -> Codec:
    return codec_for(DATA_FORMAT_AVRO, {"data_scheme": json.dumps(schema), **config})


def record(*types: Any, name: str = "R") -> dict[str, Any]:
    """A record with the fields a, b, c, …"""
    fields = [
        {"name": "abcdefgh"[index], **(kind if isinstance(kind, dict) and "default" in kind else {"type": kind})}
        for index, kind in enumerate(types)
    ]
    return {"type": "record", "name": name, "fields": fields}


def written(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), value)
    return buffer.getvalue()


def array_of(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


@st.composite
def fields(draw: st.DrawFn, name: str) -> tuple[Any, st.SearchStrategy[Any]]:
    """The schema of a field and its values, all of one shape."""
    kind = draw(st.sampled_from([*SCALARS, "bytes", "fixed", "enum", "array", "nested", "record"]))
    if kind in SCALARS:
        return kind, SCALARS[kind]
    size = draw(st.integers(1, 4))
    if kind == "bytes":
        return "bytes", st.binary(min_size=size, max_size=size)
    if kind == "fixed":
        return {"type": "fixed", "name": f"F{name}", "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "enum":
        symbols = ["X", "Y", "Z"][:size]
        return {"type": "enum", "name": f"E{name}", "symbols": symbols}, st.sampled_from(symbols)
    if kind == "record":
        (inner, values) = draw(fields(name + "i"))
        schema = {"type": "record", "name": f"R{name}", "fields": [{"name": "inner", "type": inner}]}
        return schema, st.fixed_dictionaries({"inner": values})
    item = draw(st.sampled_from(list(SCALARS)))
    values = st.lists(SCALARS[item], min_size=size, max_size=size)
    if kind == "array":
        return array_of(item), values
    outer = draw(st.integers(1, 3))
    return array_of(array_of(item)), st.lists(values, min_size=outer, max_size=outer)


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Any, st.SearchStrategy[Any]]:
    """A record's schema and its values."""
    every = {}
    schema = []
    for name in draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True)):
        kind, values = draw(fields(name))
        # A field in a union has a default, so that null is a value too.
        if isinstance(kind, str) and kind in SCALARS and draw(st.booleans()):
            default = draw(values.filter(np.isfinite))
            schema.append({"name": name, "type": draw(st.permutations(["null", kind])), "default": default})
            every[name] = st.one_of(st.none(), values)
        else:
            schema.append({"name": name, "type": kind})
            every[name] = values
    return {"type": "record", "name": "Drawn", "fields": schema}, st.fixed_dictionaries(every)


def flat(schema: Any, value: Any, default: Any = None) -> list[Any]:
    """The numbers of a record that fastavro has read."""
    if isinstance(schema, list):
        (inner,) = [branch for branch in schema if branch != "null"]
        return flat(inner, default if value is None else value)
    if isinstance(schema, dict) and schema["type"] == "record":
        return [
            number
            for field in schema["fields"]
            for number in flat(field["type"], value[field["name"]], field.get("default"))
        ]
    if isinstance(schema, dict) and schema["type"] == "enum":
        return [schema["symbols"].index(value)]
    if isinstance(schema, dict) and schema["type"] == "array":
        return [number for item in value for number in flat(schema["items"], item)]
    if isinstance(value, bytes):
        return list(value)
    return [value]


def expected_row(schema: Any, value: Any, dtype: np.dtype[Any]) -> Any:
    with np.errstate(over="ignore"):
        return np.array(flat(schema, value)).astype(dtype)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_what_fastavro_reads(data: st.DataObject) -> None:
    schema, values = data.draw(schemas())
    drawn = data.draw(st.lists(values, min_size=1, max_size=6))
    records = [written(schema, value) for value in drawn]
    decoded = avro(schema).decode_samples(records)
    assert not decoded.bad
    for row, record_ in zip(decoded.rows.reshape(len(records), -1), records, strict=True):
        value = fastavro.schemaless_reader(io.BytesIO(record_), fastavro.parse_schema(schema), None)
        np.testing.assert_array_equal(row, expected_row(schema, value, row.dtype))


def broken(record_: bytes, data: st.DataObject) -> bytes:
    """The record with some bytes changed, cut off, put in or taken out."""
    changed = bytearray(record_)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    return bytes(changed)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_broken_record_is_read_as_by_fastavro_or_bad(data: st.DataObject) -> None:
    schema, values = data.draw(schemas())
    good = [written(schema, value) for value in data.draw(st.lists(values, min_size=3, max_size=3))]
    codec = avro(schema)
    codec.decode_samples(good)
    records = [broken(good[index % 3], data) for index in range(5)]
    decoded = codec.decode_samples(records)
    rows = dict(zip(decoded.good.tolist(), map(np.ravel, decoded.rows), strict=True))
    assert sorted([*rows, *(one.index for one in decoded.bad)]) == list(range(5))
    parsed = fastavro.parse_schema(schema)
    for index, record_ in enumerate(records):
        try:
            buffer = io.BytesIO(record_)
            value = fastavro.schemaless_reader(buffer, parsed, None)
            is_whole = buffer.read() == b"" and written(schema, value) == record_ and fastavro.validate(value, parsed)
        except Exception:
            is_whole, value = False, None
        if index in rows and value is not None:
            np.testing.assert_array_equal(rows[index], expected_row(schema, value, rows[index].dtype))
        if is_whole and lengths(value) == lengths(fastavro.schemaless_reader(io.BytesIO(good[0]), parsed, None)):
            assert index in rows


def lengths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: lengths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [len(value), *map(lengths, value)]
    return len(value) if isinstance(value, bytes) else 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_rows_or_bad(data: st.DataObject) -> None:
    schema, _ = data.draw(schemas())
    records = data.draw(st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=8))
    codec = avro(schema)
    for _ in range(2):
        decoded = codec.decode_samples(records)
        assert sorted([*decoded.good.tolist(), *(one.index for one in decoded.bad)]) == list(range(len(records)))
        assert len(decoded.rows) == len(decoded.good)


def varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


FLOATS = np.array([1.5, -2, 3], "<f4")
BLOCKS: dict[str, Callable[[], bytes]] = {
    "one block": lambda: varint(3) + FLOATS.tobytes() + b"\0",
    "two blocks": lambda: varint(1) + FLOATS[:1].tobytes() + varint(2) + FLOATS[1:].tobytes() + b"\0",
    "a block with its size": lambda: varint(-3) + varint(12) + FLOATS.tobytes() + b"\0",
    "both": lambda: varint(2) + FLOATS[:2].tobytes() + varint(-1) + varint(4) + FLOATS[2:].tobytes() + b"\0",
}


@pytest.mark.parametrize("first", BLOCKS)
def test_arrays_may_be_written_in_any_blocks(first: str) -> None:
    codec = avro(record(array_of("float"), "int"))
    records = [BLOCKS[name]() + varint(7) for name in [first, *BLOCKS]]
    decoded = codec.decode_samples(records)
    assert not decoded.bad
    assert decoded.rows.tolist() == [[1.5, -2.0, 3.0, 7.0]] * 5


def test_nested_arrays_of_numbers_may_be_written_in_any_blocks() -> None:
    inner = [
        varint(2) + varint(300) + varint(-1) + b"\0",
        varint(-1) + varint(1) + varint(5) + varint(1) + varint(6) + b"\0",
    ]
    records = [varint(2) + b"".join(inner) + b"\0", varint(1) + inner[1] + varint(1) + inner[0] + b"\0"]
    decoded = avro(array_of(array_of("int"))).decode_samples(records)
    assert decoded.rows.tolist() == [[[300, -1], [5, 6]], [[5, 6], [300, -1]]]


def test_lengths_are_those_of_most_records_of_the_first_batch_and_stay() -> None:
    schema = record(array_of("float"), "bytes")
    values = [{"a": [1.0] * count, "b": b"x" * size} for count, size in [(1, 3), (2, 3), (2, 3), (2, 1)]]
    codec = avro(schema)
    assert not codec.sample_spec.is_known
    decoded = codec.decode_samples([written(schema, value) for value in values])
    assert decoded.good.tolist() == [1, 2]
    assert codec.config["data_shapes"] == "2 3"
    found = [(field.name, field.spec.shape, field.start, field.stop) for field in codec.fields]
    assert found == [
        ("a", (2,), 0, 2),
        ("b", (3,), 2, 5),
    ]
    settled = codec_for(DATA_FORMAT_AVRO, codec.config)
    assert settled.decode_samples([written(schema, values[0])]).bad
    assert settled.sample_spec == codec.sample_spec


def test_bytes_take_the_shape_that_is_asked_for() -> None:
    codec = avro("bytes", data_reshape="2 3")
    decoded = codec.decode_samples([varint(6) + bytes(range(6)), varint(5) + bytes(5)])
    assert decoded.rows.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert [one.index for one in decoded.bad] == [1]


@pytest.mark.parametrize(
    ("union", "default", "null"),
    [(["null", "double"], 2.5, b"\0"), (["double", "null"], 2.5, b"\x02"), (["null", "int"], -1, b"\0")],
)
def test_a_null_is_the_default(union: Any, default: Any, null: bytes) -> None:
    schema = record({"type": union, "default": default}, "int")
    other = written(schema, {"a": 7, "b": 1})
    decoded = avro(schema).decode_samples([other, null + varint(2), other])
    assert decoded.rows.tolist() == [[7, 1], [default, 2], [7, 1]]


@pytest.mark.parametrize("default", [{}, {"default": None}])
def test_a_null_without_a_default_is_bad(default: dict[str, Any]) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "age", "type": ["null", "float"], **default}]}
    decoded = avro(schema).decode_samples([written(schema, {"age": None}), written(schema, {"age": 1.0})])
    assert decoded.rows.tolist() == [1.0]
    assert [one.index for one in decoded.bad] == [0]
    assert "age is null" in decoded.bad[0].reason


def nullable(kind: Any, default: Any) -> dict[str, Any]:
    return {"type": ["null", kind], "default": default}


def test_nulls_are_written_as_fastavro_reads_them_and_become_the_default() -> None:
    schema = record(nullable("double", 2.5), "int", nullable("long", -1), nullable(array_of("float"), [0.0, 0.0]))
    samples = [
        {"a": 1.5, "b": 1, "c": None, "d": [1.0, 2.0]},
        {"a": None, "b": 2, "c": None, "d": None},
        {"a": None, "b": 3, "c": 2**62, "d": [3.0, 4.0]},
        {"a": 0.5, "b": 4, "c": 7, "d": [5.0, 6.0]},
    ]
    codec = avro(schema)
    records = codec.encode_samples(rows_of(samples))
    parsed = fastavro.parse_schema(schema)
    assert [fastavro.schemaless_reader(io.BytesIO(one), parsed, None) for one in records] == samples
    assert avro(schema).decode_samples(records).rows.tolist()[1] == [2.5, 2, -1, 0, 0]
    assert [codec.encode_samples(row_of(one)) for one in samples] == [[one] for one in records]


@pytest.mark.parametrize(
    ("kind", "default", "row"),
    [
        (array_of("float"), [1.0, 2.0], [1, 2]),
        (array_of(array_of("long")), [[5], [6]], [5, 6]),
        ("bytes", "ab", [97, 98]),
    ],
)
def test_a_first_batch_of_nulls_has_the_shape_of_the_default(kind: Any, default: Any, row: list[int]) -> None:
    schema = record("int", nullable(kind, default))
    codec = avro(schema)
    decoded = codec.decode_samples([written(schema, {"a": number, "b": None}) for number in (3, 4)])
    assert not decoded.bad
    assert decoded.rows.tolist() == [[3, *row], [4, *row]]
    value = default.encode() if kind == "bytes" else default
    assert codec.decode_samples([written(schema, {"a": 5, "b": value})]).rows.tolist() == [[5, *row]]


def test_a_single_value_may_be_null() -> None:
    codec = avro(record(nullable("int", 9)))
    assert codec.encode_samples(row_of({"a": None})) == [b"\0"]
    assert codec.decode_samples(codec.encode_samples(rows_of([{"a": None}, {"a": 4}]))).rows.tolist() == [9, 4]


@pytest.mark.parametrize(
    ("field", "values", "told"),
    [
        ("double", [None, 1.0], "a is null, where the schema has double, and no union of it with null"),
        ({"type": ["null", "double"], "default": None}, [None], "a is null, which nobody could read"),
        (nullable(array_of("float"), []), [[1.0, 2.0], None], "that of a null is its default's"),
    ],
)
def test_a_null_that_nobody_could_read_is_not_written(field: Any, values: list[Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told) as caught:
        avro(record(field)).encode_samples(rows_of([{"a": value} for value in values]))
    assert caught.value.reason_name == "SCHEMA_MISMATCH"


def test_a_schema_that_is_found_has_records_for_names_with_dots() -> None:
    rows = rows_of([{"at": {"x": 1.0, "y": {"z": 2}}, "b": True}, {"at": {"x": 3.0, "y": {"z": 4}}, "b": False}])
    codec = codec_of(DATA_FORMAT_AVRO, rows)
    parsed = fastavro.parse_schema(json.loads(codec.config["data_scheme"]))
    (first, _) = codec.encode_samples(rows)
    assert fastavro.schemaless_reader(io.BytesIO(first), parsed, None) == {"at": {"x": 1.0, "y": {"z": 2}}, "b": True}
    assert [field.name for field in codec.fields] == ["at.x", "at.y.z", "b"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"a": np.ones(1), "a.b": np.ones(1)}, "a is a number in some place and a record in another"),
        ({"a.b c": np.ones(1)}, "no fields named 'a.b c'"),
        (rows_of([{"a": None}]), "the field a is null: give a data_scheme"),
    ],
)
def test_rows_that_no_schema_can_be_found_for_are_told(rows: Any, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        codec_of(DATA_FORMAT_AVRO, rows)


def test_a_named_type_is_known_by_its_name() -> None:
    point = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]}
    schema = {
        "type": "record",
        "name": "org.here.Line",
        "fields": [{"name": "from", "type": point}, {"name": "to", "type": "Point"}],
    }
    codec = avro(schema)
    decoded = codec.decode_samples([varint(1) + varint(2) + varint(3) + varint(4)])
    assert decoded.rows.tolist() == [[1, 2, 3, 4]]
    assert [field.name for field in codec.fields] == ["from.x", "from.y", "to.x", "to.y"]


def test_kafka_mls_records_have_a_schema_for_the_value_and_one_for_the_key() -> None:
    data, label = record("float", "float", name="Data"), record("int", name="Label")
    codec = codec_for(
        DATA_FORMAT_AVRO, {"data_scheme": json.dumps(data), "label_scheme": json.dumps(json.dumps(label))}
    )
    assert codec.decode_samples([written(data, {"a": 1.0, "b": 2.0})]).rows.tolist() == [[1.0, 2.0]]
    assert codec.decode_labels([written(label, {"a": 3})]).rows.tolist() == [3]
    assert (str(codec.label_spec), codec.fields[1].name) == ("int32 ()", "b")


RECURSIVE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
INSIDE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": "Node"}]}
DEEP = '{"type":"array","items":' * 10_000 + '"int"' + "}" * 10_000
TYPES = [{"type": "record", "name": "T0", "fields": [{"name": "x", "type": "int"}]}]
for level in range(1, 40):
    # Each has the one before twice: 2^40 fields.
    TYPES.append(
        {
            "type": "record",
            "name": f"T{level}",
            "fields": [{"name": "l", "type": TYPES[-1]}, {"name": "r", "type": f"T{level - 1}"}],
        }
    )


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("", "it is missing"),
        ("{", "it is no schema"),
        ("[]", "union"),
        ("17", "17"),
        ('"text"', "text"),
        (record(), "no fields"),
        ({"type": "record", "name": "R"}, "fields"),
        (record("int", "string"), "b: the type string"),
        (record({"type": "map", "values": "int"}), "a: the type map"),
        (record(["int", "float"]), "a: a union"),
        (record(["null", "int", "float"]), "a: a union"),
        (record(array_of("string")), "a: an array of string"),
        (record(array_of(record("int", name="I"))), "a: an array of record"),
        (record(record("string", name="I")), "a.a: the type string"),
        (record({"type": "enum", "name": "E", "symbols": []}), "symbols"),
        (record({"type": "fixed", "name": "F", "size": -1}), "size -1"),
        (record({"type": "fixed", "name": "F", "size": 2**31 - 1}), "more than"),
        (record({"type": "int", "default": "x"}), "a: its default"),
        (RECURSIVE, "next: a record"),
        (INSIDE, "itself"),
        (DEEP, "nested"),
        (json.dumps(TYPES[-1]), "more than 4096 fields"),
        ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}] * 2}, "same name"),
    ],
)  # fmt: skip
def test_a_schema_of_other_things_names_the_field(schema: Any, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec_for(DATA_FORMAT_AVRO, {"data_scheme": schema if isinstance(schema, str) else json.dumps(schema)})
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == ["data_scheme"]
    assert text in caught.value.fields[0].description


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "data_scheme"),
        ({"data_scheme": '"int"', "label_scheme": '"map"'}, "label_scheme"),
        ({"data_scheme": '"int"', "wire_format": "protobuf"}, "wire_format"),
        ({"data_scheme": '"int"', "wire_format": "registry", "data_schema_id": "-1"}, "data_schema_id"),
        ({"data_scheme": '"int"', "registry_url": "file:///etc/passwd"}, "registry_url"),
        ({"data_scheme": '"int"', "registry_url": "http://me:secret@there"}, "registry_url"),
        ({"data_scheme": '"bytes"', "data_reshape": "2 x"}, "data_reshape"),
        ({"data_scheme": '"int"', "data_reshape": "2"}, "data_reshape"),
        ({"data_scheme": json.dumps(record("int", "bytes")), "data_shapes": "3"}, "data_shapes"),
        ({"data_scheme": json.dumps(record("bytes", "bytes")), "data_shapes": "200000000 200000000"}, "data_shapes"),
        ({"data_scheme": json.dumps(record("int", "bytes")), "data_shapes": "2 3"}, "data_shapes"),
    ],
)
def test_a_wrong_config_names_the_field(config: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec_for(DATA_FORMAT_AVRO, config)
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == [field]


HUGE = b"\xff" * 9 + b"\x01"
ENUM = {"type": "enum", "name": "E", "symbols": ["X", "Y"]}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", varint(1), [b"", b"\x80", HUGE, b"\xff" * 10, b"\x80" * 1000, varint(2**31), varint(1) + b"\0"]),
        ("long", varint(1), [b"", b"\x80", b"\xff" * 9 + b"\x02", b"\x80" * 11, None]),
        ("boolean", b"\1", [b"", b"\2", b"\1\1"]),
        ("double", bytes(8), [b"", bytes(7), bytes(9)]),
        (ENUM, b"\0", [varint(2), varint(-1), b""]),
        ("bytes", varint(2) + b"xy", [varint(3) + b"xyz", varint(-2), varint(2**62), HUGE + b"xy", varint(2) + b"x"]),
        (
            array_of("float"),
            varint(1) + bytes(4) + b"\0",
            [
                b"\0",
                varint(2) + bytes(8) + b"\0",
                varint(2**62) + bytes(4) + b"\0",
                varint(-(2**63)) + varint(4) + bytes(4) + b"\0",
                varint(-1) + varint(-4) + bytes(4) + b"\0",
                varint(-1) + varint(2**62) + bytes(4) + b"\0",
                HUGE + bytes(4) + b"\0",
                varint(1) + bytes(4),
                varint(1) + bytes(4) + b"\0\0",
                b"",
            ],
        ),
        (
            array_of(array_of("int")),
            varint(1) + varint(1) + varint(5) + b"\0\0",
            [
                varint(2**62) + varint(1) + varint(5) + b"\0\0",
                varint(3) + b"\0\0\0\0",
                varint(1) + varint(1) + varint(2**40) + b"\0\0",
            ],
        ),
        (["null", "int"], varint(1) + varint(5), [varint(2), varint(-1), b"\0", HUGE]),
    ],
)  # fmt: skip
def test_each_bad_record_has_its_reason_and_the_others_go_on(kind: Any, good: bytes, bad: list[bytes | None]) -> None:
    codec = avro(record(kind))
    assert not codec.decode_samples([good] * (len(bad) + 1)).bad
    decoded = codec.decode_samples([good, *bad, good])
    assert decoded.good.tolist() == [0, len(bad) + 1]
    assert [one.index for one in decoded.bad] == list(range(1, len(bad) + 1))
    assert all(one.reason for one in decoded.bad)
    assert len(decoded.rows) == 2


@pytest.mark.parametrize(
    "record_",
    [
        b"\x02\x00" * 60_000,  # blocks of one item without an end
        varint(2**62) + b"\0" * 100_000,
        varint(80_000) + b"\0" * 100_000,
        b"\x80" * 100_000,
        b"\x02" * 100_000,
    ],
)
@pytest.mark.parametrize("kind", ["int", "boolean"])
def test_hostile_arrays_cost_no_more_than_their_bytes(record_: bytes, kind: str) -> None:
    codec = avro(array_of(array_of(kind)))
    started = time.process_time()
    assert len(codec.decode_samples([record_] * 2).bad) == 2
    assert time.process_time() - started < 5


def test_one_long_array_makes_no_room_for_others() -> None:
    schema = array_of("double")
    codec = avro(schema)
    records = [written(schema, [0.0] * 100_000), *[written(schema, [])] * 100_000]
    decoded = codec.decode_samples(records)
    assert decoded.good.tolist() == [0]
    assert len(decoded.bad) == 100_000


def test_a_registrys_record_is_told_what_it_may_be() -> None:
    decoded = avro("double").decode_samples([b"\0\0\0\0\x07" + bytes(8), b"\1" + bytes(12)])
    assert ["wire_format=registry" in one.reason for one in decoded.bad] == [True, False]


def test_a_header_is_checked_and_left_out_where_the_config_has_the_schema() -> None:
    codec = avro("int", wire_format="registry", data_schema_id="258")
    assert codec.encode_samples(np.array([5])) == [b"\0\0\0\1\2" + varint(5)]
    records = [
        b"\0\0\0\0\x07" + varint(5),
        b"\1\0\0\0\x07" + varint(5),
        b"\0\0",
        None,
        b"\0\0\0\0\x07",
        b"\0\0\0\0\x08" + varint(6),
    ]
    decoded = codec.decode_samples(records)
    assert decoded.rows.tolist() == [5, 6]
    assert [one.index for one in decoded.bad] == [1, 2, 3, 4]
    again = codec_for(DATA_FORMAT_AVRO, codec.config)
    assert again.encode_samples(np.array([5])) == codec.encode_samples(np.array([5]))
