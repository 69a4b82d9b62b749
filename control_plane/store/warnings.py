"""What whoever made an inference should know of it."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.v1.inference_pb2 import Inference


def warnings_of(inference: Inference) -> Iterator[str]:
    """In sentences."""
    if inference.input_kafka_cluster != inference.output_kafka_cluster:
        yield (
            "The output is on another Kafka cluster than the input: no transaction spans both, so a crash may repeat"
            " answers (AT_LEAST_ONCE)."
        )
    partitions = _partitions(inference)
    if 0 < partitions < inference.replicas:
        idle = inference.replicas - partitions
        yield (
            f"{inference.replicas} replicas share {partitions} partition{'s' if partitions > 1 else ''} of"
            f" {inference.input_topic}: {idle} of them {'have' if idle > 1 else 'has'} nothing to do until others end."
        )


def _partitions(inference: Inference) -> int:
    """As many as there were; more may have been added since, which replicas show."""
    assigned = [number + 1 for replica in inference.replica_states for number in replica.partitions]
    return max([inference.input_partition_count, *assigned])
