import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from headrace.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_CREATED: _ClassVar[State]
    STATE_STARTING: _ClassVar[State]
    STATE_WAITING: _ClassVar[State]
    STATE_READING: _ClassVar[State]
    STATE_TRAINING: _ClassVar[State]
    STATE_EVALUATING: _ClassVar[State]
    STATE_UPLOADING: _ClassVar[State]
    STATE_FINISHED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_CANCELLING: _ClassVar[State]
    STATE_CANCELLED: _ClassVar[State]

class Split(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_UNSPECIFIED: _ClassVar[Split]
    SPLIT_SHUFFLED: _ClassVar[Split]
    SPLIT_ORDERED: _ClassVar[Split]

class CountMismatch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COUNT_MISMATCH_UNSPECIFIED: _ClassVar[CountMismatch]
    COUNT_MISMATCH_FAIL: _ClassVar[CountMismatch]
    COUNT_MISMATCH_ACCEPT: _ClassVar[CountMismatch]
STATE_UNSPECIFIED: State
STATE_CREATED: State
STATE_STARTING: State
STATE_WAITING: State
STATE_READING: State
STATE_TRAINING: State
STATE_EVALUATING: State
STATE_UPLOADING: State
STATE_FINISHED: State
STATE_FAILED: State
STATE_CANCELLING: State
STATE_CANCELLED: State
SPLIT_UNSPECIFIED: Split
SPLIT_SHUFFLED: Split
SPLIT_ORDERED: Split
COUNT_MISMATCH_UNSPECIFIED: CountMismatch
COUNT_MISMATCH_FAIL: CountMismatch
COUNT_MISMATCH_ACCEPT: CountMismatch

class FrameworkArguments(_message.Message):
    __slots__ = ("fit_args", "evaluate_args")
    FIT_ARGS_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_ARGS_FIELD_NUMBER: _ClassVar[int]
    fit_args: str
    evaluate_args: str
    def __init__(self, fit_args: _Optional[str] = ..., evaluate_args: _Optional[str] = ...) -> None: ...

class SingleMode(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IncrementalMode(_message.Message):
    __slots__ = ("stream_timeout", "poll_timeout", "numerator_batch", "denominator_batch", "indefinite")
    STREAM_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    POLL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    NUMERATOR_BATCH_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_BATCH_FIELD_NUMBER: _ClassVar[int]
    INDEFINITE_FIELD_NUMBER: _ClassVar[int]
    stream_timeout: _duration_pb2.Duration
    poll_timeout: _duration_pb2.Duration
    numerator_batch: int
    denominator_batch: int
    indefinite: bool
    def __init__(self, stream_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., poll_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., numerator_batch: _Optional[int] = ..., denominator_batch: _Optional[int] = ..., indefinite: _Optional[bool] = ...) -> None: ...

class DistributedMode(_message.Message):
    __slots__ = ("optimizer", "learning_rate", "loss", "metrics")
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    optimizer: str
    learning_rate: float
    loss: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, optimizer: _Optional[str] = ..., learning_rate: _Optional[float] = ..., loss: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ...) -> None: ...

class SemiSupervisedMode(_message.Message):
    __slots__ = ("confidence", "rounds")
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    confidence: float
    rounds: int
    def __init__(self, confidence: _Optional[float] = ..., rounds: _Optional[int] = ...) -> None: ...

class FederatedMode(_message.Message):
    __slots__ = ("rounds", "participants")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    rounds: int
    participants: int
    def __init__(self, rounds: _Optional[int] = ..., participants: _Optional[int] = ...) -> None: ...

class TrainingSettings(_message.Message):
    __slots__ = ("batch_size", "seed", "split", "tensorflow", "pytorch", "confusion_matrix", "decode_error_limit", "count_mismatch", "checkpoint_interval", "deadline", "keep_integers", "single", "incremental", "distributed", "semi_supervised", "federated")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    TENSORFLOW_FIELD_NUMBER: _ClassVar[int]
    PYTORCH_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    DECODE_ERROR_LIMIT_FIELD_NUMBER: _ClassVar[int]
    COUNT_MISMATCH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    KEEP_INTEGERS_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    SEMI_SUPERVISED_FIELD_NUMBER: _ClassVar[int]
    FEDERATED_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    seed: int
    split: Split
    tensorflow: FrameworkArguments
    pytorch: FrameworkArguments
    confusion_matrix: bool
    decode_error_limit: float
    count_mismatch: CountMismatch
    checkpoint_interval: _duration_pb2.Duration
    deadline: _duration_pb2.Duration
    keep_integers: bool
    single: SingleMode
    incremental: IncrementalMode
    distributed: DistributedMode
    semi_supervised: SemiSupervisedMode
    federated: FederatedMode
    def __init__(self, batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., split: _Optional[_Union[Split, str]] = ..., tensorflow: _Optional[_Union[FrameworkArguments, _Mapping]] = ..., pytorch: _Optional[_Union[FrameworkArguments, _Mapping]] = ..., confusion_matrix: _Optional[bool] = ..., decode_error_limit: _Optional[float] = ..., count_mismatch: _Optional[_Union[CountMismatch, str]] = ..., checkpoint_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., keep_integers: _Optional[bool] = ..., single: _Optional[_Union[SingleMode, _Mapping]] = ..., incremental: _Optional[_Union[IncrementalMode, _Mapping]] = ..., distributed: _Optional[_Union[DistributedMode, _Mapping]] = ..., semi_supervised: _Optional[_Union[SemiSupervisedMode, _Mapping]] = ..., federated: _Optional[_Union[FederatedMode, _Mapping]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu_count", "memory_bytes", "gpu_count")
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    cpu_count: float
    memory_bytes: int
    gpu_count: int
    def __init__(self, cpu_count: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., gpu_count: _Optional[int] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("id", "create_time", "update_time", "configuration_id", "description", "settings", "stream_id", "resources", "kafka_cluster", "state", "error", "result_ids", "start_time", "end_time", "queue_message", "from_result_id", "refused_announcement", "allowed_topics")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    KAFKA_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_IDS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FROM_RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_TOPICS_FIELD_NUMBER: _ClassVar[int]
    id: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    configuration_id: int
    description: str
    settings: TrainingSettings
    stream_id: int
    resources: Resources
    kafka_cluster: str
    state: State
    error: _status_pb2.Status
    result_ids: _containers.RepeatedScalarFieldContainer[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    queue_message: str
    from_result_id: int
    refused_announcement: _stream_pb2.RefusedAnnouncement
    allowed_topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., configuration_id: _Optional[int] = ..., description: _Optional[str] = ..., settings: _Optional[_Union[TrainingSettings, _Mapping]] = ..., stream_id: _Optional[int] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., kafka_cluster: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result_ids: _Optional[_Iterable[int]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., queue_message: _Optional[str] = ..., from_result_id: _Optional[int] = ..., refused_announcement: _Optional[_Union[_stream_pb2.RefusedAnnouncement, _Mapping]] = ..., allowed_topics: _Optional[_Iterable[str]] = ...) -> None: ...

class QueuePlace(_message.Message):
    __slots__ = ("place", "length", "running_count", "running_limit", "message")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    place: int
    length: int
    running_count: int
    running_limit: int
    message: str
    def __init__(self, place: _Optional[int] = ..., length: _Optional[int] = ..., running_count: _Optional[int] = ..., running_limit: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class KafkaCluster(_message.Message):
    __slots__ = ("id", "name", "bootstrap_servers", "options", "create_time")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_SERVERS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    bootstrap_servers: str
    options: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., bootstrap_servers: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
