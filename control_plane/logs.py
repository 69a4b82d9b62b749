"""The logs of a training's or an inference's processes: what is stored, then what comes, until they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from control_plane.cluster import AsyncCluster
from control_plane.inferences import slots
from control_plane.names import replica_name, trainer_name
from control_plane.store import Store, deployments, inferences, results, states
from control_plane.validation import refuse
from headrace.errors import FieldViolation
from headrace.v1.deployment_manager_pb2 import WatchLogsRequest, WatchLogsResponse

POLL_S = 0.3
WATCH_LIMIT_S = 600.0
# A line without an end is told in parts of this size.
LINE_BYTES = 64 * 1024


class Logs:
    """Reads from the cluster; nothing of a log is in the store."""

    def __init__(
        self, store: Store, cluster: AsyncCluster, *, poll_s: float = POLL_S, watch_limit_s: float = WATCH_LIMIT_S
    ) -> None:
        self._store, self._cluster = store, cluster
        self._poll_s, self._watch_limit_s = poll_s, watch_limit_s

    async def watch(self, request: WatchLogsRequest) -> AsyncIterator[WatchLogsResponse]:
        """Lines of each process in their order. Ends with the processes, or after ten minutes."""
        _check(request)
        tails: dict[str, _Tail] = {}
        deadline = time.monotonic() + self._watch_limit_s
        while True:
            # In this order: what a process that has ended wrote is there to be read.
            names, is_over = await self._look(request)
            for name in names:
                tail = tails.setdefault(name, _Tail(self._cluster, name))
                async for response in tail.read():
                    yield response
            if is_over or request.no_follow or time.monotonic() >= deadline:
                break
            await asyncio.sleep(self._poll_s)
        for tail in tails.values():
            if (rest := tail.rest()) is not None:
                yield rest

    async def _look(self, request: WatchLogsRequest) -> tuple[list[str], bool]:
        """The names of the processes that there are and were, and whether no more will be written."""
        running = {name for name, one in (await self._cluster.list()).workloads.items() if one.is_running}
        names, is_final = await self._store.read(
            lambda: (
                _of_deployment(request.deployment_id) if request.deployment_id else _of_inference(request.inference_id)
            )
        )
        return names, is_final and not running.intersection(names)


class _Tail:
    """One log, read line by line."""

    def __init__(self, cluster: AsyncCluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        self._offset = 0
        self._partial = b""

    async def read(self) -> AsyncIterator[WatchLogsResponse]:
        """The lines that were completed since."""
        while True:
            chunk = await self._cluster.read_logs(self._name, self._offset)
            if not chunk.data:
                return
            self._offset = chunk.next_offset
            *lines, self._partial = (self._partial + chunk.data).split(b"\n")
            if len(self._partial) > LINE_BYTES:
                lines, self._partial = [*lines, self._partial], b""
            if lines:
                yield self._response(lines)

    def rest(self) -> WatchLogsResponse | None:
        """What has no end of line."""
        partial, self._partial = self._partial, b""
        return self._response([partial]) if partial else None

    def _response(self, lines: list[bytes]) -> WatchLogsResponse:
        # A progress bar draws its line again and again: the last one counts.
        texts = [line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in lines]
        return WatchLogsResponse(workload=self._name, lines=texts)


def _check(request: WatchLogsRequest) -> None:
    if bool(request.deployment_id) == bool(request.inference_id):
        refuse([FieldViolation("deployment_id", "or inference_id must be set, and only one of them")])


def _of_deployment(id: int) -> tuple[list[str], bool]:
    deployment = deployments.get(id)
    parts = [results.get(result_id, full=False) for result_id in deployment.result_ids]
    names = [trainer_name(part.id, attempt) for part in parts for attempt in range(1, part.attempt + 1)]
    return names, states.is_final(deployment.state)


def _of_inference(id: int) -> tuple[list[str], bool]:
    inference = inferences.get(id)
    names = [replica_name(id, slot) for slot in slots(inference)]
    return names, inference.state in states.FINAL_INFERENCE_STATES
