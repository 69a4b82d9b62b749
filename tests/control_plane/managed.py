"""A control plane with clients of DeploymentManager; its workloads are actors, if a reconciler runs at all."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.__main__ import control_plane
from control_plane.cluster import AsyncCluster
from control_plane.reconciler import Place, Reconciler, reconciling
from control_plane.settings import Settings
from control_plane.store import Store
from headrace.client import connect_async
from headrace.errors import HeadraceError
from headrace.server import serving
from headrace.v1 import code_executor_pb2
from headrace.v1.code_executor_pb2_grpc import add_CodeExecutorServicer_to_server
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.predictions_pb2_grpc import PredictionsStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from tests.control_plane.conftest import NOBODY, NOBODY_WAIT_S
from tests.control_plane.executor import ParsingExecutor
from tests.control_plane.world import World

KNOWN_FIT = ("epochs", "shuffle", "steps_per_epoch")
KNOWN_EVALUATE = ("steps",)


class SettingsExecutor(ParsingExecutor):
    """Knows a few arguments. `asked` counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def ValidateSettings(
        self, request: code_executor_pb2.ValidateSettingsRequest, context: Any
    ) -> code_executor_pb2.ValidateSettingsResponse:
        self.asked += 1
        answer = code_executor_pb2.ValidateSettingsResponse(
            known_fit_args=KNOWN_FIT, known_evaluate_args=KNOWN_EVALUATE
        )
        for file, known in (("fit_args", KNOWN_FIT), ("evaluate_args", KNOWN_EVALUATE)):
            call = ast.parse(f"f({getattr(request.arguments, file)})").body[0].value  # type: ignore[attr-defined]
            for word in call.keywords:
                if ast.unparse(word.value) == "0":
                    answer.diagnostics.add(reason="INVALID_FIELD", message=f"{word.arg} is 0", file=file)
                elif word.arg not in known:
                    message = f"{word.arg} is unknown"
                    answer.diagnostics.add(reason="UNKNOWN_ARGUMENT", message=message, file=file)
        return answer


@dataclass
class Managed:
    """A running control plane."""

    manager: Any
    collector: Any
    predictions: Any
    world: World
    executor: SettingsExecutor = field(default_factory=SettingsExecutor)


@asynccontextmanager
async def managed(
    home: Path,
    store: Store,
    *,
    kafka: str = NOBODY,
    max_trainings: int = 2,
    reconciled: bool = False,
    executor_away: bool = False,
) -> AsyncIterator[Managed]:
    """Serves until the block ends; then its workloads are stopped."""
    world, executor = World(home, store), SettingsExecutor()
    cluster = AsyncCluster(world.cluster)
    async with AsyncExitStack() as stack:
        service = (add_CodeExecutorServicer_to_server, executor, "headrace.v1.CodeExecutor")
        executors = await stack.enter_async_context(serving("127.0.0.1:0", [service]))
        settings = Settings(
            home=home,
            kafka=kafka,
            kafka_wait_s=NOBODY_WAIT_S if kafka == NOBODY else 6.0,
            listen="127.0.0.1:0",
            tensorflow_executor=NOBODY if executor_away else f"127.0.0.1:{executors.port}",
            pytorch_executor=NOBODY,
            max_trainings=max_trainings,
        )
        server = await stack.enter_async_context(control_plane(settings, store, cluster))
        if reconciled:
            place = Place(f"127.0.0.1:{server.port}", kafka, max_trainings)
            await stack.enter_async_context(reconciling(Reconciler(store, cluster, place)))
        channel = await stack.enter_async_context(connect_async(f"127.0.0.1:{server.port}"))
        yield Managed(
            DeploymentManagerStub(channel), ResultCollectorStub(channel), PredictionsStub(channel), world, executor
        )


def bad_fields(error: HeadraceError) -> dict[str, str]:
    """Field to description."""
    return {bad.field: bad.description for bad in error.fields}
