"""Writes a whole batch of Avro records at once: column by column into one buffer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array
from streams.codecs.avro.schema import Leaf
from streams.codecs.records import flat

VARINT_BYTES = 10


def encode(leaves: Sequence[Leaf], arrays: Sequence[Array], absent: Collection[str] = ()) -> list[bytes]:
    """One record per row of the arrays `(n, *shape)`, which are in the leaves' types.

    absent: the names of the leaves that are null, whatever their arrays hold.

    Raises InvalidArgument (SCHEMA_MISMATCH) for the index of a symbol that an enum does not have.
    """
    for leaf, array in zip(leaves, arrays, strict=True):
        _check_symbols(leaf, array)
    count = len(arrays[0])
    pieces = [
        piece
        for leaf, array in zip(leaves, arrays, strict=True)
        for piece in (_null(leaf, count) if leaf.name in absent else _pieces(leaf, array))
    ]
    sizes = np.zeros(count, np.int64)
    for piece in pieces:
        sizes += _sizes(piece)
    ends = np.cumsum(sizes)
    buffer = np.empty(int(ends[-1]) if count else 0, np.uint8)
    at = ends - sizes
    for piece in pieces:
        at = _write(buffer, at, piece)
    data = buffer.tobytes()
    bounds = [0, *ends.tolist()]
    return [data[start:stop] for start, stop in itertools.pairwise(bounds)]


def _check_symbols(leaf: Leaf, array: Array) -> None:
    wrong = array[(array < 0) | (array >= len(leaf.symbols))] if leaf.kind == "enum" else array[:0]
    if wrong.size:
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"{leaf.name or 'a row'} is {wrong.flat[0]}, where the enum's symbols are 0 to {len(leaf.symbols) - 1}",
        )


def _null(leaf: Leaf, count: int) -> Iterator[Array]:
    assert leaf.null_branch is not None, "the schema takes no null there"
    yield _constant(count, zigzag_bytes(leaf.null_branch))


def _pieces(leaf: Leaf, array: Array) -> Iterator[Array]:
    """What stands in the record one after the other: bytes `(n, width)` uint8, or numbers `(n, k)` int64 as varints."""
    count = len(array)
    if leaf.null_branch is not None:
        yield _constant(count, zigzag_bytes(1 - leaf.null_branch))
    if leaf.kind == "bytes":
        yield _constant(count, zigzag_bytes(math.prod(array.shape[1:])))
    if leaf.depth:
        yield from _blocks(leaf, array)
    else:
        yield _numbers(leaf, flat(array))


def _blocks(leaf: Leaf, array: Array) -> Iterator[Array]:
    """An array in one block: its length, its items, and the end."""
    count, length = array.shape[:2]
    yield _constant(count, zigzag_bytes(length))
    if array.ndim == 2:
        yield _numbers(leaf, array)
    else:
        for index in range(length):
            yield from _blocks(leaf, array[:, index])
    yield _constant(count, b"\0")


def _numbers(leaf: Leaf, array: Array) -> Array:
    """`(n, k)` as they are written."""
    if leaf.is_varint:
        return array.astype(np.int64)
    wire = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return wire.view(np.uint8).reshape(len(array), array.shape[1] * wire.dtype.itemsize)


def zigzag_bytes(number: int) -> bytes:
    """A length or an index of 0 or more, as Avro writes it."""
    number *= 2
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def _constant(count: int, written: bytes) -> Array:
    return np.broadcast_to(np.frombuffer(written, np.uint8), (count, len(written)))


def _sizes(piece: Array) -> Array | int:
    """Bytes per record."""
    if piece.dtype == np.uint8:
        return int(piece.shape[1])
    sizes: Array = _varint_sizes(_zigzag(piece)).sum(axis=1)
    return sizes


def _write(buffer: Array, at: Array, piece: Array) -> Array:
    """Write the piece of every record; returns where the next one stands."""
    if piece.dtype != np.uint8:
        return _write_varints(buffer, at, _zigzag(piece))
    width = piece.shape[1]
    if width and len(at):
        windows = np.lib.stride_tricks.as_strided(buffer, (len(buffer) - width + 1, width), (1, 1))
        windows[at] = piece
    after: Array = at + width
    return after


def _write_varints(buffer: Array, at: Array, numbers: Array) -> Array:
    sizes = _varint_sizes(numbers)
    ends = np.cumsum(sizes, axis=1)
    places = at[:, np.newaxis] + ends - sizes
    for step in range(int(sizes.max(initial=0))):
        here = sizes > step
        rest = numbers[here] >> np.uint64(7 * step)
        more = sizes[here] > step + 1
        buffer[places[here] + step] = (rest & np.uint64(127)).astype(np.uint8) | (more * np.uint8(128))
    after: Array = at + ends[:, -1]
    return after


def _zigzag(numbers: Array) -> Array:
    zigzag: Array = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    return zigzag


def _varint_sizes(numbers: Array) -> Array:
    sizes = np.ones(numbers.shape, np.int64)
    for step in range(1, VARINT_BYTES):
        above = numbers >= np.uint64(1 << (7 * step))
        if not above.any():
            break
        sizes += above
    return sizes
