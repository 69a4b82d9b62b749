"""The logs of the processes of a training or an inference."""

from __future__ import annotations

from cli import output
from cli.connection import control_plane
from headrace.v1.deployment_manager_pb2 import WatchLogsRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub

TIMEOUT_S = 700.0


def print_logs(request: WatchLogsRequest, as_json: bool) -> None:
    """Print the lines as they come, each with its process; to the end of what is stored, or of the work."""
    with control_plane() as channel:
        for batch in DeploymentManagerStub(channel).WatchLogs(request, timeout=TIMEOUT_S):
            if as_json:
                output.print_json_line(batch)
                continue
            for line in batch.lines:
                print(f"{batch.workload} | {line}", flush=True)
