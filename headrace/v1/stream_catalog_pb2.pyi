import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
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
    __slots__ = ("source", "dialect", "announcement")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DIALECT_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    source: _stream_pb2.StreamSource
    dialect: _stream_pb2.Dialect
    announcement: _stream_pb2.StreamAnnouncement
    def __init__(self, source: _Optional[_Union[_stream_pb2.StreamSource, _Mapping]] = ..., dialect: _Optional[_Union[_stream_pb2.Dialect, str]] = ..., announcement: _Optional[_Union[_stream_pb2.StreamAnnouncement, _Mapping]] = ...) -> None: ...

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
