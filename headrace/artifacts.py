"""Files of results on their way to and from the ResultCollector."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.api.httpbody_pb2 import HttpBody

from headrace.chunks import file_chunks, sha256_of
from headrace.errors import DataLoss
from headrace.v1 import error_pb2
from headrace.v1.result_collector_pb2 import UploadArtifactRequest, UploadHeader
from headrace.v1.result_pb2 import Artifact


def upload_parts(header: UploadHeader, path: Path) -> Iterator[UploadArtifactRequest]:
    """What UploadArtifact is sent for a file, of which the server holds the bytes before `header.offset`."""
    yield UploadArtifactRequest(header=header)
    for chunk in file_chunks(path, header.offset):
        yield UploadArtifactRequest(chunk=chunk)


def write_download(chunks: Iterable[HttpBody], artifact: Artifact, path: Path) -> None:
    """Writes what DownloadArtifact sends. Raises DataLoss (DIGEST_MISMATCH), and then there is no file."""
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk.data)
    if sha256_of(path) != artifact.sha256:
        path.unlink()
        raise DataLoss(
            error_pb2.REASON_DIGEST_MISMATCH,
            f"the bytes of {artifact.name} do not have the SHA-256 {artifact.sha256}; the artifact is damaged: train "
            "again",
            artifact=artifact.name,
            sha256=artifact.sha256,
        )
