"""The Kafka clusters that inferences may read and write beside the platform's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from google.protobuf import empty_pb2

from control_plane.listing import newest_first
from control_plane.store import Store, kafka_clusters
from control_plane.validation import bad_name, refuse
from headrace.errors import FieldViolation
from headrace.settings import host_port
from headrace.v1 import deployment_manager_pb2
from headrace.v1.deployment_pb2 import KafkaCluster
from headrace.v1.inference_pb2 import Inference
from streams.clusters import bad_options, settings_of
from streams.kafka import KafkaSettings, await_kafka

ASK_TIMEOUT_S = 6.0


class Clusters(NamedTuple):
    """Of one inference. Questions and their dead letters are on the same one."""

    input: KafkaSettings
    output: KafkaSettings


class KafkaClusters:
    """By name; the platform's own has none.

    secrets: what their options refer to with `env:`.
    """

    def __init__(self, store: Store, platform: KafkaSettings, secrets: Mapping[str, str]) -> None:
        self._store, self._platform, self._secrets = store, platform, secrets

    async def create(self, request: deployment_manager_pb2.CreateKafkaClusterRequest) -> KafkaCluster:
        """Raises InvalidArgument with every bad field, Unavailable where nobody answers."""
        wish = request.kafka_cluster
        refuse([*_bad_fields(wish)])
        await asyncio.to_thread(await_kafka, settings_of(wish, self._secrets), ASK_TIMEOUT_S)
        return await self._store.write(lambda: kafka_clusters.create(wish))

    async def get(self, id: int) -> KafkaCluster:
        return await self._store.read(lambda: kafka_clusters.get(id))

    async def page(
        self, request: deployment_manager_pb2.ListKafkaClustersRequest
    ) -> deployment_manager_pb2.ListKafkaClustersResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: kafka_clusters.page(before_id=before_id, limit=limit, name=request.name),
        )
        return deployment_manager_pb2.ListKafkaClustersResponse(kafka_clusters=items, next_page_token=token)

    async def delete(self, id: int) -> empty_pb2.Empty:
        """Raises FailedPrecondition while an inference uses it."""
        await self._store.write(lambda: kafka_clusters.delete(id))
        return empty_pb2.Empty()

    async def of(self, inference: Inference) -> Clusters:
        """Where its topics are. Raises NotFound for a name that there is not."""
        source = await self._settings(inference.input_kafka_cluster)
        target = await self._settings(inference.output_kafka_cluster)
        return Clusters(source, target)

    async def _settings(self, name: str) -> KafkaSettings:
        if not name:
            return self._platform
        return settings_of(await self._store.read(lambda: kafka_clusters.named(name)), self._secrets)


def _bad_fields(wish: KafkaCluster) -> Iterable[FieldViolation]:
    yield from bad_name("kafka_cluster.name", wish.name)
    try:
        for server in wish.bootstrap_servers.split(","):
            host_port(server.strip() or "nothing")
    except ValueError as error:
        yield FieldViolation("kafka_cluster.bootstrap_servers", f"must be {error}, or several joined by commas")
    for name, rule in bad_options(wish.options):
        yield FieldViolation(f"kafka_cluster.options.{name}", rule)
