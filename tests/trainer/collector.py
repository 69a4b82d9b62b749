"""A collector in memory behind a real gRPC server: it stores, acknowledges, and fails when told to."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from headrace.v1 import result_collector_pb2 as messages
from headrace.v1 import result_collector_pb2_grpc, result_pb2

Key = tuple[int, int]


class MemoryCollector(result_collector_pb2_grpc.ResultCollectorServicer):
    """What a collector's disk would hold outlives `stop()` and `start()`, which are a crash and a restart.

    `fault(seq)` is asked for each event: "" goes on, "lose" breaks the call before the event is stored, "mute" after
    it is stored and before it is acknowledged, "refuse" finds it invalid.
    """

    def __init__(self, *, acks_first: bool = False) -> None:
        self.stored: dict[Key, dict[int, messages.ReportRequest]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.artifacts: dict[str, bytes] = {}
        self.recorded: dict[int, list[result_pb2.Artifact]] = {}
        self.newest_attempts: dict[int, int] = {}
        self.hellos = 0
        self.fault: Callable[[int], str] = lambda seq: ""
        self.cut_upload_after: list[int] = []
        self._acks_first = acks_first
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
        self.register(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def register(self, server: grpc.Server) -> None:
        result_collector_pb2_grpc.add_ResultCollectorServicer_to_server(self, server)

    def stop(self) -> None:
        """Breaks every call, at once."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
        self._server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def events(self, attempt: int = 1, result_id: int = 1) -> list[messages.ReportRequest]:
        """What is stored, in order."""
        stored = self.stored.get((result_id, attempt), {})
        return [stored[seq] for seq in sorted(stored)]

    def Report(
        self, request_iterator: Iterator[messages.ReportRequest], context: Any
    ) -> Iterator[messages.ReportResponse]:
        for request in request_iterator:
            if request.attempt < self.newest_attempts.get(request.result_id, 1):
                yield messages.ReportResponse(fenced=True)
                return
            stored = self.stored.setdefault((request.result_id, request.attempt), {})
            if request.seq == 0:
                self.hellos += 1
                yield messages.ReportResponse(acked_seq=_contiguous(stored), resume_from=_contiguous(stored) + 1)
                continue
            if request.seq > _contiguous(stored) + 1:
                yield messages.ReportResponse(acked_seq=_contiguous(stored), resume_from=_contiguous(stored) + 1)
                continue
            fault = self.fault(request.seq)
            if self._acks_first:
                yield messages.ReportResponse(acked_seq=request.seq)
            if fault == "refuse":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such event")
            if fault == "lose":
                context.abort(grpc.StatusCode.UNAVAILABLE, "lost before it was stored")
            stored.setdefault(request.seq, request)
            if fault == "mute":
                context.abort(grpc.StatusCode.UNAVAILABLE, "lost before it was acknowledged")
            yield messages.ReportResponse(acked_seq=_contiguous(stored))

    def ListEpochs(self, request: messages.ListEpochsRequest, context: Any) -> messages.ListEpochsResponse:
        """As the real one does: what an attempt tells of an epoch replaces what older ones told from it on."""
        stored: dict[int, result_pb2.Epoch] = {}
        for result_id, attempt in sorted(self.stored):
            for event in self.events(attempt, request.result_id) if result_id == request.result_id else ():
                if event.HasField("epoch"):
                    number = event.epoch.number
                    is_older = {one: stored[one].attempt < attempt and one >= number for one in stored}
                    stored = {one: epoch for one, epoch in stored.items() if not is_older[one]}
                    stored[number] = event.epoch
        return messages.ListEpochsResponse(epochs=[stored[number] for number in sorted(stored)])

    def GetUpload(self, request: messages.GetUploadRequest, context: Any) -> messages.GetUploadResponse:
        if request.sha256 in self.artifacts:
            return messages.GetUploadResponse(offset=len(self.artifacts[request.sha256]))
        return messages.GetUploadResponse(offset=len(self.uploads.get(request.sha256, b"")))

    def UploadArtifact(
        self, request_iterator: Iterator[messages.UploadArtifactRequest], context: Any
    ) -> result_pb2.Artifact:
        header = next(request_iterator).header
        held = self.uploads.setdefault(header.artifact.sha256, bytearray())
        if header.offset != len(held) and header.artifact.sha256 not in self.artifacts:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{len(held)} bytes are held")
        for part in request_iterator:
            held += part.chunk
            if self.cut_upload_after and len(held) >= self.cut_upload_after[0]:
                self.cut_upload_after.pop(0)
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        digest = hashlib.sha256(held).hexdigest()
        if digest != header.artifact.sha256:
            context.abort(grpc.StatusCode.DATA_LOSS, "the digest differs")
        self.artifacts[digest] = bytes(held)
        others = [one for one in self.recorded.get(header.result_id, []) if one.name != header.artifact.name]
        self.recorded[header.result_id] = [*others, header.artifact]
        return header.artifact


def _contiguous(stored: dict[int, messages.ReportRequest]) -> int:
    seq = 0
    while seq + 1 in stored:
        seq += 1
    return seq
