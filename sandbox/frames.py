"""Frames: the messages between a feeder and its worker. A small JSON header, then raw buffers.

    magic "HRF1" | header size, uint32 | body size, uint64 | header, JSON | body: the arrays, one after the other

All numbers are little-endian. The header is `{"kind", "fields", "arrays": [{"name", "dtype", "shape"}, …]}`; `fields`
holds JSON values, with NaN and infinities as Python's json writes them. Texts are texts when they are read: halves of
surrogate pairs, which JSON can write and UTF-8 cannot, have become question marks. Arrays are plain numbers in C order:
nothing is ever unpickled, and a header can make its reader allocate no more than the reader's own limit.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

MAGIC = b"HRF1"
PREFIX = struct.Struct("<4sIQ")
HEADER_LIMIT_BYTES = 8 * 1024 * 1024
ARRAY_LIMIT = 1024
# Booleans, integers, floats: what has no pointers and no code inside.
DTYPE_KINDS = "biuf"


class FrameError(ValueError):
    """Bytes that are no frame, or a frame over its reader's limit. The stream cannot be read any further."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: what it is, its JSON values, its arrays by name."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Readable(Protocol):
    """A binary stream such as an unbuffered file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fills the start of the buffer; 0 at the end of the stream."""


class Writable(Protocol):
    """A binary stream such as an unbuffered file."""

    def write(self, data: memoryview, /) -> int | None:
        """Writes a start of the data and says how much."""


def encode_frame(frame: Frame) -> list[memoryview]:
    """The frame as buffers to write one after the other; arrays are not copied unless they are not in C order."""
    arrays = {name: _plain(name, array) for name, array in frame.arrays.items()}
    layout = [{"name": name, "dtype": a.dtype.str, "shape": list(a.shape)} for name, a in arrays.items()]
    header = json.dumps({"kind": frame.kind, "fields": frame.fields, "arrays": layout}).encode()
    body_bytes = sum(array.nbytes for array in arrays.values())
    start = PREFIX.pack(MAGIC, len(header), body_bytes) + header
    return [memoryview(start)] + [_bytes_of(array) for array in arrays.values() if array.nbytes]


def write_frame(stream: Writable, frame: Frame) -> None:
    """Writes one frame; blocks until the stream has taken all of it."""
    for buffer in encode_frame(frame):
        written = 0
        while written < len(buffer):
            written += stream.write(buffer[written:]) or 0


def read_frame(stream: Readable, *, limit_bytes: int) -> Frame | None:
    """Reads one frame; None at the end of the stream. Raises FrameError for anything else, a cut frame too."""
    decoder = FrameDecoder(limit_bytes)
    while True:
        count = stream.readinto(decoder.wanted())
        if not count:
            if decoder.inside_frame:
                raise FrameError("the stream ended inside a frame")
            return None
        frame = decoder.filled(count)
        if frame is not None:
            return frame


class FrameDecoder:
    """Takes a stream apart as it comes: fill some of `wanted()`, tell `filled()` how much, get a frame now and then."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._begin()

    @property
    def inside_frame(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._phase != "prefix" or self._got > 0

    def wanted(self) -> memoryview:
        """The buffer for the bytes that come next; never empty."""
        return self._buffer[self._got :]

    def filled(self, count: int) -> Frame | None:
        """Takes the first `count` bytes of `wanted()` as read; returns a frame when it is complete."""
        self._got += count
        while self._got == len(self._buffer):
            frame = self._next_phase()
            if frame is not None:
                self._begin()
                return frame
        return None

    def _begin(self) -> None:
        self._phase = "prefix"
        self._header: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._waiting: list[np.ndarray] = []
        self._expect(memoryview(bytearray(PREFIX.size)))

    def _expect(self, buffer: memoryview) -> None:
        self._buffer, self._got = buffer, 0

    def _next_phase(self) -> Frame | None:
        if self._phase == "prefix":
            self._take_prefix()
            return None
        if self._phase == "header":
            self._take_header()
        return self._next_array()

    def _take_prefix(self) -> None:
        magic, header_bytes, self._body_bytes = PREFIX.unpack(self._buffer)
        if magic != MAGIC:
            raise FrameError(f"a frame begins with {MAGIC!r}, not with {magic!r}")
        if not 2 <= header_bytes <= HEADER_LIMIT_BYTES:
            raise FrameError(f"a header of {header_bytes} bytes; 2 to {HEADER_LIMIT_BYTES} are allowed")
        if self._body_bytes > self._limit_bytes:
            raise FrameError(f"a body of {self._body_bytes} bytes; at most {self._limit_bytes} are allowed")
        self._phase = "header"
        self._expect(memoryview(bytearray(header_bytes)))

    def _take_header(self) -> None:
        self._header = _parse_header(bytes(self._buffer))
        layouts = [_parse_layout(layout) for layout in self._header["arrays"]]
        if sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in layouts) != self._body_bytes:
            raise FrameError("the body's size is not that of the arrays in the header")
        try:
            self._arrays = {name: np.empty(shape, dtype) for name, dtype, shape in layouts}
        except (ValueError, MemoryError) as error:
            raise FrameError(f"an array that cannot be: {error}") from error
        if len(self._arrays) != len(layouts):
            raise FrameError("two arrays have one name")
        self._waiting = [array for array in self._arrays.values() if array.nbytes]
        self._phase = "body"

    def _next_array(self) -> Frame | None:
        if self._waiting:
            self._expect(_bytes_of(self._waiting.pop(0)))
            return None
        return Frame(self._header["kind"], self._header["fields"], self._arrays)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in DTYPE_KINDS:
        raise FrameError(f"the array {name!r} has the type {array.dtype}; only booleans and numbers travel")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(array.shape)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _parse_header(data: bytes) -> dict[str, Any]:
    try:
        header: Any = json.loads(data)
        if b"\\ud" in data.lower():
            header = json.loads(json.dumps(header, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is no JSON: {error}") from error
    well_formed = (
        isinstance(header, dict)
        and isinstance(header.get("kind"), str)
        and isinstance(header.get("fields"), dict)
        and isinstance(header.get("arrays"), list)
    )
    if not well_formed:
        raise FrameError("the header lacks kind, fields or arrays")
    if len(header["arrays"]) > ARRAY_LIMIT:
        raise FrameError(f"{len(header['arrays'])} arrays in one frame; at most {ARRAY_LIMIT} are allowed")
    return dict(header)


def _parse_layout(layout: object) -> tuple[str, np.dtype[Any], Sequence[int]]:
    if not isinstance(layout, dict) or not isinstance(layout.get("name"), str):
        raise FrameError("an array without a name")
    name, text, shape = layout["name"], layout.get("dtype"), layout.get("shape")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise FrameError(f"the array {name!r} has no shape: {shape!r}")
    # The text form only: np.dtype would take lists and dictionaries of fields as well.
    if not isinstance(text, str) or len(text) > 4 or text[:1] not in "<|" or text[1:2] not in DTYPE_KINDS:
        raise FrameError(f"the array {name!r} has no numeric type: {text!r}")
    try:
        return name, np.dtype(text), shape
    except TypeError as error:
        raise FrameError(f"the array {name!r} has no numeric type: {text!r}") from error
