"""Inferences whose topics are on different Kafka clusters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.broker import Broker
from control_plane.store import Store
from headrace.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from headrace.v1 import deployment_manager_pb2 as api
from headrace.v1 import error_pb2, inference_pb2, predictions_pb2
from headrace.v1.deployment_pb2 import KafkaCluster
from headrace.v1.inference_pb2 import Inference
from streams.kafka import Headers, KafkaSettings, partitions_of
from streams.writer import BatchProducer
from tests.control_plane.managed import Managed, bad_fields, managed


async def named(plane: Managed, **fields: Any) -> KafkaCluster:
    request = api.CreateKafkaClusterRequest(kafka_cluster=KafkaCluster(**fields))
    answer: KafkaCluster = await plane.manager.CreateKafkaCluster(request)
    return answer


async def test_every_bad_field_of_a_cluster_is_told_at_once(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store) as plane:
        with pytest.raises(InvalidArgument) as refused:
            await named(plane, name="", bootstrap_servers="east", options={"sasl.password": "x", "group.id": "y"})
    assert set(bad_fields(refused.value)) == {
        "kafka_cluster.name",
        "kafka_cluster.bootstrap_servers",
        "kafka_cluster.options.sasl.password",
        "kafka_cluster.options.group.id",
    }


async def test_an_output_on_another_cluster_is_at_least_once_and_says_so(
    tmp_path: Path, store: Store, kafka: KafkaSettings, own_broker: Callable[[], Broker]
) -> None:
    east = KafkaSettings(own_broker().bootstrap_servers)
    run = uuid.uuid4().hex[:8]
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as plane:
        cluster = await named(plane, name="east", bootstrap_servers=east.bootstrap_servers)
        with pytest.raises(AlreadyExists):
            await named(plane, name="east", bootstrap_servers=east.bootstrap_servers)
        listed = await plane.manager.ListKafkaClusters(api.ListKafkaClustersRequest(name="east"))
        assert list(listed.kafka_clusters) == [cluster]

        wish = Inference(
            result_id=plane.world.finished("a"),
            input_topic=f"questions-{run}",
            output_topic=f"answers-{run}",
            output_kafka_cluster="east",
            replicas=2,
        )
        wish.guarantee = inference_pb2.GUARANTEE_EXACTLY_ONCE
        with pytest.raises(InvalidArgument) as refused:
            await plane.manager.CreateInference(api.CreateInferenceRequest(inference=wish))
        assert list(bad_fields(refused.value)) == ["inference.guarantee"]
        wish.ClearField("guarantee")
        one = await plane.manager.CreateInference(api.CreateInferenceRequest(inference=wish))
        assert one.guarantee == inference_pb2.GUARANTEE_AT_LEAST_ONCE
        assert ["a crash may repeat answers" in each for each in one.warnings] == [True]
        assert partitions_of(east, wish.output_topic) == [0, 1]
        assert partitions_of(kafka, f"{wish.input_topic}.dead-letters") == [0, 1]
        with pytest.raises(NotFound):
            partitions_of(kafka, wish.output_topic)
        await _assert_watched(plane, one, kafka, east)

        wish.output_kafka_cluster = "west"
        with pytest.raises(NotFound):
            await plane.manager.CreateInference(api.CreateInferenceRequest(inference=wish))
        with pytest.raises(FailedPrecondition) as in_use:
            await plane.manager.DeleteKafkaCluster(api.DeleteKafkaClusterRequest(id=cluster.id))
        assert in_use.value.reason == error_pb2.REASON_RESOURCE_IN_USE
        # Both on one other cluster: a transaction spans them.
        wish.input_kafka_cluster = wish.output_kafka_cluster = "east"
        both = await plane.manager.CreateInference(api.CreateInferenceRequest(inference=wish))
        assert (both.guarantee, list(both.warnings)) == (inference_pb2.GUARANTEE_EXACTLY_ONCE, [])


async def _assert_watched(plane: Managed, one: Inference, kafka: KafkaSettings, east: KafkaSettings) -> None:
    """An answer there is seen with its question here."""
    request = predictions_pb2.WatchPredictionsRequest(inference_id=one.id)
    watching = aiter(plane.predictions.WatchPredictions(request))
    for _ in range(2):
        await anext(watching)
    with BatchProducer(kafka) as producer:
        producer.produce(one.input_topic, None, np.full((8, 8), 3, np.uint8).tobytes(), [], 1)
        producer.flush()
    with BatchProducer(east) as producer:
        source: Headers = [("headrace-source", f"{one.input_topic}/1/0".encode())]
        producer.produce(one.output_topic, None, b'{"values": [1]}', source, 1)
        producer.flush()
    async with asyncio.timeout(20):
        while not (event := await anext(watching)).HasField("prediction"):
            continue
    assert event.prediction.source.partition == 1
    assert event.prediction.input_summary in ("", "8×8 numbers from 3 to 3, mean 3")
