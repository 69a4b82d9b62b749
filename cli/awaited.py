"""Whether a training waits for the stream that is about to be sent: if not, it would be sent in silence for nothing."""

from __future__ import annotations

from contextlib import suppress

import grpc

from cli import output
from cli.connection import control_plane
from cli.following import ENDED
from headrace.errors import HeadraceError, NotFound
from headrace.v1 import deployment_manager_pb2, deployment_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub

# Data may be sent where there is no control plane: it is not waited for.
TIMEOUT_S = 2.0


def warn_unless_awaited(deployment_id: int) -> None:
    """Say on stderr why nobody would train on a stream for this deployment, as far as a control plane can be asked."""
    with suppress(HeadraceError), control_plane() as channel:
        if why := _why_not(channel, deployment_id):
            output.errors.print(f"headrace: warning: {why}", style="yellow", markup=False, soft_wrap=True)


def _why_not(channel: grpc.Channel, deployment_id: int) -> str:
    manager = DeploymentManagerStub(channel)
    later = "train on it later: headrace train CONFIGURATION --stream ID"
    try:
        request = deployment_manager_pb2.GetDeploymentRequest(id=deployment_id)
        found = manager.GetDeployment(request, timeout=TIMEOUT_S)
    except NotFound:
        return f"there is no deployment {deployment_id}; the stream waits for one with this id, or {later}"
    if found.state in ENDED:
        return f"the deployment {deployment_id} is {output.state_name(found.state)} and takes no stream; {later}"
    if has := _stream_of(found):
        return f"the deployment {deployment_id} has {has} already and takes no other; {later}"
    return ""


def _stream_of(found: deployment_pb2.Deployment) -> str:
    if found.from_result_id:
        return f"the stream of the result {found.from_result_id}"
    return f"the stream {found.stream_id}" if found.stream_id else ""
