import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.v1 import deployment_pb2 as _deployment_pb2
from headrace.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateDeploymentRequest(_message.Message):
    __slots__ = ("deployment", "validate_only", "request_id")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    validate_only: bool
    request_id: str
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., validate_only: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetDeploymentRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListDeploymentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "configuration_id", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    configuration_id: int
    state: _deployment_pb2.State
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., configuration_id: _Optional[int] = ..., state: _Optional[_Union[_deployment_pb2.State, str]] = ...) -> None: ...

class ListDeploymentsResponse(_message.Message):
    __slots__ = ("deployments", "next_page_token")
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.Deployment]
    next_page_token: str
    def __init__(self, deployments: _Optional[_Iterable[_Union[_deployment_pb2.Deployment, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDeploymentRequest(_message.Message):
    __slots__ = ("id", "force")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    id: int
    force: bool
    def __init__(self, id: _Optional[int] = ..., force: _Optional[bool] = ...) -> None: ...

class CancelDeploymentRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class CreateInferenceRequest(_message.Message):
    __slots__ = ("inference", "validate_only", "request_id")
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    inference: _inference_pb2.Inference
    validate_only: bool
    request_id: str
    def __init__(self, inference: _Optional[_Union[_inference_pb2.Inference, _Mapping]] = ..., validate_only: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetInferenceRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListInferencesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state", "result_id", "name")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: _inference_pb2.InferenceState
    result_id: int
    name: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[_inference_pb2.InferenceState, str]] = ..., result_id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ListInferencesResponse(_message.Message):
    __slots__ = ("inferences", "next_page_token")
    INFERENCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    inferences: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Inference]
    next_page_token: str
    def __init__(self, inferences: _Optional[_Iterable[_Union[_inference_pb2.Inference, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateInferenceRequest(_message.Message):
    __slots__ = ("inference", "update_mask")
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    inference: _inference_pb2.Inference
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, inference: _Optional[_Union[_inference_pb2.Inference, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteInferenceRequest(_message.Message):
    __slots__ = ("id", "force")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    id: int
    force: bool
    def __init__(self, id: _Optional[int] = ..., force: _Optional[bool] = ...) -> None: ...

class StopInferenceRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class CreateKafkaClusterRequest(_message.Message):
    __slots__ = ("kafka_cluster",)
    KAFKA_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    kafka_cluster: _deployment_pb2.KafkaCluster
    def __init__(self, kafka_cluster: _Optional[_Union[_deployment_pb2.KafkaCluster, _Mapping]] = ...) -> None: ...

class GetKafkaClusterRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ListKafkaClustersRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "name")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    name: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ListKafkaClustersResponse(_message.Message):
    __slots__ = ("kafka_clusters", "next_page_token")
    KAFKA_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kafka_clusters: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.KafkaCluster]
    next_page_token: str
    def __init__(self, kafka_clusters: _Optional[_Iterable[_Union[_deployment_pb2.KafkaCluster, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteKafkaClusterRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class WatchLogsRequest(_message.Message):
    __slots__ = ("deployment_id", "inference_id", "no_follow")
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    NO_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    deployment_id: int
    inference_id: int
    no_follow: bool
    def __init__(self, deployment_id: _Optional[int] = ..., inference_id: _Optional[int] = ..., no_follow: _Optional[bool] = ...) -> None: ...

class WatchLogsResponse(_message.Message):
    __slots__ = ("workload", "lines")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    workload: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, workload: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportReplicaRequest(_message.Message):
    __slots__ = ("inference_id", "replica", "attempt")
    INFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    inference_id: int
    replica: _inference_pb2.ReplicaState
    attempt: int
    def __init__(self, inference_id: _Optional[int] = ..., replica: _Optional[_Union[_inference_pb2.ReplicaState, _Mapping]] = ..., attempt: _Optional[int] = ...) -> None: ...

class ReportReplicaResponse(_message.Message):
    __slots__ = ("inference", "time")
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    inference: _inference_pb2.Inference
    time: _timestamp_pb2.Timestamp
    def __init__(self, inference: _Optional[_Union[_inference_pb2.Inference, _Mapping]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
