"""One export: fetches a result's model, has a worker convert it, and brings the file to the ResultCollector."""

from __future__ import annotations

from pathlib import Path

from executors.calibration import read_samples
from executors.settings import FRAMEWORKS, Settings
from headrace.artifacts import upload_parts, write_download
from headrace.chunks import sha256_of
from headrace.client import connect
from headrace.errors import FailedPrecondition, FieldViolation, InvalidArgument, ResourceExhausted
from headrace.v1 import error_pb2
from headrace.v1.code_executor_pb2 import ExportRequest
from headrace.v1.model_pb2 import Signature
from headrace.v1.result_collector_pb2 import (
    DownloadArtifactRequest,
    GetResultRequest,
    GetUploadRequest,
    UploadHeader,
)
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Artifact, Result
from sandbox.exports import EXPORT_FORMATS, ExportFormat
from sandbox.session import ExportJob, WorkerSession
from streams.kafka import KafkaSettings
from streams.spool import Spool

TRANSFER_TIMEOUT_S = 600.0
LOAD_TIMEOUT_S = 300.0


def export(settings: Settings, session: WorkerSession, request: ExportRequest) -> Artifact:
    """Converts, uploads, and returns what is stored; blocks. `session` is a worker of its own, perhaps not yet ready.

    Raises INVALID_FIELD, NOT_FOUND, EXPORT_FAILED, NOT_INSTALLED, DATA_EXPIRED and others of the stream (formats that
    are calibrated), ARTIFACT_TOO_LARGE, and whatever ends a worker.
    """
    with connect(settings.address) as channel:
        collector = ResultCollectorStub(channel)
        result = collector.GetResult(GetResultRequest(id=request.result_id))
        form = _format(settings, result, request.format)
        path = _convert(settings, session, collector, result, request.format)
        _check_size(path, settings.export_bytes)
        return _upload(collector, result, form, path)


def _format(settings: Settings, result: Result, name: str) -> ExportFormat:
    known = {key: form for key, form in EXPORT_FORMATS[settings.framework].items() if not form.is_original}
    problems = []
    if result.framework != FRAMEWORKS[settings.framework]:
        problems.append(FieldViolation("result_id", f"{result.id} is no result of {settings.framework}"))
    if name not in known:
        problems.append(FieldViolation("format", f"{name!r} is not one of {', '.join(known)}"))
    if problems:
        message = "; ".join(f"{bad.field} {bad.description}" for bad in problems)
        raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, message, fields=problems)
    return known[name]


def _convert(
    settings: Settings, session: WorkerSession, collector: ResultCollectorStub, result: Result, name: str
) -> Path:
    form, folder = EXPORT_FORMATS[settings.framework][name], session.folder / "export"
    folder.mkdir()
    weights = _fetch(collector, result, folder)
    spool = _samples(settings, result, folder) if form.is_calibrated else None
    keep_integers = result.settings.keep_integers
    loaded = session.load(result.imports, result.code, weights, keep_integers=keep_integers, timeout_s=LOAD_TIMEOUT_S)
    job = ExportJob(
        name,
        folder / f"new-{form.file}",
        _signature(result, loaded.signature),
        samples=spool.samples if spool is not None else None,
        fields=spool.fields if spool is not None else (),
    )
    session.export(job, timeout_s=settings.export_s)
    return job.path


def _samples(settings: Settings, result: Result, folder: Path) -> Spool:
    return read_samples(result.stream, result.signature, KafkaSettings(settings.kafka), folder / "records")


def _fetch(collector: ResultCollectorStub, result: Result, folder: Path) -> Path:
    """The weights; a FINISHED result has them as its first artifact."""
    artifact = result.artifacts[0]
    request = DownloadArtifactRequest(result_id=result.id, name=artifact.name)
    chunks = collector.DownloadArtifact(request, timeout=TRANSFER_TIMEOUT_S)
    write_download(chunks, artifact, folder / artifact.name)
    return folder / artifact.name


def _signature(result: Result, declared: Signature) -> Signature:
    """What the training was fed with; of a result of an older version, what the model declares."""
    signature = result.signature if result.signature.inputs else declared
    if not signature.inputs or not all(spec.shape for spec in signature.inputs):
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {result.id} does not say what its model takes, for it was trained by an older version; train "
            f"it again: headrace train --from-result {result.id}",
            resource="result",
            id=result.id,
        )
    return signature


def _check_size(path: Path, limit_bytes: int) -> None:
    size_bytes = path.stat().st_size
    if size_bytes > limit_bytes:
        raise ResourceExhausted(
            error_pb2.REASON_ARTIFACT_TOO_LARGE,
            f"the converted model has {size_bytes:,} bytes, and an export may have {limit_bytes:,}; allow more with "
            "HEADRACE_EXPORT_BYTES",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


def _upload(collector: ResultCollectorStub, result: Result, form: ExportFormat, path: Path) -> Artifact:
    artifact = Artifact(
        name=form.file, media_type=form.media_type, size_bytes=path.stat().st_size, sha256=sha256_of(path)
    )
    held = collector.GetUpload(GetUploadRequest(result_id=result.id, sha256=artifact.sha256))
    header = UploadHeader(result_id=result.id, artifact=artifact, offset=held.offset, is_export=True)
    stored: Artifact = collector.UploadArtifact(upload_parts(header, path), timeout=TRANSFER_TIMEOUT_S)
    return stored
