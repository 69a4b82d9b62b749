"""Files in chunks."""

import hashlib
from pathlib import Path

import pytest

from headrace.chunks import CHUNK_BYTES, file_chunks, sha256_of


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("offset", [0, 1, CHUNK_BYTES, 4 * CHUNK_BYTES])
def test_the_chunks_are_the_file_from_the_offset_on(tmp_path: Path, size: int, offset: int) -> None:
    path, content = tmp_path / "weights", bytes(number % 251 for number in range(size))
    path.write_bytes(content)
    chunks = list(file_chunks(path, offset))
    assert b"".join(chunks) == content[offset:]
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_the_digest_is_sha256_in_hex(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 1_000_000)
    assert sha256_of(path) == hashlib.sha256(b"x" * 1_000_000).hexdigest()
