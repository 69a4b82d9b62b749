"""The control plane as a process: `python -P -m control_plane`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from control_plane.artifacts import ArtifactStore
from control_plane.catalog import StreamCatalog
from control_plane.cluster import AsyncCluster
from control_plane.deployment_check import DeploymentCheck
from control_plane.deployment_manager import DeploymentManager
from control_plane.deployments import Deployments
from control_plane.events import Watchers
from control_plane.executor_client import executors_at
from control_plane.exports import Exports
from control_plane.inferences import Inferences
from control_plane.kafka_clusters import KafkaClusters
from control_plane.local import LocalCluster
from control_plane.logs import Logs
from control_plane.predictions import Predictions
from control_plane.queue import Queue, telling_moves
from control_plane.reconciler import Place, Reconciler, reconciling
from control_plane.registry import ModelRegistry
from control_plane.results import ResultCollector
from control_plane.settings import Settings
from control_plane.store import Store
from headrace import logs
from headrace.metrics import metrics_endpoint
from headrace.process import EXIT_OK, EXIT_RETRY, run_main
from headrace.server import RunningServer, Servicer, serving
from headrace.settings import load
from headrace.v1 import (
    deployment_manager_pb2_grpc,
    model_registry_pb2_grpc,
    predictions_pb2_grpc,
    result_collector_pb2_grpc,
    stream_catalog_pb2_grpc,
)
from sandbox.spares import SpareKeeper, address_of
from streams.clusters import secrets_of
from streams.kafka import KafkaSettings

log = logging.getLogger(__name__)

# A trainer that comes back after a week starts its upload anew.
UPLOADS_KEPT_S = 7 * 24 * 3600.0
DISK_CHECK_S = 1.0


def main() -> int:
    logs.configure("control_plane")
    return asyncio.run(_run(load(Settings, os.environ)))


async def _run(settings: Settings) -> int:
    """Serve until a signal comes (0), or the disk fails (75: started again it may go on)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with Store.open(settings.database_path) as store, SpareKeeper(address_of(settings.home)) as keeper:
        cluster = AsyncCluster(LocalCluster(settings.home, spares=keeper.address))
        async with (
            control_plane(settings, store, cluster, secrets_of(os.environ)) as server,
            reconciling(Reconciler(store, cluster, _place(settings, server.port))),
        ):
            # Where 0 was asked for, whoever started us reads the port here.
            log.info("ready", extra={"port": server.port})
            while not stop.is_set() and not store.broken.is_set():
                try:
                    async with asyncio.timeout(DISK_CHECK_S):
                        await stop.wait()
                except TimeoutError:
                    continue
    return EXIT_RETRY if store.broken.is_set() else EXIT_OK


@asynccontextmanager
async def control_plane(
    settings: Settings,
    store: Store,
    cluster: AsyncCluster | None = None,
    secrets: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningServer]:
    """Every service of the control plane on one port. Neither the broker nor the executors need to be there.

    It stores wishes; a reconciler on the same `cluster` fulfils them. secrets: what options of Kafka clusters refer to.
    """
    cluster = cluster or AsyncCluster(LocalCluster(settings.home))
    clusters = KafkaClusters(store, KafkaSettings(settings.kafka), secrets or {})
    async with AsyncExitStack() as stack:
        servicers = await _servicers(settings, store, cluster, clusters, stack)
        server = await stack.enter_async_context(serving(settings.listen, servicers))
        stack.enter_context(metrics_endpoint(settings.metrics_listen, ready=lambda: not store.broken.is_set()))
        yield server


def _place(settings: Settings, port: int) -> Place:
    """What workloads are told. They run on this machine, where a server on every address is reached on loopback."""
    host = settings.listen.rpartition(":")[0]
    reachable = "127.0.0.1" if host in ("", "0.0.0.0", "[::]") else host  # noqa: S104 - compared, not bound
    return Place(f"{reachable}:{port}", settings.kafka, settings.trainings_at_once, settings.stop_workloads)


async def _servicers(
    settings: Settings, store: Store, cluster: AsyncCluster, clusters: KafkaClusters, stack: AsyncExitStack
) -> Sequence[Servicer]:
    """The services, each with what it needs; `stack` ends what they started, after the server."""
    kafka = KafkaSettings(settings.kafka, longest_wait_s=settings.kafka_wait_s)
    watchers = Watchers(store)
    executors = await stack.enter_async_context(executors_at(settings.executors))
    artifacts = ArtifactStore(settings.artifacts_url, settings.uploads_path)
    artifacts.forget_uploads(UPLOADS_KEPT_S)
    check = DeploymentCheck(store, executors, kafka)
    queue = Queue(store, watchers, settings.trainings_at_once)
    await stack.enter_async_context(telling_moves(queue))
    return [
        (
            deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server,
            DeploymentManager(
                Deployments(store, watchers, check, artifacts, cluster, queue),
                Inferences(store, watchers, clusters, cluster, settings.control_topic),
                clusters,
                Logs(store, cluster),
            ),
            "headrace.v1.DeploymentManager",
        ),
        (
            model_registry_pb2_grpc.add_ModelRegistryServicer_to_server,
            ModelRegistry(store, executors),
            "headrace.v1.ModelRegistry",
        ),
        (
            result_collector_pb2_grpc.add_ResultCollectorServicer_to_server,
            ResultCollector(store, watchers, artifacts, queue, Exports(store, executors)),
            "headrace.v1.ResultCollector",
        ),
        (
            stream_catalog_pb2_grpc.add_StreamCatalogServicer_to_server,
            StreamCatalog(store, watchers, kafka, settings.control_topic),
            "headrace.v1.StreamCatalog",
        ),
        (
            predictions_pb2_grpc.add_PredictionsServicer_to_server,
            Predictions(store, clusters),
            "headrace.v1.Predictions",
        ),
    ]


if __name__ == "__main__":
    run_main(main)
