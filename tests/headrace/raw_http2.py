"""HTTP/2 by hand (RFC 9113): for clients that do what no library would."""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL, ENHANCE_YOUR_CALM, REFUSED_STREAM = 8, 11, 7


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, stream: int) -> bytes:
    """The beginning of a call of gRPC, in literals of HPACK (RFC 7541) without an index."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def message(stream: int, body: bytes) -> bytes:
    """The only message of a call."""
    return frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(body)) + body)


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def ping() -> bytes:
    return frame(PING, 0, 0, bytes(8))


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()  # Below 127 bytes: the length is one byte.


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which calls may begin."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS))
    return reader, writer


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Kind, stream and payload. Raises IncompleteReadError at the end of the connection."""
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], int.from_bytes(head[5:9], "big"), payload
