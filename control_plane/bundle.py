"""All files of a result as one zip, made as it is sent."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import AsyncIterator

from control_plane.artifacts import ArtifactStore
from control_plane.result_readme import code_of, readme_of
from headrace.v1.result_pb2 import Result


def bundle_name(result: Result) -> str:
    """Such as `digits-v3.zip`."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in result.model_name)
    return f"{name}-v{result.version}.zip" if result.version else f"{name}-result-{result.id}.zip"


async def bundle(result: Result, artifacts: ArtifactStore) -> AsyncIterator[bytes]:
    """The zip, piece by piece; the files in it as they are, for models hardly shrink."""
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("README.md", result), readme_of(result))
        archive.writestr(_entry("model.py", result), code_of(result))
        for artifact in result.artifacts:
            with archive.open(_entry(artifact.name, result), "w", force_zip64=True) as file:
                async for chunk in artifacts.chunks(artifact.sha256, 0):
                    file.write(chunk)
                    yield sent.take()
    yield sent.take()


def _entry(name: str, result: Result) -> zipfile.ZipInfo:
    """With the time of the training: the same result gives the same zip."""
    entry = zipfile.ZipInfo(name, time.gmtime(max(result.end_time.seconds, 315532800))[:6])
    entry.external_attr = 0o644 << 16
    return entry


class _Sent(io.RawIOBase):
    """A file that cannot seek: what was written to it and is not yet taken."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: object) -> int:
        data = bytes(piece)  # type: ignore[call-overload]
        self._pieces.append(data)
        return len(data)

    def take(self) -> bytes:
        """All of it."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
