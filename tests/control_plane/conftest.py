"""A control plane in this process: a real database, real sockets, an executor that parses code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane.__main__ import control_plane
from control_plane.settings import Settings
from control_plane.store import Store, configurations, deployments, models, results
from headrace.client import connect_async
from headrace.server import serving
from headrace.v1 import configuration_pb2, deployment_pb2, model_pb2
from headrace.v1.code_executor_pb2_grpc import add_CodeExecutorServicer_to_server
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.predictions_pb2_grpc import PredictionsStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.control_plane.executor import ParsingExecutor

NOBODY = "127.0.0.1:1"
NOBODY_WAIT_S = 0.5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "headrace.db") as opened:
        yield opened


@dataclass
class Plane:
    """A running control plane and clients of it."""

    address: str
    store: Store
    registry: Any
    collector: Any
    catalog: Any
    predictions: Any
    executor: ParsingExecutor

    async def training(self, *names: str, stream_id: int = 0, start: bool = True) -> deployment_pb2.Deployment:
        """A deployment of new models with these names, whose results have their first attempt."""
        return await self.store.write(lambda: new_training(*names, stream_id=stream_id, start=start))


def new_training(
    *names: str,
    stream_id: int = 0,
    start: bool = True,
    signature: model_pb2.Signature | None = None,
    code: str = "model = 1",
    allowed_topics: Sequence[str] = (),
) -> deployment_pb2.Deployment:
    """The same as a query, for tests of the store."""
    framework = model_pb2.FRAMEWORK_TENSORFLOW
    model_ids = [
        models.create(
            model_pb2.Model(name=name, framework=framework, code=code, code_sha256=name, signature=signature)
        ).id
        for name in names
    ]
    configuration = configurations.create(
        configuration_pb2.Configuration(name=f"all of {' '.join(names)}"[:63].strip(), model_ids=model_ids)
    )
    wish = deployment_pb2.Deployment(
        configuration_id=configuration.id,
        stream_id=stream_id,
        settings=deployment_pb2.TrainingSettings(batch_size=32, seed=7),
        allowed_topics=allowed_topics,
    )
    deployment = deployments.create(wish)
    if start:
        for result_id in deployment.result_ids:
            results.start_attempt(result_id)
    return deployments.get(deployment.id)


StartPlane = Callable[..., Awaitable[Plane]]


@pytest.fixture
async def start_plane(tmp_path: Path, store: Store) -> AsyncIterator[StartPlane]:
    """Starts a control plane: `await start_plane(kafka="HOST:PORT")`; settings as keywords."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Plane:
            executor = ParsingExecutor()
            service = (add_CodeExecutorServicer_to_server, executor, "headrace.v1.CodeExecutor")
            executors = await stack.enter_async_context(serving("127.0.0.1:0", [service]))
            defaults: dict[str, Any] = {
                "home": tmp_path,
                "kafka": NOBODY,
                "listen": "127.0.0.1:0",
                "tensorflow_executor": f"127.0.0.1:{executors.port}",
                "pytorch_executor": NOBODY,
            }
            if "kafka" not in settings:
                defaults["kafka_wait_s"] = NOBODY_WAIT_S
            server = await stack.enter_async_context(control_plane(Settings(**(defaults | settings)), store))
            address = f"127.0.0.1:{server.port}"
            channel = await stack.enter_async_context(connect_async(address))
            return Plane(
                address=address,
                store=store,
                registry=ModelRegistryStub(channel),
                collector=ResultCollectorStub(channel),
                catalog=StreamCatalogStub(channel),
                predictions=PredictionsStub(channel),
                executor=executor,
            )

        yield start


@pytest.fixture
async def plane(start_plane: StartPlane) -> Plane:
    """A control plane without a broker."""
    return await start_plane()
