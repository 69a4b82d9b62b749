import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from headrace.v1 import deployment_pb2 as _deployment_pb2
from headrace.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Diagnostic(_message.Message):
    __slots__ = ("reason", "message", "file", "line", "column")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    file: str
    line: int
    column: int
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...

class ValidateCodeRequest(_message.Message):
    __slots__ = ("framework", "imports", "code")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    IMPORTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    framework: _model_pb2.Framework
    imports: str
    code: str
    def __init__(self, framework: _Optional[_Union[_model_pb2.Framework, str]] = ..., imports: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class ValidateCodeResponse(_message.Message):
    __slots__ = ("signature", "diagnostics", "output", "duration", "framework_version")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSTICS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    signature: _model_pb2.Signature
    diagnostics: _containers.RepeatedCompositeFieldContainer[Diagnostic]
    output: str
    duration: _duration_pb2.Duration
    framework_version: str
    def __init__(self, signature: _Optional[_Union[_model_pb2.Signature, _Mapping]] = ..., diagnostics: _Optional[_Iterable[_Union[Diagnostic, _Mapping]]] = ..., output: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., framework_version: _Optional[str] = ...) -> None: ...

class ValidateSettingsRequest(_message.Message):
    __slots__ = ("framework", "arguments")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    framework: _model_pb2.Framework
    arguments: _deployment_pb2.FrameworkArguments
    def __init__(self, framework: _Optional[_Union[_model_pb2.Framework, str]] = ..., arguments: _Optional[_Union[_deployment_pb2.FrameworkArguments, _Mapping]] = ...) -> None: ...

class ValidateSettingsResponse(_message.Message):
    __slots__ = ("diagnostics", "known_fit_args", "known_evaluate_args")
    DIAGNOSTICS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIT_ARGS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EVALUATE_ARGS_FIELD_NUMBER: _ClassVar[int]
    diagnostics: _containers.RepeatedCompositeFieldContainer[Diagnostic]
    known_fit_args: _containers.RepeatedScalarFieldContainer[str]
    known_evaluate_args: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, diagnostics: _Optional[_Iterable[_Union[Diagnostic, _Mapping]]] = ..., known_fit_args: _Optional[_Iterable[str]] = ..., known_evaluate_args: _Optional[_Iterable[str]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("result_id", "format")
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    result_id: int
    format: str
    def __init__(self, result_id: _Optional[int] = ..., format: _Optional[str] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("artifact_name",)
    ARTIFACT_NAME_FIELD_NUMBER: _ClassVar[int]
    artifact_name: str
    def __init__(self, artifact_name: _Optional[str] = ...) -> None: ...
