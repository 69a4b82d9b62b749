"""The trainings of DeploymentManager."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from google.protobuf import empty_pb2

from control_plane.artifacts import ArtifactStore
from control_plane.cluster import AsyncCluster
from control_plane.deployment_check import DeploymentCheck
from control_plane.events import Watchers
from control_plane.listing import newest_first
from control_plane.names import trainings_owner
from control_plane.queue import Queue, summary
from control_plane.repeats import create_once, first_answer
from control_plane.store import Kind, Store, deployments, states
from control_plane.training_checks import completed
from headrace.errors import FailedPrecondition
from headrace.v1 import deployment_manager_pb2, deployment_pb2
from headrace.v1.deployment_pb2 import Deployment

# A trainer is killed four seconds after it was asked to end.
DELETE_WAIT_S = 9.0


class Deployments:
    """Stores wishes; the reconciler fulfils them."""

    def __init__(
        self,
        store: Store,
        watchers: Watchers,
        check: DeploymentCheck,
        artifacts: ArtifactStore,
        cluster: AsyncCluster,
        queue: Queue,
    ) -> None:
        self._store, self._watchers, self._check = store, watchers, check
        self._artifacts, self._cluster, self._queue = artifacts, cluster, queue

    async def create(self, request: deployment_manager_pb2.CreateDeploymentRequest) -> Deployment:
        """Check everything, then store the wish. Raises InvalidArgument with every bad field, NotFound, NOT_YET."""
        if (before := await first_answer(self._store, request, Deployment)) is not None:
            return before
        wish = Deployment()
        wish.CopyFrom(request.deployment)
        if wish.from_result_id:
            await self._check.check_again(wish)
            wish = await self._store.read(lambda: deployments.filled_from_result(wish))
        else:
            await self._check.check(wish)
            wish.settings.CopyFrom(completed(wish.settings))
        if request.validate_only:
            return _accepted(wish)
        return await create_once(self._store, request, lambda: deployments.create(wish), Deployment)

    async def get(self, id: int) -> Deployment:
        found = await self._store.read(lambda: deployments.get(id))
        await self._add_queue_messages([found])
        return found

    async def page(
        self, request: deployment_manager_pb2.ListDeploymentsRequest
    ) -> deployment_manager_pb2.ListDeploymentsResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: deployments.page(
                before_id=before_id, limit=limit, configuration_id=request.configuration_id, state=request.state
            ),
        )
        await self._add_queue_messages(items)
        return deployment_manager_pb2.ListDeploymentsResponse(deployments=items, next_page_token=token)

    async def cancel(self, id: int) -> Deployment:
        """CANCELLING at once; the reconciler makes it CANCELLED when the trainers are gone."""
        return await self._store.write(lambda: deployments.cancel(id))

    async def delete(self, request: deployment_manager_pb2.DeleteDeploymentRequest) -> empty_pb2.Empty:
        """Raises FailedPrecondition while it runs (unless forced), or while an inference serves one of its results."""
        if request.force:
            await self._end(request.id)
        found = await self._store.read(lambda: deployments.get(request.id))
        orphans = await self._store.write(lambda: deployments.delete(request.id))
        await self._artifacts.remove_unused(self._store, orphans)
        await self._cluster.remove_logs({trainings_owner(result_id) for result_id in found.result_ids})
        return empty_pb2.Empty()

    async def _end(self, id: int) -> None:
        """Cancel what still runs, and wait until it has ended."""
        await self._store.read(lambda: deployments.check_unused(id))
        deadline = time.monotonic() + DELETE_WAIT_S
        with self._watchers.wake((Kind.DEPLOYMENT, id)) as wake:
            found = await self._store.read(lambda: deployments.get(id))
            if not states.is_final(found.state):
                # It may end by itself before it is asked to.
                with contextlib.suppress(FailedPrecondition):
                    found = await self.cancel(id)
            while not states.is_final(found.state) and (left_s := deadline - time.monotonic()) > 0:
                await wake.wait(left_s)
                found = await self._store.read(lambda: deployments.get(id))

    async def _add_queue_messages(self, found: Sequence[Deployment]) -> None:
        """For those of which a result waits for a free processor."""
        waiting = [one for one in found if one.state == deployment_pb2.STATE_CREATED]
        if not waiting:
            return
        places = await self._queue.places()
        for one in waiting:
            one.queue_message = summary([places[each] for each in one.result_ids if each in places])


def _accepted(wish: Deployment) -> Deployment:
    """What a create would store, as the answer of one that only checks."""
    return Deployment(
        configuration_id=wish.configuration_id,
        description=wish.description,
        settings=wish.settings,
        stream_id=wish.stream_id,
        resources=wish.resources if wish.HasField("resources") else None,
        from_result_id=wish.from_result_id,
    )
