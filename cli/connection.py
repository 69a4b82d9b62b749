"""The control plane as the commands reach it, and the resources that people name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from cli.home import control_plane_address
from headrace.client import connect
from headrace.errors import NotFound, Unavailable
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    error_pb2,
    inference_pb2,
    model_pb2,
    model_registry_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub

R = TypeVar("R")

# Building the model's code in a sandbox is part of the call.
VALIDATION_TIMEOUT_S = 120.0
PAGE_SIZE = 1000


@contextmanager
def control_plane() -> Iterator[grpc.Channel]:
    """A channel to the control plane. Where it cannot be reached, the error says how to start one."""
    address = control_plane_address()
    try:
        with connect(address) as channel:
            yield channel
    except Unavailable as error:
        if error.reason == error_pb2.REASON_SERVICE_UNAVAILABLE and error.metadata.get("address") == address:
            raise Unavailable(
                error.reason,
                f"no control plane answers on {address}; start one with `headrace up`, "
                "or set HEADRACE_ADDRESS to where yours listens",
                address=address,
            ) from error
        raise


def list_all(method: Callable[..., Any], request: Any, limit: int) -> Any:
    """The first `limit` items of a List, as one response message with the token of what was left out."""
    response: Any = None
    while response is None or (response.next_page_token and _count(response) < limit):
        request.page_size = min(PAGE_SIZE, limit - (_count(response) if response is not None else 0))
        request.page_token = response.next_page_token if response is not None else ""
        page = method(request)
        if response is None:
            response = page
        else:
            response.MergeFrom(page)
            response.next_page_token = page.next_page_token
    return response


def _count(response: Message) -> int:
    items = next(field for field in response.DESCRIPTOR.fields if field.message_type is not None)
    return len(getattr(response, items.name))


def find_model(channel: grpc.Channel, name_or_id: str) -> model_pb2.Model:
    """The model with this id or name, whole. Raises NotFound."""
    registry = ModelRegistryStub(channel)

    def get(model_id: int) -> model_pb2.Model:
        return registry.GetModel(model_registry_pb2.GetModelRequest(id=model_id))  # type: ignore[no-any-return]

    def named() -> Iterable[model_pb2.Model]:
        found = registry.ListModels(model_registry_pb2.ListModelsRequest(name=name_or_id)).models
        return [get(each.id) for each in found]  # a list leaves the code out

    return _find("model", name_or_id, get, named)


def find_configuration(channel: grpc.Channel, name_or_id: str) -> configuration_pb2.Configuration:
    """The configuration with this id or name. Raises NotFound."""
    registry = ModelRegistryStub(channel)

    def get(configuration_id: int) -> configuration_pb2.Configuration:
        request = model_registry_pb2.GetConfigurationRequest(id=configuration_id)
        return registry.GetConfiguration(request)  # type: ignore[no-any-return]

    def named() -> Iterable[configuration_pb2.Configuration]:
        request = model_registry_pb2.ListConfigurationsRequest(name=name_or_id)
        return registry.ListConfigurations(request).configurations  # type: ignore[no-any-return]

    return _find("configuration", name_or_id, get, named)


def find_inference(channel: grpc.Channel, name_or_id: str) -> inference_pb2.Inference:
    """The inference with this id or name. Raises NotFound."""
    manager = DeploymentManagerStub(channel)

    def get(inference_id: int) -> inference_pb2.Inference:
        return manager.GetInference(  # type: ignore[no-any-return]
            deployment_manager_pb2.GetInferenceRequest(id=inference_id)
        )

    def named() -> Iterable[inference_pb2.Inference]:
        request = deployment_manager_pb2.ListInferencesRequest(name=name_or_id)
        return manager.ListInferences(request).inferences  # type: ignore[no-any-return]

    return _find("inference", name_or_id, get, named)


def _find(resource: str, name_or_id: str, get: Callable[[int], R], named: Callable[[], Iterable[R]]) -> R:
    """The id first: a resource that somebody calls "2" must not be taken for the one with that id."""
    if name_or_id.isascii() and name_or_id.isdecimal() and len(name_or_id) < 19:
        try:
            return get(int(name_or_id))
        except NotFound:
            pass
    for found in named():
        return found
    raise NotFound(
        error_pb2.REASON_RESOURCE_NOT_FOUND,
        f"there is no {resource} called {name_or_id!r}; `headrace {resource} list` shows those that there are",
        resource=resource,
        id=name_or_id,
    )
