"""Follows a training as it happens, over any number of broken connections."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import grpc

from headrace.errors import Aborted, DeadlineExceeded, HeadraceError, Internal, ResourceExhausted, Unavailable
from headrace.v1 import deployment_manager_pb2, deployment_pb2, error_pb2, result_collector_pb2, result_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub

ENDED = frozenset({deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED, deployment_pb2.STATE_CANCELLED})
# A watch ends by itself after ten minutes.
WATCH_TIMEOUT_S = 700.0
# So long may a control plane be away before the following gives up.
PATIENCE_S = 120.0
PAUSE_S = 0.5
# What a broken, lagging or ended stream raises, besides the end of the training: go on behind the last event.
_RESUMABLE = (Unavailable, DeadlineExceeded, ResourceExhausted, Aborted, Internal)


def follow(
    channel: grpc.Channel, *, deployment_id: int = 0, result_id: int = 0, timeout_s: float = math.inf
) -> Iterator[result_pb2.ResultEvent]:
    """Every event of the results of a deployment, or of one result: those stored, then those that come, to the end.

    Each once and in order, whatever happens to the connection. Raises the last error when the control plane is away
    for two minutes, DeadlineExceeded when the training has not ended after `timeout_s`.
    """
    collector = ResultCollectorStub(channel)
    after, last_contact = 0, time.monotonic()
    deadline = time.monotonic() + timeout_s
    while True:
        request = result_collector_pb2.WatchResultsRequest(
            deployment_id=deployment_id, result_id=result_id, after_sequence=after
        )
        try:
            for event in collector.WatchResults(request, timeout=WATCH_TIMEOUT_S):
                after, last_contact = max(after, event.sequence), time.monotonic()
                if event.WhichOneof("kind") is not None:
                    yield event
                if time.monotonic() > deadline:
                    raise _Late
            if _has_ended(channel, deployment_id, result_id):
                return
            last_contact = time.monotonic()
        except _Late:
            raise DeadlineExceeded(
                error_pb2.REASON_DEADLINE, f"the training has not ended after {timeout_s:g} s"
            ) from None
        except HeadraceError as error:
            if not isinstance(error, _RESUMABLE) or time.monotonic() - last_contact > PATIENCE_S:
                raise
        time.sleep(PAUSE_S)


class _Late(Exception):
    """The time is over; not to be taken for a call whose deadline is over."""


def _has_ended(channel: grpc.Channel, deployment_id: int, result_id: int) -> bool:
    if deployment_id:
        request = deployment_manager_pb2.GetDeploymentRequest(id=deployment_id)
        return DeploymentManagerStub(channel).GetDeployment(request).state in ENDED
    return ResultCollectorStub(channel).GetResult(result_collector_pb2.GetResultRequest(id=result_id)).state in ENDED
