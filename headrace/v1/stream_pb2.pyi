import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_FORMAT_UNSPECIFIED: _ClassVar[DataFormat]
    DATA_FORMAT_RAW: _ClassVar[DataFormat]
    DATA_FORMAT_AVRO: _ClassVar[DataFormat]
    DATA_FORMAT_JSON: _ClassVar[DataFormat]
    DATA_FORMAT_PROTOBUF: _ClassVar[DataFormat]

class Dialect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIALECT_UNSPECIFIED: _ClassVar[Dialect]
    DIALECT_HEADRACE: _ClassVar[Dialect]
    DIALECT_KAFKA_ML: _ClassVar[Dialect]

class Availability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AVAILABILITY_UNSPECIFIED: _ClassVar[Availability]
    AVAILABILITY_AVAILABLE: _ClassVar[Availability]
    AVAILABILITY_PARTLY_EXPIRED: _ClassVar[Availability]
    AVAILABILITY_EXPIRED: _ClassVar[Availability]
    AVAILABILITY_NOT_WRITTEN: _ClassVar[Availability]
    AVAILABILITY_BLOCKED: _ClassVar[Availability]
DATA_FORMAT_UNSPECIFIED: DataFormat
DATA_FORMAT_RAW: DataFormat
DATA_FORMAT_AVRO: DataFormat
DATA_FORMAT_JSON: DataFormat
DATA_FORMAT_PROTOBUF: DataFormat
DIALECT_UNSPECIFIED: Dialect
DIALECT_HEADRACE: Dialect
DIALECT_KAFKA_ML: Dialect
AVAILABILITY_UNSPECIFIED: Availability
AVAILABILITY_AVAILABLE: Availability
AVAILABILITY_PARTLY_EXPIRED: Availability
AVAILABILITY_EXPIRED: Availability
AVAILABILITY_NOT_WRITTEN: Availability
AVAILABILITY_BLOCKED: Availability

class OffsetRange(_message.Message):
    __slots__ = ("topic", "partition", "start", "end")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    start: int
    end: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class StreamAnnouncement(_message.Message):
    __slots__ = ("message_id", "deployment_id", "ranges", "unsupervised_ranges", "input_format", "input_config", "validation_rate", "test_rate", "record_count", "description", "restrictions", "incremental", "open_topics", "stream_key", "topic_ids", "unsupervised_open_topics")
    class InputConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TopicIdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    UNSUPERVISED_RANGES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_RATE_FIELD_NUMBER: _ClassVar[int]
    TEST_RATE_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RESTRICTIONS_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_TOPICS_FIELD_NUMBER: _ClassVar[int]
    STREAM_KEY_FIELD_NUMBER: _ClassVar[int]
    TOPIC_IDS_FIELD_NUMBER: _ClassVar[int]
    UNSUPERVISED_OPEN_TOPICS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    deployment_id: int
    ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    unsupervised_ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    input_format: DataFormat
    input_config: _containers.ScalarMap[str, str]
    validation_rate: float
    test_rate: float
    record_count: int
    description: str
    restrictions: str
    incremental: bool
    open_topics: _containers.RepeatedScalarFieldContainer[str]
    stream_key: str
    topic_ids: _containers.ScalarMap[str, str]
    unsupervised_open_topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, message_id: _Optional[str] = ..., deployment_id: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., unsupervised_ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., input_format: _Optional[_Union[DataFormat, str]] = ..., input_config: _Optional[_Mapping[str, str]] = ..., validation_rate: _Optional[float] = ..., test_rate: _Optional[float] = ..., record_count: _Optional[int] = ..., description: _Optional[str] = ..., restrictions: _Optional[str] = ..., incremental: _Optional[bool] = ..., open_topics: _Optional[_Iterable[str]] = ..., stream_key: _Optional[str] = ..., topic_ids: _Optional[_Mapping[str, str]] = ..., unsupervised_open_topics: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamSource(_message.Message):
    __slots__ = ("topic", "partition", "offset", "time")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    time: _timestamp_pb2.Timestamp
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RefusedAnnouncement(_message.Message):
    __slots__ = ("deployment_id", "error", "source")
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    deployment_id: int
    error: _status_pb2.Status
    source: StreamSource
    def __init__(self, deployment_id: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., source: _Optional[_Union[StreamSource, _Mapping]] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("id", "create_time", "update_time", "deployment_id", "ranges", "unsupervised_ranges", "input_format", "input_config", "validation_rate", "test_rate", "record_count", "description", "restrictions", "incremental", "open_topics", "stream_key", "message_id", "dialect", "source", "availability", "range_string", "topic_ids", "unsupervised_open_topics")
    class InputConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TopicIdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    UNSUPERVISED_RANGES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_RATE_FIELD_NUMBER: _ClassVar[int]
    TEST_RATE_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RESTRICTIONS_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_TOPICS_FIELD_NUMBER: _ClassVar[int]
    STREAM_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    RANGE_STRING_FIELD_NUMBER: _ClassVar[int]
    TOPIC_IDS_FIELD_NUMBER: _ClassVar[int]
    UNSUPERVISED_OPEN_TOPICS_FIELD_NUMBER: _ClassVar[int]
    id: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    deployment_id: int
    ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    unsupervised_ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    input_format: DataFormat
    input_config: _containers.ScalarMap[str, str]
    validation_rate: float
    test_rate: float
    record_count: int
    description: str
    restrictions: str
    incremental: bool
    open_topics: _containers.RepeatedScalarFieldContainer[str]
    stream_key: str
    message_id: str
    dialect: Dialect
    source: StreamSource
    availability: Availability
    range_string: str
    topic_ids: _containers.ScalarMap[str, str]
    unsupervised_open_topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deployment_id: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., unsupervised_ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., input_format: _Optional[_Union[DataFormat, str]] = ..., input_config: _Optional[_Mapping[str, str]] = ..., validation_rate: _Optional[float] = ..., test_rate: _Optional[float] = ..., record_count: _Optional[int] = ..., description: _Optional[str] = ..., restrictions: _Optional[str] = ..., incremental: _Optional[bool] = ..., open_topics: _Optional[_Iterable[str]] = ..., stream_key: _Optional[str] = ..., message_id: _Optional[str] = ..., dialect: _Optional[_Union[Dialect, str]] = ..., source: _Optional[_Union[StreamSource, _Mapping]] = ..., availability: _Optional[_Union[Availability, str]] = ..., range_string: _Optional[str] = ..., topic_ids: _Optional[_Mapping[str, str]] = ..., unsupervised_open_topics: _Optional[_Iterable[str]] = ...) -> None: ...
