"""Brings artifacts to the collector: in chunks, from where an earlier try stopped, for as long as it takes."""

from pathlib import Path

from headrace.artifacts import upload_parts
from headrace.errors import HeadraceError
from headrace.patience import Patience
from headrace.v1 import error_pb2
from headrace.v1.result_collector_pb2 import GetUploadRequest, UploadHeader
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Artifact

TRIES_ON_MISMATCH = 3
SLOWEST_BYTES_PER_S = 256 * 1024


class Uploader:
    """Uploads files for one attempt at one result."""

    def __init__(self, collector: ResultCollectorStub, patience: Patience, *, result_id: int, attempt: int) -> None:
        self._collector = collector
        self._patience = patience
        self._result_id = result_id
        self._attempt = attempt

    def upload(self, artifact: Artifact, path: Path) -> Artifact:
        """The artifact as it is stored; all fields of `artifact` are set. Repeating it is harmless.

        Raises FENCED when a newer attempt exists, DIGEST_MISMATCH when the file is not what `artifact` says.
        """
        for _ in range(TRIES_ON_MISMATCH - 1):
            try:
                return self._patience.call(lambda: self._try(artifact, path))
            except HeadraceError as error:
                # What an earlier try left on the server was spoilt; it begins anew.
                if error.reason != error_pb2.REASON_DIGEST_MISMATCH:
                    raise
        return self._patience.call(lambda: self._try(artifact, path))

    def _try(self, artifact: Artifact, path: Path) -> Artifact:
        held = self._collector.GetUpload(GetUploadRequest(result_id=self._result_id, sha256=artifact.sha256))
        header = UploadHeader(result_id=self._result_id, attempt=self._attempt, artifact=artifact, offset=held.offset)
        timeout_s = 30 + (artifact.size_bytes - held.offset) / SLOWEST_BYTES_PER_S
        stored: Artifact = self._collector.UploadArtifact(upload_parts(header, path), timeout=timeout_s)
        return stored
