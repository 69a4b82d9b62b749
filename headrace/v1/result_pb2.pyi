import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from headrace.v1 import deployment_pb2 as _deployment_pb2
from headrace.v1 import model_pb2 as _model_pb2
from headrace.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metrics(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, float]
    def __init__(self, values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class SplitMetrics(_message.Message):
    __slots__ = ("splits",)
    class SplitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Metrics
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Metrics, _Mapping]] = ...) -> None: ...
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    splits: _containers.MessageMap[str, Metrics]
    def __init__(self, splits: _Optional[_Mapping[str, Metrics]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("phase", "epoch", "epochs", "records_read", "records_total", "step", "steps", "rows_per_second", "time_left", "waits_for")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_READ_FIELD_NUMBER: _ClassVar[int]
    RECORDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    phase: _deployment_pb2.State
    epoch: int
    epochs: int
    records_read: int
    records_total: int
    step: int
    steps: int
    rows_per_second: float
    time_left: _duration_pb2.Duration
    waits_for: str
    def __init__(self, phase: _Optional[_Union[_deployment_pb2.State, str]] = ..., epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., records_read: _Optional[int] = ..., records_total: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., rows_per_second: _Optional[float] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., waits_for: _Optional[str] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("name", "media_type", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class ConfusionMatrix(_message.Message):
    __slots__ = ("labels", "counts")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, labels: _Optional[_Iterable[str]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class RocCurve(_message.Message):
    __slots__ = ("label", "auc", "false_positive_rates", "true_positive_rates")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    AUC_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVE_RATES_FIELD_NUMBER: _ClassVar[int]
    TRUE_POSITIVE_RATES_FIELD_NUMBER: _ClassVar[int]
    label: str
    auc: float
    false_positive_rates: _containers.RepeatedScalarFieldContainer[float]
    true_positive_rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., auc: _Optional[float] = ..., false_positive_rates: _Optional[_Iterable[float]] = ..., true_positive_rates: _Optional[_Iterable[float]] = ...) -> None: ...

class Roc(_message.Message):
    __slots__ = ("curves", "row_count", "split")
    CURVES_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    curves: _containers.RepeatedCompositeFieldContainer[RocCurve]
    row_count: int
    split: str
    def __init__(self, curves: _Optional[_Iterable[_Union[RocCurve, _Mapping]]] = ..., row_count: _Optional[int] = ..., split: _Optional[str] = ...) -> None: ...

class OutputResiduals(_message.Message):
    __slots__ = ("label", "mean", "standard_deviation", "mean_absolute", "r_squared", "quantiles", "bin_edges", "bin_counts", "true_sample", "answered_sample")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    R_SQUARED_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    BIN_EDGES_FIELD_NUMBER: _ClassVar[int]
    BIN_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TRUE_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    label: str
    mean: float
    standard_deviation: float
    mean_absolute: float
    r_squared: float
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    bin_edges: _containers.RepeatedScalarFieldContainer[float]
    bin_counts: _containers.RepeatedScalarFieldContainer[int]
    true_sample: _containers.RepeatedScalarFieldContainer[float]
    answered_sample: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., mean: _Optional[float] = ..., standard_deviation: _Optional[float] = ..., mean_absolute: _Optional[float] = ..., r_squared: _Optional[float] = ..., quantiles: _Optional[_Iterable[float]] = ..., bin_edges: _Optional[_Iterable[float]] = ..., bin_counts: _Optional[_Iterable[int]] = ..., true_sample: _Optional[_Iterable[float]] = ..., answered_sample: _Optional[_Iterable[float]] = ...) -> None: ...

class Residuals(_message.Message):
    __slots__ = ("quantile_levels", "outputs", "row_count", "split")
    QUANTILE_LEVELS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    quantile_levels: _containers.RepeatedScalarFieldContainer[float]
    outputs: _containers.RepeatedCompositeFieldContainer[OutputResiduals]
    row_count: int
    split: str
    def __init__(self, quantile_levels: _Optional[_Iterable[float]] = ..., outputs: _Optional[_Iterable[_Union[OutputResiduals, _Mapping]]] = ..., row_count: _Optional[int] = ..., split: _Optional[str] = ...) -> None: ...

class SplitSizes(_message.Message):
    __slots__ = ("training", "validation", "test")
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    training: int
    validation: int
    test: int
    def __init__(self, training: _Optional[int] = ..., validation: _Optional[int] = ..., test: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("id", "create_time", "update_time", "deployment_id", "model_id", "version", "attempt", "state", "error", "progress", "metrics", "training_time", "reading_time", "stream", "settings", "artifacts", "confusion_matrix", "code_sha256", "framework_version", "sandbox_level", "aliases", "model_name", "split_sizes", "decode_error_count", "start_time", "end_time", "framework", "imports", "code", "queue", "signature", "roc", "residuals")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_TIME_FIELD_NUMBER: _ClassVar[int]
    READING_TIME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    CODE_SHA256_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_LEVEL_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SIZES_FIELD_NUMBER: _ClassVar[int]
    DECODE_ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    IMPORTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ROC_FIELD_NUMBER: _ClassVar[int]
    RESIDUALS_FIELD_NUMBER: _ClassVar[int]
    id: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    deployment_id: int
    model_id: int
    version: int
    attempt: int
    state: _deployment_pb2.State
    error: _status_pb2.Status
    progress: Progress
    metrics: SplitMetrics
    training_time: _duration_pb2.Duration
    reading_time: _duration_pb2.Duration
    stream: _stream_pb2.Stream
    settings: _deployment_pb2.TrainingSettings
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    confusion_matrix: ConfusionMatrix
    code_sha256: str
    framework_version: str
    sandbox_level: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    model_name: str
    split_sizes: SplitSizes
    decode_error_count: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    framework: _model_pb2.Framework
    imports: str
    code: str
    queue: _deployment_pb2.QueuePlace
    signature: _model_pb2.Signature
    roc: Roc
    residuals: Residuals
    def __init__(self, id: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deployment_id: _Optional[int] = ..., model_id: _Optional[int] = ..., version: _Optional[int] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[_deployment_pb2.State, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., metrics: _Optional[_Union[SplitMetrics, _Mapping]] = ..., training_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reading_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stream: _Optional[_Union[_stream_pb2.Stream, _Mapping]] = ..., settings: _Optional[_Union[_deployment_pb2.TrainingSettings, _Mapping]] = ..., artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., confusion_matrix: _Optional[_Union[ConfusionMatrix, _Mapping]] = ..., code_sha256: _Optional[str] = ..., framework_version: _Optional[str] = ..., sandbox_level: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., model_name: _Optional[str] = ..., split_sizes: _Optional[_Union[SplitSizes, _Mapping]] = ..., decode_error_count: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., framework: _Optional[_Union[_model_pb2.Framework, str]] = ..., imports: _Optional[str] = ..., code: _Optional[str] = ..., queue: _Optional[_Union[_deployment_pb2.QueuePlace, _Mapping]] = ..., signature: _Optional[_Union[_model_pb2.Signature, _Mapping]] = ..., roc: _Optional[_Union[Roc, _Mapping]] = ..., residuals: _Optional[_Union[Residuals, _Mapping]] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("result_id", "attempt", "number", "metrics", "step", "end_time")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    attempt: int
    number: int
    metrics: SplitMetrics
    step: int
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, result_id: _Optional[int] = ..., attempt: _Optional[int] = ..., number: _Optional[int] = ..., metrics: _Optional[_Union[SplitMetrics, _Mapping]] = ..., step: _Optional[int] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ResultEvent(_message.Message):
    __slots__ = ("sequence", "result_id", "attempt", "time", "epoch", "progress", "result", "queue", "refused_announcement")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    result_id: int
    attempt: int
    time: _timestamp_pb2.Timestamp
    epoch: Epoch
    progress: Progress
    result: Result
    queue: _deployment_pb2.QueuePlace
    refused_announcement: _stream_pb2.RefusedAnnouncement
    def __init__(self, sequence: _Optional[int] = ..., result_id: _Optional[int] = ..., attempt: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., queue: _Optional[_Union[_deployment_pb2.QueuePlace, _Mapping]] = ..., refused_announcement: _Optional[_Union[_stream_pb2.RefusedAnnouncement, _Mapping]] = ...) -> None: ...
