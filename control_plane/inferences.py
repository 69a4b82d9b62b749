"""The inferences of DeploymentManager."""

from __future__ import annotations

import asyncio
import logging
import time

from google.protobuf import empty_pb2

from control_plane import inference_check
from control_plane.cluster import AsyncCluster
from control_plane.events import Watchers
from control_plane.inference_answers import check_same_answers
from control_plane.inference_check import CHANGEABLE
from control_plane.kafka_clusters import Clusters, KafkaClusters
from control_plane.listing import newest_first
from control_plane.names import replicas_owner
from control_plane.repeats import create_once, first_answer
from control_plane.starts import resolve_start
from control_plane.store import Kind, Store, inferences, kafka_clusters, states
from control_plane.store.warnings import warnings_of
from control_plane.validation import refuse
from headrace.errors import FieldViolation, NotFound
from headrace.masks import apply_update
from headrace.v1 import deployment_manager_pb2, inference_pb2
from headrace.v1.inference_pb2 import Inference
from streams.answers import dead_letter_topic, new_inference_group
from streams.kafka import ensure_topics, partitions_of

log = logging.getLogger(__name__)

# Together less than the ten seconds that a caller waits.
ASK_TIMEOUT_S = 4.0
TOPIC_TIMEOUT_S = 8.0
# A replica is killed ten seconds after it was asked to end.
DELETE_WAIT_S = 14.0


class Inferences:
    """Stores wishes; the reconciler fulfils them."""

    def __init__(
        self, store: Store, watchers: Watchers, clusters: KafkaClusters, cluster: AsyncCluster, control_topic: str
    ) -> None:
        self._store, self._watchers, self._clusters, self._cluster = store, watchers, clusters, cluster
        self._control_topic = control_topic

    async def create(self, request: deployment_manager_pb2.CreateInferenceRequest) -> Inference:
        """Check everything, create missing topics, then store the wish.

        Raises InvalidArgument with every bad field, NotFound, FailedPrecondition for a result that is not finished,
        Unavailable while Kafka does not answer.
        """
        if (before := await first_answer(self._store, request, Inference)) is not None:
            return before
        wish = _wish(request.inference)
        inference_check.refuse_later_features(wish)
        reserved = inference_check.reserved_topics(wish, self._control_topic)
        refuse([*inference_check.bad_source(wish), *inference_check.bad_fields(wish), *reserved])
        wish = await self._store.read(lambda: _resolved(wish))
        clusters = await self._clusters.of(wish)
        if request.validate_only:
            return wish
        wish.input_partition_count = await asyncio.to_thread(_prepare_topics, clusters, wish)
        await asyncio.to_thread(resolve_start, clusters.input, wish, await self._before(wish))
        wish.consumer_group = new_inference_group(wish.name)
        return await create_once(self._store, request, lambda: _stored(wish), Inference)

    async def _before(self, wish: Inference) -> Inference | None:
        """The one that it goes on after."""
        return await self.get(wish.start_inference_id) if wish.start_inference_id else None

    async def get(self, id: int) -> Inference:
        return await self._store.read(lambda: inferences.get(id))

    async def page(
        self, request: deployment_manager_pb2.ListInferencesRequest
    ) -> deployment_manager_pb2.ListInferencesResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: inferences.page(
                before_id=before_id, limit=limit, state=request.state, result_id=request.result_id, name=request.name
            ),
        )
        return deployment_manager_pb2.ListInferencesResponse(inferences=items, next_page_token=token)

    async def update(self, request: deployment_manager_pb2.UpdateInferenceRequest) -> Inference:
        """Change what may change while data flow.

        Replicas follow another model by themselves; the reconciler replaces them one by one where they cannot.
        """
        change = Inference()
        change.CopyFrom(request.inference)
        change.ClearField("etag")

        def update() -> Inference:
            wish = inferences.get(change.id)
            served_id = wish.result_id
            changed = set(apply_update(wish, change, request.update_mask))
            wish.on_error = wish.on_error or inference_pb2.ERROR_POLICY_DEAD_LETTER
            refuse([*_fixed(changed), *inference_check.bad_fields(wish), *_bad_change(wish)])
            inference_check.refuse_later_features(wish)
            _choose_source(wish, changed, served_id)
            return inferences.update(wish, request.inference.etag)

        return await self._store.write(update)

    async def stop(self, id: int) -> Inference:
        """STOPPING at once; the reconciler makes it STOPPED when the replicas are gone."""
        return await self._store.write(lambda: inferences.stop(id))

    async def delete(self, request: deployment_manager_pb2.DeleteInferenceRequest) -> empty_pb2.Empty:
        """Raises FailedPrecondition while it runs, unless forced."""
        if request.force:
            await self._end(request.id)
        await self._store.write(lambda: inferences.delete(request.id))
        await self._cluster.remove_logs({replicas_owner(request.id)})
        return empty_pb2.Empty()

    async def report(
        self, request: deployment_manager_pb2.ReportReplicaRequest
    ) -> deployment_manager_pb2.ReportReplicaResponse:
        """Keep what a replica says, and tell it the wish. FENCED for one that was replaced."""

        def keep() -> Inference:
            inferences.report_replica(request.inference_id, request.attempt, request.replica)
            return inferences.get(request.inference_id)

        answer = deployment_manager_pb2.ReportReplicaResponse(inference=await self._store.write(keep))
        answer.time.GetCurrentTime()
        return answer

    async def _end(self, id: int) -> None:
        """Stop it if it runs, and wait until its replicas are gone."""
        deadline = time.monotonic() + DELETE_WAIT_S
        with self._watchers.wake((Kind.INFERENCE, id)) as wake:
            while not _is_final(found := await self.get(id)) and (left_s := deadline - time.monotonic()) > 0:
                if found.state != inference_pb2.INFERENCE_STATE_STOPPING:
                    await self.stop(id)
                await wake.wait(left_s)


