"""Prometheus finds the metrics of replicas."""

import pytest

from headrace.errors import Unavailable
from headrace.v1 import deployment_manager_pb2, error_pb2, inference_pb2
from tests.gateway.conftest import Behind

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_prometheus_is_told_of_every_replica_that_lives(behind: Behind) -> None:
    replicas = [
        inference_pb2.ReplicaState(slot=0, live=True, metrics_address="127.0.0.1:4000"),
        inference_pb2.ReplicaState(slot=1, live=False, metrics_address="127.0.0.1:4001"),
        inference_pb2.ReplicaState(slot=2, live=True),
    ]
    inference = inference_pb2.Inference(id=3, name="live", model_name="digits", replica_states=replicas)
    page = deployment_manager_pb2.ListInferencesResponse(inferences=[inference])
    behind.echo.answers["ListInferences"] = [page]
    answer = await behind.http.get("/metrics/targets")
    labels = {"inference": "live", "inference_id": "3", "model": "digits", "replica": "0"}
    assert answer.json() == [{"targets": ["127.0.0.1:4000"], "labels": labels}]


async def test_prometheus_keeps_what_it_knows_while_the_control_plane_is_away(behind: Behind) -> None:
    behind.echo.answers["ListInferences"] = [Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, "away")]
    assert (await behind.http.get("/metrics/targets")).status_code == 503
