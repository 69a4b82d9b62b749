"""Files as chunks on the wire."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 256 * 1024


def file_chunks(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The file's bytes from `offset` on, at most CHUNK_BYTES at a time."""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
