import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sandbox.frames import MAGIC, PREFIX, Frame, FrameError, encode_frame, read_frame, write_frame

DTYPES = st.sampled_from(
    ["bool", "int8", "uint8", "int16", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(memoryview(buffer)[: self._step])


def read(stream: Any, *, limit_bytes: int = 10**6) -> Frame:
    frame = read_frame(stream, limit_bytes=limit_bytes)
    assert frame is not None
    return frame


def wire(frame: Frame) -> bytes:
    return b"".join(encode_frame(frame))


def raw(header: object, body: bytes = b"", *, body_bytes: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return PREFIX.pack(MAGIC, len(text), len(body) if body_bytes is None else body_bytes) + text + body


def one_array(**changes: object) -> dict[str, Any]:
    return {"kind": "k", "fields": {}, "arrays": [{"name": "a", "dtype": "<f4", "shape": [1], **changes}]}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.text(max_size=10),
    fields=st.dictionaries(st.text(), VALUES, max_size=4),
    arrays=st.dictionaries(st.text(), ARRAYS, max_size=3),
    step=st.integers(1, 100),
)
def test_a_frame_arrives_as_it_was_sent_however_the_pipe_cuts_it(
    kind: str, fields: dict[str, Any], arrays: dict[str, np.ndarray], step: Any
) -> None:
    stream = Trickle(wire(Frame(kind, fields, arrays)) * 2, step)
    for _ in range(2):
        got = read(stream)
        assert (got.kind, got.fields) == (kind, fields)
        assert list(got.arrays) == list(arrays)
        for name, array in arrays.items():
            assert got.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(got.arrays[name], array)
    assert read_frame(stream, limit_bytes=10**6) is None


def test_nan_and_infinities_survive_in_fields() -> None:
    got = read(io.BytesIO(wire(Frame("k", {"a": math.nan, "b": [math.inf, -math.inf]}))), limit_bytes=0)
    assert math.isnan(got.fields["a"])
    assert got.fields["b"] == [math.inf, -math.inf]


def test_half_a_surrogate_pair_is_no_text_and_a_whole_one_is() -> None:
    sent = Frame("k", {"half\ud800": ["\udfff", "\\ud800", "😀"]})
    assert read(io.BytesIO(wire(sent))).fields == {"half?": ["?", "\\ud800", "😀"]}


def test_views_and_foreign_byte_orders_are_sent_by_value() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    got = read(io.BytesIO(wire(Frame("k", {}, {"a": array}))), limit_bytes=100)
    np.testing.assert_array_equal(got.arrays["a"], array)


def test_write_frame_goes_on_after_short_writes() -> None:
    class Narrow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:7]))

    frame, stream = Frame("k", {"x": "y" * 100}, {"a": np.arange(100)}), Narrow()
    write_frame(stream, frame)
    assert stream.getvalue() == wire(frame)


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([object()]), np.zeros(2, complex), np.zeros(2, "M8[s]")]
)
def test_what_is_no_number_does_not_travel(array: np.ndarray) -> None:
    with pytest.raises(FrameError):
        encode_frame(Frame("k", {}, {"a": array}))


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    data = wire(Frame("k", {}, {"a": np.zeros(1000, np.uint8)}))
    read_frame(io.BytesIO(data), limit_bytes=1000)
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(data[: PREFIX.size]), limit_bytes=999)


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is a print that went astray",
        raw(b"no json at all"),
        raw(b"[" * 100_000 + b"]" * 100_000),
        raw([]),
        raw({"kind": "k", "fields": {}}),
        raw({"kind": 1, "fields": {}, "arrays": []}),
        raw({"kind": "k", "fields": [], "arrays": []}),
        raw({"kind": "k", "fields": {}, "arrays": [1]}),
        raw(one_array(dtype="|O"), b"x" * 8),
        raw(one_array(dtype="O8"), b"x" * 8),
        raw(one_array(dtype=[["a", "<f4"]]), b"x" * 4),
        raw(one_array(dtype="<f4,<f4"), b"x" * 8),
        raw(one_array(dtype="<f9"), b"x" * 9),
        raw(one_array(dtype=">f4"), b"x" * 4),
        raw(one_array(shape=[-1]), b"x" * 4),
        raw(one_array(shape=[True]), b"x" * 4),
        raw(one_array(shape=[1.0]), b"x" * 4),
        raw(one_array(shape=[2**62, 2**62, 0]), b"x" * 4),
        raw(one_array(shape=[2**40])),
        raw(one_array(shape=[2**62, 2**62, 0])),
        raw(one_array(shape=[1] * 40), b"x" * 4),
        raw(one_array(), b"x" * 3),
        raw(one_array(), b"x" * 5),
        raw({"kind": "k", "fields": {}, "arrays": [{"name": "a", "dtype": "<f4", "shape": [0]}] * 5000}),
        raw({**one_array(), "arrays": one_array()["arrays"] * 2}, b"x" * 8),
        PREFIX.pack(MAGIC, 2**31, 0),
        PREFIX.pack(MAGIC, 0, 0),
        raw(one_array(), body_bytes=2**63),
        wire(Frame("k", {}, {"a": np.arange(9)}))[:-1],
        MAGIC,
    ],
)
def test_what_is_no_frame_is_refused(data: Any) -> None:
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(data), limit_bytes=10**6)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bytes_make_the_reader_fail_otherwise(data: Any) -> None:
    good = bytearray(wire(Frame("predict", {"a": 1}, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)})))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_frame(io.BytesIO(bytes(good)), limit_bytes=10**4)
    except FrameError:
        pass
