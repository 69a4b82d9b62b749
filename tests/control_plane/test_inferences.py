"""Inferences through DeploymentManager: what is taken, where they begin, how they change and end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from control_plane.store import Store, inferences, models, results
from headrace.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from headrace.v1 import deployment_manager_pb2 as api
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2, stream_pb2
from headrace.v1.deployment_pb2 import Resources
from headrace.v1.inference_pb2 import Inference, ReplicaState
from headrace.v1.result_collector_pb2 import DeleteResultRequest
from streams.answers import inference_group
from streams.group import GroupReader
from streams.kafka import KafkaSettings, ensure_topics, partitions_of, topic_id
from streams.writer import StreamProducer
from tests.control_plane.managed import Managed, bad_fields, managed
from tests.control_plane.world import RAW
from tests.streams.log import delete_topic
from tests.support import eventually


@pytest.fixture
async def plane(tmp_path: Path, store: Store, kafka: KafkaSettings) -> AsyncIterator[Managed]:
    """With a broker; nothing is started."""
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as running:
        yield running


@pytest.fixture
async def offline(tmp_path: Path, store: Store) -> AsyncIterator[Managed]:
    """Without a broker."""
    async with managed(tmp_path, store) as running:
        yield running


@pytest.fixture
def names() -> tuple[str, str]:
    """Topics that do not exist yet."""
    run = uuid.uuid4().hex[:8]
    return f"questions-{run}", f"answers-{run}"


async def create(plane: Managed, **fields: Any) -> Inference:
    answer: Inference = await plane.manager.CreateInference(api.CreateInferenceRequest(inference=Inference(**fields)))
    return answer


async def update(plane: Managed, *paths: str, **fields: Any) -> Inference:
    request = api.UpdateInferenceRequest(inference=Inference(**fields), update_mask=FieldMask(paths=paths))
    answer: Inference = await plane.manager.UpdateInference(request)
    return answer


async def get(plane: Managed, id: int) -> Inference:
    answer: Inference = await plane.manager.GetInference(api.GetInferenceRequest(id=id))
    return answer


async def test_an_inference_takes_what_it_needs_from_its_result(
    plane: Managed, kafka: KafkaSettings, names: tuple[str, str]
) -> None:
    result_id = plane.world.finished("digits-keras")
    created = await create(plane, result_id=result_id, input_topic=names[0], output_topic=names[1], replicas=2)
    assert created.state == inference_pb2.INFERENCE_STATE_STARTING
    assert (created.name, created.model_name, created.model_version) == ("digits-keras-v1", "digits-keras", 1)
    assert created.input_format == stream_pb2.DATA_FORMAT_RAW
    assert dict(created.input_config) == RAW
    assert created.guarantee == inference_pb2.GUARANTEE_EXACTLY_ONCE
    assert created.start == inference_pb2.START_POSITION_COMMITTED
    assert created.on_error == inference_pb2.ERROR_POLICY_DEAD_LETTER
    assert [one.slot for one in created.replica_states] == [0, 1]
    for topic in (*names, f"{names[0]}.dead-letters"):
        assert partitions_of(kafka, topic) == [0, 1]
    another = await create(plane, result_id=result_id, input_topic=names[0], output_topic=names[1])
    assert another.name == "digits-keras-v1-2"
    assert another.replicas == 1
    listed = await plane.manager.ListInferences(api.ListInferencesRequest(name="digits-keras-v1"))
    assert [one.id for one in listed.inferences] == [created.id]


async def test_it_begins_with_the_first_question_after_its_creation(
    plane: Managed, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    questions, result_id = topic(2), plane.world.finished("a")
    with StreamProducer(kafka, questions) as producer:
        for _ in range(3):
            producer.send(0, None, b"x")
        producer.flush()
        noon_ms = time.time_ns() // 1_000_000 + 5
        while time.time_ns() // 1_000_000 <= noon_ms:
            await asyncio.sleep(0.001)
        for partition in (0, 1):
            producer.send(partition, None, b"x")
        producer.flush()
    fields: dict[str, Any] = {"result_id": result_id, "input_topic": questions, "output_topic": topic()}
    for start in (inference_pb2.START_POSITION_COMMITTED, inference_pb2.START_POSITION_LATEST):
        assert dict((await create(plane, start=start, **fields)).start_offsets) == {0: 4, 1: 1}
    earliest = await create(plane, start=inference_pb2.START_POSITION_EARLIEST, **fields)
    assert not earliest.start_offsets
    timed = Inference(start=inference_pb2.START_POSITION_TIME, **fields)
    timed.start_time.FromMilliseconds(noon_ms)
    later = await plane.manager.CreateInference(api.CreateInferenceRequest(inference=timed))
    assert dict(later.start_offsets) == {0: 3, 1: 0}
    assert (await get(plane, later.id)).start_offsets == later.start_offsets


async def test_it_goes_on_where_another_one_stopped(
    plane: Managed, store: Store, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    questions, result_id = topic(2), plane.world.finished("a")
    fields: dict[str, Any] = {"result_id": result_id, "input_topic": questions, "output_topic": topic()}
    with StreamProducer(kafka, questions) as producer:
        for _ in range(3):
            producer.send(0, None, b"x")
        producer.flush()
    before = await create(plane, **fields)
    with pytest.raises(FailedPrecondition, match="is STARTING: stop it"):
        await create(plane, start_inference_id=before.id, **fields)
    store.write_now(lambda: inferences.set_state(before.id, inference_pb2.INFERENCE_STATE_STOPPED))
    untouched = await create(plane, start_inference_id=before.id, **fields)
    assert dict(untouched.start_offsets) == {0: 3, 1: 0}
    with GroupReader(kafka, group_id=inference_group(before), topic=questions) as reader:
        eventually(lambda: reader.consume(1, 0.1) or reader.assigned, timeout_s=20)
        reader.commit({0: 2})
    after = await create(plane, start_inference_id=before.id, **fields)
    assert dict(after.start_offsets) == {0: 2, 1: 0}
    assert after.start == inference_pb2.START_POSITION_INFERENCE
    with pytest.raises(InvalidArgument, match="with the same input") as error:
        await create(plane, start_inference_id=before.id, **fields | {"input_topic": topic()})
    assert {one.field for one in error.value.fields} == {"inference.start_inference_id"}
    with pytest.raises(NotFound):
        await create(plane, start_inference_id=4711, **fields)


async def test_no_two_are_one_group(plane: Managed, store: Store, topic: Callable[..., str]) -> None:
    """Platforms that share a Kafka have the same ids and names; a group is of one inference for all time."""
    fields = {"result_id": plane.world.finished("a"), "input_topic": topic(), "output_topic": topic(), "name": "live"}
    first = await create(plane, **fields, consumer_group="what the server says")
    store.write_now(lambda: inferences.set_state(first.id, inference_pb2.INFERENCE_STATE_STOPPED))
    await plane.manager.DeleteInference(api.DeleteInferenceRequest(id=first.id))
    second = await create(plane, **fields)
    assert first.consumer_group.startswith("headrace-inf-live-")
    assert second.consumer_group.startswith("headrace-inf-live-")
    assert first.consumer_group != second.consumer_group


async def test_it_does_not_go_on_in_a_topic_that_was_made_anew(
    plane: Managed, store: Store, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    """Its offsets are those of other records, and those before them would be skipped."""
    questions, result_id = topic(), plane.world.finished("a")
    fields: dict[str, Any] = {"result_id": result_id, "input_topic": questions, "output_topic": topic()}
    before = await create(plane, **fields, input_topic_id="what the server says")
    assert before.input_topic_id == topic_id(kafka, questions)
    store.write_now(lambda: inferences.set_state(before.id, inference_pb2.INFERENCE_STATE_STOPPED))
    delete_topic(kafka, questions)
    ensure_topics(kafka, {questions: 1})
    with pytest.raises(FailedPrecondition, match="made anew") as caught:
        await create(plane, start_inference_id=before.id, **fields)
    assert caught.value.reason_name == "TOPIC_RECREATED"
    anew = await create(plane, start=inference_pb2.START_POSITION_EARLIEST, **fields)
    assert anew.input_topic_id == topic_id(kafka, questions)


async def test_more_replicas_than_partitions_are_taken(plane: Managed, topic: Callable[..., str]) -> None:
    result_id = plane.world.finished("a")
    created = await create(plane, result_id=result_id, input_topic=topic(1), output_topic=topic(1), replicas=3)
    assert created.replicas == 3


async def test_every_bad_field_is_named_at_once(offline: Managed) -> None:
    wish: dict[str, Any] = {
        "name": "-" * 100,
        "alias": "champion",
        "replicas": -1,
        "input_topic": "no blanks here",
        "output_topic": "",
        "guarantee": 77,
        "on_error": 77,
        "start": inference_pb2.START_POSITION_TIME,
        "batch": inference_pb2.BatchSettings(max_rows=-1),
        "resources": Resources(memory_bytes=-1),
    }
    wish["batch"].max_wait.seconds = -1
    with pytest.raises(InvalidArgument) as refused:
        await create(offline, **wish)
    assert set(bad_fields(refused.value)) == {
        "inference.name",
        "inference.alias",
        "inference.replicas",
        "inference.input_topic",
        "inference.output_topic",
        "inference.guarantee",
        "inference.on_error",
        "inference.start_time",
        "inference.batch.max_rows",
        "inference.batch.max_wait",
        "inference.resources.memory_bytes",
    }
    for output in ("in", "in.dead-letters"):
        with pytest.raises(InvalidArgument) as refused:
            await create(offline, result_id=1, input_topic="in", output_topic=output)
        assert set(bad_fields(refused.value)) == {"inference.output_topic"}


@pytest.mark.parametrize(
    "reserved", ["__consumer_offsets", "__mine", "KAFKA_ML_CONTROL_TOPIC", "KAFKA_ML_CONTROL_TOPIC.dead-letters"]
)
async def test_topics_of_kafka_and_of_the_platform_are_refused(offline: Managed, reserved: str) -> None:
    result_id = offline.world.finished("a")
    for field, topics in {"input_topic": (reserved, "out"), "output_topic": ("in", reserved)}.items():
        with pytest.raises(InvalidArgument) as refused:
            await create(offline, result_id=result_id, input_topic=topics[0], output_topic=topics[1])
        assert set(bad_fields(refused.value)) == {f"inference.{field}"}
        assert refused.value.reason == error_pb2.REASON_INVALID_FIELD


async def test_only_a_finished_result_is_served(offline: Managed) -> None:
    fields = {"input_topic": "in", "output_topic": "out"}
    with pytest.raises(NotFound):
        await create(offline, result_id=99, **fields)
    (unfinished,) = offline.world.training("a")
    with pytest.raises(FailedPrecondition) as refused:
        await create(offline, result_id=unfinished, **fields)
    assert refused.value.metadata["state"] == "CREATED"
    with pytest.raises(NotFound) as unknown:
        await create(offline, model_id=1, alias="champion", **fields)
    assert unknown.value.metadata["alias"] == "champion"


async def test_records_that_cannot_be_decoded_are_refused_at_once(offline: Managed) -> None:
    result_id = offline.world.finished("a")
    with pytest.raises(InvalidArgument) as refused:
        await create(
            offline,
            result_id=result_id,
            input_topic="in",
            output_topic="out",
            input_format=stream_pb2.DATA_FORMAT_RAW,
            input_config={"data_type": "number"},
        )
    assert refused.value.reason == error_pb2.REASON_INVALID_FORMAT


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0.5},
        {"upper_topic": "up"},
        {"resources": Resources(gpu_count=1)},
    ],
    ids=["limit", "upper", "gpus"],
)
async def test_what_comes_later_says_so(offline: Managed, fields: dict[str, Any]) -> None:
    with pytest.raises(Unimplemented) as refused:
        await create(offline, result_id=1, input_topic="in", output_topic="out", **fields)
    assert refused.value.reason == error_pb2.REASON_NOT_YET


async def test_more_replicas_than_partitions_are_allowed_and_warned_about(
    plane: Managed, topic: Callable[..., str], names: tuple[str, str]
) -> None:
    result_id, questions = plane.world.finished("a"), topic(2)
    one = await create(plane, result_id=result_id, input_topic=questions, output_topic=names[1], replicas=2)
    assert not one.warnings
    (warning,) = (await update(plane, "replicas", id=one.id, replicas=5)).warnings
    assert f"5 replicas share 2 partitions of {questions}: 3 of them have nothing to do" in warning
    assert not (await update(plane, "replicas", id=one.id, replicas=1)).warnings


async def test_without_a_broker_nothing_is_stored(offline: Managed, store: Store) -> None:
    result_id = offline.world.finished("a")
    with pytest.raises(Unavailable) as away:
        await create(offline, result_id=result_id, input_topic="in", output_topic="out")
    assert away.value.reason == error_pb2.REASON_KAFKA_UNAVAILABLE
    assert not store.read_now(inferences.names)
    # Checking alone asks no broker.
    wish = Inference(result_id=result_id, input_topic="in", output_topic="out")
    checked = await offline.manager.CreateInference(api.CreateInferenceRequest(inference=wish, validate_only=True))
    assert (checked.id, checked.name) == (0, "a-v1")


async def test_a_request_that_is_sent_again_creates_nothing_new(plane: Managed, names: tuple[str, str]) -> None:
    result_id = plane.world.finished("a")
    wish = Inference(result_id=result_id, input_topic=names[0], output_topic=names[1])
    request = api.CreateInferenceRequest(inference=wish, request_id=str(uuid.uuid4()))
    first, again = [await plane.manager.CreateInference(request) for _ in range(2)]
    assert first == again
    named = Inference(name=first.name, result_id=result_id, input_topic=names[0], output_topic=names[1])
    with pytest.raises(AlreadyExists):
        await plane.manager.CreateInference(api.CreateInferenceRequest(inference=named))


async def test_what_may_change_while_data_flow_changes(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    changed = await update(offline, "replicas", id=one.id, replicas=3)
    assert (changed.replicas, changed.input_topic, len(changed.replica_states)) == (3, "in", 3)
    assert changed.etag != one.etag
    with pytest.raises(Aborted) as stale:
        await update(offline, "replicas", id=one.id, replicas=1, etag=one.etag)
    assert stale.value.reason == error_pb2.REASON_STALE_ETAG
    # Without a mask, every populated field is meant; those that stay as they are may be fixed ones.
    unmasked = await update(offline, id=one.id, replicas=2, input_topic="in", etag=changed.etag)
    assert unmasked.replicas == 2
    with pytest.raises(InvalidArgument) as fixed:
        await update(offline, "input_topic", "guarantee", "replicas", id=one.id, input_topic="other", guarantee=2)
    assert set(bad_fields(fixed.value)) == {"inference.input_topic", "inference.guarantee", "inference.replicas"}
    with pytest.raises(InvalidArgument):
        await update(offline, "no_such_field", id=one.id)
    with pytest.raises(NotFound):
        await update(offline, "replicas", id=99, replicas=1)


async def test_another_result_is_served_by_its_id_or_an_alias(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    second = offline.world.finished("second")
    model_id = store.read_now(lambda: results.get(second)).model_id
    store.write_now(lambda: models.set_alias(model_id, "champion", second))
    aliased = await update(offline, "model_id", "alias", id=one.id, model_id=model_id, alias="champion")
    assert (aliased.result_id, aliased.alias, aliased.model_name) == (second, "champion", "second")
    scaled = await update(offline, "replicas", id=one.id, replicas=2)
    assert (scaled.result_id, scaled.alias) == (second, "champion")
    back = await update(offline, "result_id", id=one.id, result_id=one.result_id)
    assert (back.result_id, back.alias, back.model_id) == (one.result_id, "", 0)
    (unfinished,) = offline.world.training("third")
    with pytest.raises(FailedPrecondition):
        await update(offline, "result_id", id=one.id, result_id=unfinished)


async def test_an_alias_that_moves_takes_its_inferences_along(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    first = offline.world.finished("again")
    second = offline.world.next_version(first)
    model_id = store.read_now(lambda: results.get(first)).model_id
    store.write_now(lambda: models.set_alias(model_id, "champion", first))
    following = await update(offline, "model_id", "alias", id=one.id, model_id=model_id, alias="champion")
    other = await asyncio.to_thread(offline.world.inference)
    store.write_now(lambda: models.set_alias(model_id, "champion", second))
    moved = await get(offline, one.id)
    assert (moved.result_id, moved.model_version) == (second, 2)
    assert moved.etag != following.etag
    assert (await get(offline, other.id)).etag == other.etag
    store.write_now(lambda: inferences.stop(one.id))
    store.write_now(lambda: models.set_alias(model_id, "champion", first))
    assert (await get(offline, one.id)).result_id == second


async def test_a_result_of_rows_of_another_size_is_refused(offline: Managed) -> None:
    wish = Inference(
        name="x",
        result_id=offline.world.finished("a"),
        replicas=1,
        input_topic="in",
        output_topic="out",
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config=RAW,
    )
    one = await asyncio.to_thread(lambda: offline.world.write(lambda: inferences.create(wish)))
    larger = offline.world.finished("larger", {**RAW, "data_reshape": "9 9"})
    with pytest.raises(FailedPrecondition) as refused:
        await update(offline, "result_id", id=one.id, result_id=larger)
    assert refused.value.reason == error_pb2.REASON_SCHEMA_MISMATCH
    assert (refused.value.metadata["trained"], refused.value.metadata["answered"]) == ("81", "64")
    assert (await get(offline, one.id)).result_id == wish.result_id
    flat = offline.world.finished("flat", {**RAW, "data_reshape": "64"})
    assert (await update(offline, "result_id", id=one.id, result_id=flat)).result_id == flat


async def test_what_a_replica_cannot_load_is_told_while_the_model_before_answers(
    offline: Managed, store: Store
) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    attempt = store.write_now(lambda: inferences.start_replica(one.id, 0))
    second = offline.world.finished("second")

    async def report(result_id: int, error: HeadraceError | None = None) -> Inference:
        said = ReplicaState(
            slot=0,
            state=inference_pb2.INFERENCE_STATE_RUNNING,
            result_id=result_id,
            error=error.to_status() if error else None,
        )
        await offline.manager.ReportReplica(
            api.ReportReplicaRequest(inference_id=one.id, replica=said, attempt=attempt)
        )
        return await get(offline, one.id)

    assert (await report(one.result_id)).answering_result_id == one.result_id
    await update(offline, "result_id", id=one.id, result_id=second)
    broken = FailedPrecondition(error_pb2.REASON_CODE_ERROR, "line 3")
    told = await report(one.result_id, broken)
    assert (told.result_id, told.answering_result_id) == (second, one.result_id)
    assert told.error.message == "line 3"
    with pytest.raises(FailedPrecondition) as answers:
        await offline.collector.DeleteResult(DeleteResultRequest(id=one.result_id))
    assert answers.value.reason == error_pb2.REASON_RESOURCE_IN_USE
    training = offline.world.deployment_of(one.result_id).id
    with pytest.raises(FailedPrecondition):
        await offline.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=training, force=True))
    assert (await report(second)).answering_result_id == second
    assert not (await get(offline, one.id)).HasField("error")
    await offline.collector.DeleteResult(DeleteResultRequest(id=one.result_id))


async def test_a_replica_reports_and_learns_the_wish(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    attempt = store.write_now(lambda: inferences.start_replica(one.id, 0))

    async def report(attempt: int, **said: Any) -> api.ReportReplicaResponse:
        replica = ReplicaState(slot=0, state=inference_pb2.INFERENCE_STATE_RUNNING, **said)
        request = api.ReportReplicaRequest(inference_id=one.id, replica=replica, attempt=attempt)
        answer: api.ReportReplicaResponse = await offline.manager.ReportReplica(request)
        return answer

    await update(offline, "replicas", id=one.id, replicas=2)
    answer = await report(attempt, lag=7, rows_per_second=100.0, partitions=[0, 1])
    assert answer.inference.replicas == 2
    assert answer.time.seconds > 0
    (first, _) = (await get(offline, one.id)).replica_states
    assert (first.lag, list(first.partitions), first.state) == (7, [0, 1], inference_pb2.INFERENCE_STATE_RUNNING)
    assert (first.live, first.ready) == (True, False)
    await report(attempt, ready=True)
    assert (await get(offline, one.id)).replica_states[0].ready
    store.write_now(lambda: inferences.start_replica(one.id, 0))
    with pytest.raises(FailedPrecondition) as fenced:
        await report(attempt)
    assert fenced.value.reason == error_pb2.REASON_FENCED
    # The process that replaces it has not reported yet.
    first = (await get(offline, one.id)).replica_states[0]
    assert (first.live, first.ready) == (False, False)


async def test_a_replica_that_has_answered_fails_for_the_first_time_again(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)

    async def failures_after(answered_count: int) -> int:
        """In a row, when a process of the slot has answered so many and ends."""
        attempt = store.write_now(lambda: inferences.start_replica(one.id, 0))
        said = ReplicaState(slot=0, state=inference_pb2.INFERENCE_STATE_RUNNING, answered_count=answered_count)
        request = api.ReportReplicaRequest(inference_id=one.id, replica=said, attempt=attempt)
        await offline.manager.ReportReplica(request)
        return store.write_now(lambda: inferences.record_replica_failure(one.id, 0, None, 0))

    assert [await failures_after(0), await failures_after(0)] == [1, 2]
    assert [await failures_after(1), await failures_after(5)] == [1, 1]


async def test_an_inference_is_stopped_and_deleted_with_its_logs(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store, reconciled=True) as plane:
        one = await asyncio.to_thread(plane.world.inference, 2)
        for slot in (0, 1):
            await asyncio.to_thread(plane.world.answers, one.id, slot)
        await update(plane, "replicas", id=one.id, replicas=1)
        async with asyncio.timeout(10):
            while len((await get(plane, one.id)).replica_states) > 1:
                await asyncio.sleep(0.05)
        with pytest.raises(FailedPrecondition):
            await plane.manager.DeleteInference(api.DeleteInferenceRequest(id=one.id))
        stop = api.StopInferenceRequest(id=one.id)
        assert (await plane.manager.StopInference(stop)).state == inference_pb2.INFERENCE_STATE_STOPPING
        async with asyncio.timeout(5):
            while (await get(plane, one.id)).state != inference_pb2.INFERENCE_STATE_STOPPED:
                await asyncio.sleep(0.05)
        assert (await plane.manager.StopInference(stop)).state == inference_pb2.INFERENCE_STATE_STOPPED
        with pytest.raises(FailedPrecondition) as ended:
            await update(plane, "replicas", id=one.id, replicas=5)
        assert ended.value.reason == error_pb2.REASON_WRONG_STATE
        await plane.manager.DeleteInference(api.DeleteInferenceRequest(id=one.id))
        assert not list((tmp_path / "logs").glob("infer-*"))

        other = await asyncio.to_thread(plane.world.inference)
        await asyncio.to_thread(plane.world.answers, other.id, 0)
        await plane.manager.DeleteInference(api.DeleteInferenceRequest(id=other.id, force=True))
        with pytest.raises(NotFound):
            await get(plane, other.id)


async def test_a_failed_inference_is_not_stopped(offline: Managed, store: Store) -> None:
    one = await asyncio.to_thread(offline.world.inference)
    store.write_now(lambda: inferences.set_state(one.id, inference_pb2.INFERENCE_STATE_FAILED))
    with pytest.raises(FailedPrecondition):
        await offline.manager.StopInference(api.StopInferenceRequest(id=one.id))
    await offline.manager.DeleteInference(api.DeleteInferenceRequest(id=one.id))
    assert offline.world.deployment_of(one.result_id).state == deployment_pb2.STATE_FINISHED
