import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from headrace.v1 import deployment_pb2 as _deployment_pb2
from headrace.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Guarantee(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GUARANTEE_UNSPECIFIED: _ClassVar[Guarantee]
    GUARANTEE_EXACTLY_ONCE: _ClassVar[Guarantee]
    GUARANTEE_AT_LEAST_ONCE: _ClassVar[Guarantee]

class ErrorPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_POLICY_UNSPECIFIED: _ClassVar[ErrorPolicy]
    ERROR_POLICY_DEAD_LETTER: _ClassVar[ErrorPolicy]
    ERROR_POLICY_SKIP: _ClassVar[ErrorPolicy]
    ERROR_POLICY_STOP: _ClassVar[ErrorPolicy]

class StartPosition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_POSITION_UNSPECIFIED: _ClassVar[StartPosition]
    START_POSITION_COMMITTED: _ClassVar[StartPosition]
    START_POSITION_EARLIEST: _ClassVar[StartPosition]
    START_POSITION_LATEST: _ClassVar[StartPosition]
    START_POSITION_TIME: _ClassVar[StartPosition]
    START_POSITION_INFERENCE: _ClassVar[StartPosition]

class InferenceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INFERENCE_STATE_UNSPECIFIED: _ClassVar[InferenceState]
    INFERENCE_STATE_STARTING: _ClassVar[InferenceState]
    INFERENCE_STATE_RUNNING: _ClassVar[InferenceState]
    INFERENCE_STATE_DEGRADED: _ClassVar[InferenceState]
    INFERENCE_STATE_STOPPING: _ClassVar[InferenceState]
    INFERENCE_STATE_STOPPED: _ClassVar[InferenceState]
    INFERENCE_STATE_FAILED: _ClassVar[InferenceState]
GUARANTEE_UNSPECIFIED: Guarantee
GUARANTEE_EXACTLY_ONCE: Guarantee
GUARANTEE_AT_LEAST_ONCE: Guarantee
ERROR_POLICY_UNSPECIFIED: ErrorPolicy
ERROR_POLICY_DEAD_LETTER: ErrorPolicy
ERROR_POLICY_SKIP: ErrorPolicy
ERROR_POLICY_STOP: ErrorPolicy
START_POSITION_UNSPECIFIED: StartPosition
START_POSITION_COMMITTED: StartPosition
START_POSITION_EARLIEST: StartPosition
START_POSITION_LATEST: StartPosition
START_POSITION_TIME: StartPosition
START_POSITION_INFERENCE: StartPosition
INFERENCE_STATE_UNSPECIFIED: InferenceState
INFERENCE_STATE_STARTING: InferenceState
INFERENCE_STATE_RUNNING: InferenceState
INFERENCE_STATE_DEGRADED: InferenceState
INFERENCE_STATE_STOPPING: InferenceState
INFERENCE_STATE_STOPPED: InferenceState
INFERENCE_STATE_FAILED: InferenceState

class BatchSettings(_message.Message):
    __slots__ = ("max_rows", "max_wait")
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    max_rows: int
    max_wait: _duration_pb2.Duration
    def __init__(self, max_rows: _Optional[int] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("slot", "state", "partitions", "lag", "rows_per_second", "model_version", "restart_count", "answered_count", "dead_letter_count", "report_time", "error", "result_id", "p50_duration", "p99_duration", "wanted_result_id", "live", "ready", "wish_etag", "metrics_address")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    P50_DURATION_FIELD_NUMBER: _ClassVar[int]
    P99_DURATION_FIELD_NUMBER: _ClassVar[int]
    WANTED_RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WISH_ETAG_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    state: InferenceState
    partitions: _containers.RepeatedScalarFieldContainer[int]
    lag: int
    rows_per_second: float
    model_version: int
    restart_count: int
    answered_count: int
    dead_letter_count: int
    report_time: _timestamp_pb2.Timestamp
    error: _status_pb2.Status
    result_id: int
    p50_duration: _duration_pb2.Duration
    p99_duration: _duration_pb2.Duration
    wanted_result_id: int
    live: bool
    ready: bool
    wish_etag: str
    metrics_address: str
    def __init__(self, slot: _Optional[int] = ..., state: _Optional[_Union[InferenceState, str]] = ..., partitions: _Optional[_Iterable[int]] = ..., lag: _Optional[int] = ..., rows_per_second: _Optional[float] = ..., model_version: _Optional[int] = ..., restart_count: _Optional[int] = ..., answered_count: _Optional[int] = ..., dead_letter_count: _Optional[int] = ..., report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., result_id: _Optional[int] = ..., p50_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wanted_result_id: _Optional[int] = ..., live: _Optional[bool] = ..., ready: _Optional[bool] = ..., wish_etag: _Optional[str] = ..., metrics_address: _Optional[str] = ...) -> None: ...

class AnswerLabels(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Inference(_message.Message):
    __slots__ = ("id", "create_time", "update_time", "name", "result_id", "model_id", "alias", "replicas", "input_topic", "output_topic", "input_format", "input_config", "output_format", "guarantee", "start", "start_time", "batch", "on_error", "limit", "upper_topic", "input_kafka_cluster", "output_kafka_cluster", "upper_kafka_cluster", "resources", "state", "error", "replica_states", "etag", "model_name", "model_version", "start_offsets", "answering_result_id", "output_config", "warnings", "input_partition_count", "input_topic_id", "consumer_group", "labels", "start_inference_id")
    class InputConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class StartOffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class OutputConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOPIC_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOPIC_FIELD_NUMBER: _ClassVar[int]
    INPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UPPER_TOPIC_FIELD_NUMBER: _ClassVar[int]
    INPUT_KAFKA_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_KAFKA_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    UPPER_KAFKA_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPLICA_STATES_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    START_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    ANSWERING_RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    INPUT_PARTITION_COUNT_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    START_INFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    name: str
    result_id: int
    model_id: int
    alias: str
    replicas: int
    input_topic: str
    output_topic: str
    input_format: _stream_pb2.DataFormat
    input_config: _containers.ScalarMap[str, str]
    output_format: _stream_pb2.DataFormat
    guarantee: Guarantee
    start: StartPosition
    start_time: _timestamp_pb2.Timestamp
    batch: BatchSettings
    on_error: ErrorPolicy
    limit: float
    upper_topic: str
    input_kafka_cluster: str
    output_kafka_cluster: str
    upper_kafka_cluster: str
    resources: _deployment_pb2.Resources
    state: InferenceState
    error: _status_pb2.Status
    replica_states: _containers.RepeatedCompositeFieldContainer[ReplicaState]
    etag: str
    model_name: str
    model_version: int
    start_offsets: _containers.ScalarMap[int, int]
    answering_result_id: int
    output_config: _containers.ScalarMap[str, str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    input_partition_count: int
    input_topic_id: str
    consumer_group: str
    labels: AnswerLabels
    start_inference_id: int
    def __init__(self, id: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., name: _Optional[str] = ..., result_id: _Optional[int] = ..., model_id: _Optional[int] = ..., alias: _Optional[str] = ..., replicas: _Optional[int] = ..., input_topic: _Optional[str] = ..., output_topic: _Optional[str] = ..., input_format: _Optional[_Union[_stream_pb2.DataFormat, str]] = ..., input_config: _Optional[_Mapping[str, str]] = ..., output_format: _Optional[_Union[_stream_pb2.DataFormat, str]] = ..., guarantee: _Optional[_Union[Guarantee, str]] = ..., start: _Optional[_Union[StartPosition, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., batch: _Optional[_Union[BatchSettings, _Mapping]] = ..., on_error: _Optional[_Union[ErrorPolicy, str]] = ..., limit: _Optional[float] = ..., upper_topic: _Optional[str] = ..., input_kafka_cluster: _Optional[str] = ..., output_kafka_cluster: _Optional[str] = ..., upper_kafka_cluster: _Optional[str] = ..., resources: _Optional[_Union[_deployment_pb2.Resources, _Mapping]] = ..., state: _Optional[_Union[InferenceState, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., replica_states: _Optional[_Iterable[_Union[ReplicaState, _Mapping]]] = ..., etag: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., start_offsets: _Optional[_Mapping[int, int]] = ..., answering_result_id: _Optional[int] = ..., output_config: _Optional[_Mapping[str, str]] = ..., warnings: _Optional[_Iterable[str]] = ..., input_partition_count: _Optional[int] = ..., input_topic_id: _Optional[str] = ..., consumer_group: _Optional[str] = ..., labels: _Optional[_Union[AnswerLabels, _Mapping]] = ..., start_inference_id: _Optional[int] = ...) -> None: ...
