"""Where the replicas' metrics are, as Prometheus discovers them over HTTP (`http_sd_configs`)."""

from __future__ import annotations

from typing import Any

from gateway.backend import Backend
from gateway.routes import Route, routes
from headrace.v1 import deployment_manager_pb2
from headrace.v1.inference_pb2 import Inference

PAGE_SIZE = 1000
TIMEOUT_S = 10.0


async def replica_targets(backend: Backend) -> list[dict[str, Any]]:
    """One group a replica that serves metrics. Raises HeadraceError."""
    route, found = _listing(), list[dict[str, Any]]()
    request = deployment_manager_pb2.ListInferencesRequest(page_size=PAGE_SIZE)
    while True:
        page = await backend.call(route, request, TIMEOUT_S)
        assert isinstance(page, deployment_manager_pb2.ListInferencesResponse)
        found += [group for inference in page.inferences for group in _groups(inference)]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _listing() -> Route:
    return next(route for route in routes() if route.method.name == "ListInferences")


def _groups(inference: Inference) -> list[dict[str, Any]]:
    return [
        {
            "targets": [replica.metrics_address],
            "labels": {
                "inference": inference.name,
                "inference_id": str(inference.id),
                "model": inference.model_name,
                "replica": str(replica.slot),
            },
        }
        for replica in inference.replica_states
        if replica.metrics_address and replica.live
    ]
