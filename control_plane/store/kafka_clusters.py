"""Queries of Kafka clusters."""

from __future__ import annotations

from control_plane.store import inferences
from control_plane.store.clock import now_us
from control_plane.store.lookups import check_name_free, in_use, not_named, row_of
from control_plane.store.rows import kafka_cluster_message
from control_plane.store.tables import KafkaClusterRow
from headrace.v1.deployment_pb2 import KafkaCluster


def create(cluster: KafkaCluster) -> KafkaCluster:
    """Raises AlreadyExists when its name is taken."""
    check_name_free(KafkaClusterRow, cluster.name)
    kept = KafkaCluster(bootstrap_servers=cluster.bootstrap_servers, options=cluster.options)
    row = KafkaClusterRow.create(create_time=now_us(), name=cluster.name, cluster_pb=kept.SerializeToString())
    return kafka_cluster_message(row)


def get(id: int) -> KafkaCluster:
    return kafka_cluster_message(row_of(KafkaClusterRow, id))


def named(name: str) -> KafkaCluster:
    """Raises NotFound."""
    row = KafkaClusterRow.get_or_none(KafkaClusterRow.name == name)
    if row is None:
        raise not_named("kafka_cluster", name)
    return kafka_cluster_message(row)


def page(*, before_id: int | None, limit: int, name: str = "") -> list[KafkaCluster]:
    """Newest first, those with an id below `before_id`."""
    query = KafkaClusterRow.select().order_by(KafkaClusterRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(KafkaClusterRow.id < before_id)
    if name:
        query = query.where(KafkaClusterRow.name == name)
    return [kafka_cluster_message(row) for row in query]


def delete(id: int) -> None:
    """Delete one that no inference names, whatever its state."""
    row = row_of(KafkaClusterRow, id)
    if users := inferences.users_of_cluster(row.name):
        raise in_use("kafka_cluster", id, "inference", users)
    row.delete_instance()