def slots(inference: Inference) -> range:
    """The slots that it has or had, as far as is known."""
    known = [replica.slot + 1 for replica in inference.replica_states]
    return range(max([inference.replicas, *known]))


def _wish(inference: Inference) -> Inference:
    """A copy without what the server gives."""
    wish = Inference()
    wish.CopyFrom(inference)
    for name in (
        *("id", "create_time", "update_time", "state", "error", "replica_states", "etag"),
        *("model_name", "model_version", "start_offsets", "answering_result_id", "output_config"),
        *("warnings", "input_partition_count", "input_topic_id", "consumer_group"),
    ):
        wish.ClearField(name)
    return wish


def _resolved(wish: Inference) -> Inference:
    """A query: with its result, its name and every default."""
    result = inference_check.find_result(wish)
    inference_check.complete(wish, result)
    wish.name = wish.name or inference_check.default_name(result, inferences.names())
    inferences.check_new(wish)
    wish.model_name, wish.model_version = result.model_name, result.version
    wish.warnings[:] = warnings_of(wish)
    return wish


def _stored(wish: Inference) -> Inference:
    """A query: stored, with what the alias points to now. Its clusters may have been deleted meanwhile."""
    for name in filter(None, (wish.input_kafka_cluster, wish.output_kafka_cluster)):
        kafka_clusters.named(name)
    if wish.alias:
        wish.result_id = inference_check.find_result(wish).id
    return inferences.create(wish)


def _choose_source(wish: Inference, changed: set[str], served_id: int) -> None:
    """A query: an alias that was given anew is resolved, a result that was given instead of one replaces it.

    served_id: the result that is served until then.
    """
    if not changed & {"result_id", "model_id", "alias"}:
        return
    if changed & {"model_id", "alias"} and "result_id" not in changed:
        wish.ClearField("result_id")
    elif "result_id" in changed and not changed & {"model_id", "alias"}:
        wish.ClearField("model_id")
        wish.ClearField("alias")
    refuse([*inference_check.bad_source(wish)])
    found = inference_check.find_result(wish)
    inference_check.refuse_other_rows(wish, served_id, found)
    check_same_answers(wish, found)
    wish.result_id = found.id


def _bad_change(wish: Inference) -> list[FieldViolation]:
    """What would be filled in on create."""
    bad = [] if wish.name else [FieldViolation("inference.name", "must not become empty")]
    if not wish.replicas:
        bad.append(FieldViolation("inference.replicas", "must be at least 1; stop the inference to have none"))
    return bad


def _fixed(changed: set[str]) -> list[FieldViolation]:
    known = ", ".join(sorted(CHANGEABLE))
    rule = f"cannot change while data flow (what can: {known}); create another inference"
    return [
        FieldViolation(f"inference.{path}", rule) for path in sorted(changed) if path.split(".")[0] not in CHANGEABLE
    ]


def _prepare_topics(clusters: Clusters, wish: Inference) -> int:
    """Create the topics that are missing, and return how many partitions the questions have."""
    try:
        partitions = len(partitions_of(clusters.input, wish.input_topic, ASK_TIMEOUT_S))
    except NotFound:
        partitions = wish.replicas
        ensure_topics(clusters.input, {wish.input_topic: partitions}, TOPIC_TIMEOUT_S)
    # As many partitions as the questions have: then the answers keep their order and their distribution.
    ensure_topics(clusters.output, {wish.output_topic: partitions}, TOPIC_TIMEOUT_S)
    ensure_topics(clusters.input, {dead_letter_topic(wish.input_topic): partitions}, TOPIC_TIMEOUT_S)
    return partitions


def _is_final(inference: Inference) -> bool:
    return inference.state in states.FINAL_INFERENCE_STATES
