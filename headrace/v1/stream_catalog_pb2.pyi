import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import model_pb2 as _model_pb2
from headrace.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStreamRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "deployment_id", "view")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    deployment_id: int
    view: _model_pb2.View
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., deployment_id: _Optional[int] = ..., view: _Optional[_Union[_model_pb2.View, str]] = ...) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams", "next_page_token")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[_stream_pb2.Stream]
    next_page_token: str
    def __init__(self, streams: _Optional[_Iterable[_Union[_stream_pb2.Stream, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteStreamRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ReplayStreamRequest(_message.Message):
    __slots__ = ("id", "deployment_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    deployment_id: int
    def __init__(self, id: _Optional[int] = ..., deployment_id: _Optional[int] = ...) -> None: ...

class ReplayStreamResponse(_message.Message):
    __slots__ = ("source",)
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    source: _stream_pb2.StreamSource
    def __init__(self, source: _Optional[_Union[_stream_pb2.StreamSource, _Mapping]] = ...) -> None: ...

class TopicSelection(_message.Message):
    __slots__ = ("topic", "partitions", "start_time", "end_time", "since")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    since: _duration_pb2.Duration
    def __init__(self, topic: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., since: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AnnounceStreamRequest(_message.Message):
    __slots__ = ("deployment_id", "ranges", "selections", "input_format", "input_config", "validation_rate", "test_rate", "description", "restrictions", "validate_only")
    class InputConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    SELECTIONS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_RATE_FIELD_NUMBER: _ClassVar[int]
    TEST_RATE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RESTRICTIONS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    deployment_id: int
    ranges: _containers.RepeatedCompositeFieldContainer[_stream_pb2.OffsetRange]
    selections: _containers.RepeatedCompositeFieldContainer[TopicSelection]
    input_format: _stream_pb2.DataFormat
    input_config: _containers.ScalarMap[str, str]
    validation_rate: float
    test_rate: float
    description: str
    restrictions: str
    validate_only: bool
    def __init__(self, deployment_id: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[_stream_pb2.OffsetRange, _Mapping]]] = ..., selections: _Optional[_Iterable[_Union[TopicSelection, _Mapping]]] = ..., input_format: _Optional[_Union[_stream_pb2.DataFormat, str]] = ..., input_config: _Optional[_Mapping[str, str]] = ..., validation_rate: _Optional[float] = ..., test_rate: _Optional[float] = ..., description: _Optional[str] = ..., restrictions: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class AnnounceStreamResponse(_message.Message):
    __slots__ = ("source", "ranges", "offset_count")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_COUNT_FIELD_NUMBER: _ClassVar[int]
    source: _stream_pb2.StreamSource
    ranges: _containers.RepeatedCompositeFieldContainer[_stream_pb2.OffsetRange]
    offset_count: int
    def __init__(self, source: _Optional[_Union[_stream_pb2.StreamSource, _Mapping]] = ..., ranges: _Optional[_Iterable[_Union[_stream_pb2.OffsetRange, _Mapping]]] = ..., offset_count: _Optional[int] = ...) -> None: ...

class GetStreamHeadRequest(_message.Message):
    __slots__ = ("id", "record_count")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: int
    record_count: int
    def __init__(self, id: _Optional[int] = ..., record_count: _Optional[int] = ...) -> None: ...

class StreamRecord(_message.Message):
    __slots__ = ("topic", "partition", "offset", "time", "sample", "label", "sample_text", "label_text", "decode_error")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TEXT_FIELD_NUMBER: _ClassVar[int]
    LABEL_TEXT_FIELD_NUMBER: _ClassVar[int]
    DECODE_ERROR_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    time: _timestamp_pb2.Timestamp
    sample: _containers.RepeatedScalarFieldContainer[float]
    label: _containers.RepeatedScalarFieldContainer[float]
    sample_text: str
    label_text: str
    decode_error: str
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sample: _Optional[_Iterable[float]] = ..., label: _Optional[_Iterable[float]] = ..., sample_text: _Optional[str] = ..., label_text: _Optional[str] = ..., decode_error: _Optional[str] = ...) -> None: ...

class GetStreamHeadResponse(_message.Message):
    __slots__ = ("records", "sample", "label", "fields", "availability")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[StreamRecord]
    sample: _model_pb2.TensorSpec
    label: _model_pb2.TensorSpec
    fields: _containers.RepeatedCompositeFieldContainer[_model_pb2.TensorSpec]
    availability: _stream_pb2.Availability
    def __init__(self, records: _Optional[_Iterable[_Union[StreamRecord, _Mapping]]] = ..., sample: _Optional[_Union[_model_pb2.TensorSpec, _Mapping]] = ..., label: _Optional[_Union[_model_pb2.TensorSpec, _Mapping]] = ..., fields: _Optional[_Iterable[_Union[_model_pb2.TensorSpec, _Mapping]]] = ..., availability: _Optional[_Union[_stream_pb2.Availability, str]] = ...) -> None: ...

class AwaitStreamRequest(_message.Message):
    __slots__ = ("deployment_id", "wait")
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    deployment_id: int
    wait: _duration_pb2.Duration
    def __init__(self, deployment_id: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AwaitStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _stream_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_stream_pb2.Stream, _Mapping]] = ...) -> None: ...

class RecordStreamRequest(_message.Message):
    __slots__ = ("source", "dialect", "announcement", "refused")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    source: _stream_pb2.StreamSource
    dialect: _stream_pb2.Dialect
    announcement: _stream_pb2.StreamAnnouncement
    refused: _containers.RepeatedCompositeFieldContainer[_stream_pb2.RefusedAnnouncement]
    def __init__(self, source: _Optional[_Union[_stream_pb2.StreamSource, _Mapping]] = ..., dialect: _Optional[_Union[_stream_pb2.Dialect, str]] = ..., announcement: _Optional[_Union[_stream_pb2.StreamAnnouncement, _Mapping]] = ..., refused: _Optional[_Iterable[_Union[_stream_pb2.RefusedAnnouncement, _Mapping]]] = ...) -> None: ...

class RecordStreamResponse(_message.Message):
    __slots__ = ("stream", "created")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    stream: _stream_pb2.Stream
    created: bool
    def __init__(self, stream: _Optional[_Union[_stream_pb2.Stream, _Mapping]] = ..., created: _Optional[bool] = ...) -> None: ...

class GetRecordedPositionsRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class GetRecordedPositionsResponse(_message.Message):
    __slots__ = ("next_offsets",)
    class NextOffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    NEXT_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    next_offsets: _containers.ScalarMap[int, int]
    def __init__(self, next_offsets: _Optional[_Mapping[int, int]] = ...) -> None: ...
