import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from headrace.v1 import deployment_pb2 as _deployment_pb2
from headrace.v1 import model_pb2 as _model_pb2
from headrace.v1 import result_pb2 as _result_pb2
from headrace.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetResultRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListResultsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "view", "deployment_id", "model_id", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    view: _model_pb2.View
    deployment_id: int
    model_id: int
    state: _deployment_pb2.State
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., view: _Optional[_Union[_model_pb2.View, str]] = ..., deployment_id: _Optional[int] = ..., model_id: _Optional[int] = ..., state: _Optional[_Union[_deployment_pb2.State, str]] = ...) -> None: ...

class ListResultsResponse(_message.Message):
    __slots__ = ("results", "next_page_token")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_result_pb2.Result]
    next_page_token: str
    def __init__(self, results: _Optional[_Iterable[_Union[_result_pb2.Result, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CompareResultsRequest(_message.Message):
    __slots__ = ("result_ids",)
    RESULT_IDS_FIELD_NUMBER: _ClassVar[int]
    result_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, result_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class CompareResultsResponse(_message.Message):
    __slots__ = ("results", "values")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_result_pb2.Result]
    values: _containers.RepeatedCompositeFieldContainer[ComparedValue]
    def __init__(self, results: _Optional[_Iterable[_Union[_result_pb2.Result, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[ComparedValue, _Mapping]]] = ...) -> None: ...

class ComparedValue(_message.Message):
    __slots__ = ("name", "values", "differs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    DIFFERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    differs: bool
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., differs: _Optional[bool] = ...) -> None: ...

class DeleteResultRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListEpochsRequest(_message.Message):
    __slots__ = ("result_id", "page_size", "page_token")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    page_size: int
    page_token: str
    def __init__(self, result_id: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEpochsResponse(_message.Message):
    __slots__ = ("epochs", "next_page_token")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    epochs: _containers.RepeatedCompositeFieldContainer[_result_pb2.Epoch]
    next_page_token: str
    def __init__(self, epochs: _Optional[_Iterable[_Union[_result_pb2.Epoch, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchResultsRequest(_message.Message):
    __slots__ = ("result_id", "deployment_id", "after_sequence")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    deployment_id: int
    after_sequence: int
    def __init__(self, result_id: _Optional[int] = ..., deployment_id: _Optional[int] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class DownloadArtifactRequest(_message.Message):
    __slots__ = ("result_id", "name", "offset")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    name: str
    offset: int
    def __init__(self, result_id: _Optional[int] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ExportResultRequest(_message.Message):
    __slots__ = ("result_id", "format")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    format: str
    def __init__(self, result_id: _Optional[int] = ..., format: _Optional[str] = ...) -> None: ...

class DownloadResultRequest(_message.Message):
    __slots__ = ("result_id",)
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    def __init__(self, result_id: _Optional[int] = ...) -> None: ...

class RenderConfusionMatrixRequest(_message.Message):
    __slots__ = ("result_id",)
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    def __init__(self, result_id: _Optional[int] = ...) -> None: ...

class RenderRocRequest(_message.Message):
    __slots__ = ("result_id",)
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    def __init__(self, result_id: _Optional[int] = ...) -> None: ...

class RenderResidualsRequest(_message.Message):
    __slots__ = ("result_id",)
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    def __init__(self, result_id: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("result_id", "attempt", "seq", "time", "state_change", "progress", "epoch", "outcome")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    attempt: int
    seq: int
    time: _timestamp_pb2.Timestamp
    state_change: StateChange
    progress: _result_pb2.Progress
    epoch: _result_pb2.Epoch
    outcome: Outcome
    def __init__(self, result_id: _Optional[int] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., progress: _Optional[_Union[_result_pb2.Progress, _Mapping]] = ..., epoch: _Optional[_Union[_result_pb2.Epoch, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "error")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    state: _deployment_pb2.State
    error: _status_pb2.Status
    def __init__(self, state: _Optional[_Union[_deployment_pb2.State, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("metrics", "training_time", "reading_time", "stream", "settings", "confusion_matrix", "framework_version", "sandbox_level", "split_sizes", "decode_error_count", "signature", "roc", "residuals")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_TIME_FIELD_NUMBER: _ClassVar[int]
    READING_TIME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SIZES_FIELD_NUMBER: _ClassVar[int]
    DECODE_ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ROC_FIELD_NUMBER: _ClassVar[int]
    RESIDUALS_FIELD_NUMBER: _ClassVar[int]
    metrics: _result_pb2.SplitMetrics
    training_time: _duration_pb2.Duration
    reading_time: _duration_pb2.Duration
    stream: _stream_pb2.Stream
    settings: _deployment_pb2.TrainingSettings
    confusion_matrix: _result_pb2.ConfusionMatrix
    framework_version: str
    sandbox_level: str
    split_sizes: _result_pb2.SplitSizes
    decode_error_count: int
    signature: _model_pb2.Signature
    roc: _result_pb2.Roc
    residuals: _result_pb2.Residuals
    def __init__(self, metrics: _Optional[_Union[_result_pb2.SplitMetrics, _Mapping]] = ..., training_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reading_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stream: _Optional[_Union[_stream_pb2.Stream, _Mapping]] = ..., settings: _Optional[_Union[_deployment_pb2.TrainingSettings, _Mapping]] = ..., confusion_matrix: _Optional[_Union[_result_pb2.ConfusionMatrix, _Mapping]] = ..., framework_version: _Optional[str] = ..., sandbox_level: _Optional[str] = ..., split_sizes: _Optional[_Union[_result_pb2.SplitSizes, _Mapping]] = ..., decode_error_count: _Optional[int] = ..., signature: _Optional[_Union[_model_pb2.Signature, _Mapping]] = ..., roc: _Optional[_Union[_result_pb2.Roc, _Mapping]] = ..., residuals: _Optional[_Union[_result_pb2.Residuals, _Mapping]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("acked_seq", "resume_from", "fenced")
    ACKED_SEQ_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    acked_seq: int
    resume_from: int
    fenced: bool
    def __init__(self, acked_seq: _Optional[int] = ..., resume_from: _Optional[int] = ..., fenced: _Optional[bool] = ...) -> None: ...

class GetUploadRequest(_message.Message):
    __slots__ = ("result_id", "sha256")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    sha256: str
    def __init__(self, result_id: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class GetUploadResponse(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class UploadArtifactRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("result_id", "attempt", "artifact", "offset", "is_export")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    IS_EXPORT_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    attempt: int
    artifact: _result_pb2.Artifact
    offset: int
    is_export: bool
    def __init__(self, result_id: _Optional[int] = ..., attempt: _Optional[int] = ..., artifact: _Optional[_Union[_result_pb2.Artifact, _Mapping]] = ..., offset: _Optional[int] = ..., is_export: _Optional[bool] = ...) -> None: ...
