"""Trainings through DeploymentManager: what is taken, what is refused and how, and how they end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control_plane.names import trainer_name
from control_plane.store import Store, configurations, deployments, inferences, models, reports, results, streams
from headrace.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
    from_status,
)
from headrace.v1 import (
    configuration_pb2,
    deployment_pb2,
    error_pb2,
    inference_pb2,
    model_pb2,
    result_collector_pb2,
    result_pb2,
    stream_pb2,
)
from headrace.v1 import deployment_manager_pb2 as api
from headrace.v1.deployment_pb2 import Deployment, FrameworkArguments, Resources, TrainingSettings
from streams.kafka import KafkaSettings
from tests.control_plane.managed import Managed, bad_fields, managed


@pytest.fixture
async def plane(tmp_path: Path, store: Store) -> AsyncIterator[Managed]:
    """Nothing is started: states stay as they are."""
    async with managed(tmp_path, store) as running:
        yield running


def new_configuration(store: Store, *frameworks: int) -> int:
    """A configuration of new models of these frameworks."""

    def create() -> int:
        number = len(configurations.page(before_id=None, limit=1000))
        ids = [
            models.create(
                model_pb2.Model(
                    name=f"model {number} {position}",
                    framework=framework,  # type: ignore[arg-type]
                    code="model = 1",
                    code_sha256="0" * 64,
                )
            ).id
            for position, framework in enumerate(frameworks)
        ]
        return configurations.create(configuration_pb2.Configuration(name=f"c{number}", model_ids=ids)).id

    return store.write_now(create)


KERAS, TORCH = model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH


async def create(plane: Managed, configuration_id: int, **fields: Any) -> Deployment:
    wish = Deployment(configuration_id=configuration_id, **fields)
    answer: Deployment = await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wish))
    return answer


async def get(plane: Managed, id: int) -> Deployment:
    answer: Deployment = await plane.manager.GetDeployment(api.GetDeploymentRequest(id=id))
    return answer


async def until(plane: Managed, id: int, state: int) -> Deployment:
    async with asyncio.timeout(10):
        while (found := await get(plane, id)).state != state:
            await asyncio.sleep(0.05)
    return found


async def test_a_training_is_stored_with_every_default_and_a_result_per_model(plane: Managed, store: Store) -> None:
    created = await create(plane, new_configuration(store, KERAS, TORCH), description="first")
    assert created.state == deployment_pb2.STATE_CREATED
    assert len(created.result_ids) == 2
    settings = created.settings
    assert (settings.batch_size, settings.checkpoint_interval.seconds) == (32, 60)
    assert settings.seed > 0
    assert settings.split == deployment_pb2.SPLIT_SHUFFLED
    assert settings.count_mismatch == deployment_pb2.COUNT_MISMATCH_FAIL
    assert settings.WhichOneof("mode") == "single"
    for result_id in created.result_ids:
        assert plane.world.result(result_id).settings == settings
    assert (await get(plane, created.id)).settings == settings


async def test_what_is_asked_for_stays(plane: Managed, store: Store) -> None:
    settings = TrainingSettings(batch_size=7, seed=42, split=deployment_pb2.SPLIT_ORDERED, keep_integers=True)
    created = await create(plane, new_configuration(store, KERAS), settings=settings)
    settings.count_mismatch = deployment_pb2.COUNT_MISMATCH_FAIL
    settings.checkpoint_interval.seconds = 60
    settings.single.SetInParent()
    assert created.settings == settings


async def test_every_bad_field_is_named_at_once(plane: Managed) -> None:
    settings = TrainingSettings(
        batch_size=-1,
        split=77,  # type: ignore[arg-type]
        count_mismatch=77,  # type: ignore[arg-type]
        decode_error_limit=float("nan"),
        tensorflow=FrameworkArguments(fit_args="x" * 10_000),
    )
    settings.deadline.seconds = -1
    with pytest.raises(InvalidArgument) as refused:
        await create(
            plane, 0, settings=settings, stream_id=99, resources=Resources(memory_bytes=-1), description="x" * 10_000,
            allowed_topics=["data", "no topic"],
        )  # fmt: skip
    assert refused.value.reason == error_pb2.REASON_INVALID_FIELD
    assert set(bad_fields(refused.value)) == {
        "deployment.settings.batch_size",
        "deployment.settings.split",
        "deployment.settings.count_mismatch",
        "deployment.settings.decode_error_limit",
        "deployment.settings.deadline",
        "deployment.settings.tensorflow.fit_args",
        "deployment.resources.memory_bytes",
        "deployment.description",
        "deployment.allowed_topics[1]",
        "deployment.configuration_id",
        "deployment.stream_id",
    }


async def test_what_does_not_exist_is_named(plane: Managed, store: Store) -> None:
    with pytest.raises(NotFound) as refused:
        await create(plane, 99, stream_id=98)
    assert refused.value.metadata["resource"] == "configuration"
    assert set(bad_fields(refused.value)) == {"deployment.configuration_id", "deployment.stream_id"}
    with pytest.raises(NotFound) as refused:
        await create(plane, new_configuration(store, KERAS), stream_id=98)
    assert refused.value.metadata["resource"] == "stream"


async def test_an_unknown_argument_is_refused_with_those_that_are_known(plane: Managed, store: Store) -> None:
    settings = TrainingSettings(
        tensorflow=FrameworkArguments(fit_args="epochs=5, epoch=3", evaluate_args="batch=1"),
        pytorch=FrameworkArguments(fit_args="this is of no concern"),
    )
    with pytest.raises(InvalidArgument) as refused:
        await create(plane, new_configuration(store, KERAS), settings=settings)
    assert refused.value.reason == error_pb2.REASON_UNKNOWN_ARGUMENT
    assert refused.value.metadata["known_fit_args"] == "epochs, shuffle, steps_per_epoch"
    found = bad_fields(refused.value)
    assert set(found) == {
        "deployment.settings.tensorflow.fit_args",
        "deployment.settings.tensorflow.evaluate_args",
    }
    assert "epochs, shuffle, steps_per_epoch" in found["deployment.settings.tensorflow.fit_args"]


async def test_a_wrong_value_of_a_known_argument_is_an_invalid_field(plane: Managed, store: Store) -> None:
    settings = TrainingSettings(tensorflow=FrameworkArguments(fit_args="epochs=0"))
    with pytest.raises(InvalidArgument) as refused:
        await create(plane, new_configuration(store, KERAS), settings=settings)
    assert refused.value.reason == error_pb2.REASON_INVALID_FIELD
    assert set(bad_fields(refused.value)) == {"deployment.settings.tensorflow.fit_args"}


async def test_an_executor_is_asked_only_where_there_is_something_to_ask(tmp_path: Path, store: Store) -> None:
    arguments = TrainingSettings(tensorflow=FrameworkArguments(fit_args="epochs=5"))
    async with managed(tmp_path, store) as plane:
        await create(plane, new_configuration(store, KERAS))
        assert plane.executor.asked == 0
        await create(plane, new_configuration(store, KERAS), settings=arguments)
        assert plane.executor.asked == 1
    async with managed(tmp_path, store, executor_away=True) as plane:
        await create(plane, new_configuration(store, KERAS))
        with pytest.raises(Unavailable) as away:
            await create(plane, new_configuration(store, KERAS), settings=arguments)
    assert away.value.metadata["service"] == "executors"


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": TrainingSettings(incremental=deployment_pb2.IncrementalMode())},
        {"settings": TrainingSettings(distributed=deployment_pb2.DistributedMode())},
        {"settings": TrainingSettings(semi_supervised=deployment_pb2.SemiSupervisedMode())},
        {"settings": TrainingSettings(federated=deployment_pb2.FederatedMode())},
        {"kafka_cluster": "other"},
        {"resources": Resources(gpu_count=1)},
        {"resources": Resources(cpu_count=0.5)},
    ],
    ids=["incremental", "distributed", "semi-supervised", "federated", "cluster", "gpus", "processors"],
)
async def test_what_comes_later_says_so(plane: Managed, store: Store, fields: dict[str, Any]) -> None:
    with pytest.raises(Unimplemented) as refused:
        await create(plane, new_configuration(store, KERAS), **fields)
    assert refused.value.reason == error_pb2.REASON_NOT_YET


async def test_a_request_that_is_sent_again_creates_nothing_new(plane: Managed, store: Store) -> None:
    wish = Deployment(configuration_id=new_configuration(store, KERAS))
    request = api.CreateDeploymentRequest(deployment=wish, request_id=str(uuid.uuid4()))
    answers = await asyncio.gather(*(plane.manager.CreateDeployment(request) for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len((await plane.manager.ListDeployments(api.ListDeploymentsRequest())).deployments) == 1
    request.deployment.description = "another"
    with pytest.raises(InvalidArgument) as reused:
        await plane.manager.CreateDeployment(request)
    assert reused.value.reason == error_pb2.REASON_REQUEST_ID_REUSED
    with pytest.raises(InvalidArgument) as malformed:
        await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wish, request_id="again"))
    assert set(bad_fields(malformed.value)) == {"request_id"}


async def test_only_checking_stores_nothing(plane: Managed, store: Store) -> None:
    wish = Deployment(configuration_id=new_configuration(store, KERAS))
    checked = await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wish, validate_only=True))
    assert (checked.id, checked.settings.batch_size) == (0, 32)
    assert not (await plane.manager.ListDeployments(api.ListDeploymentsRequest())).deployments
    wish.configuration_id = 99
    with pytest.raises(NotFound):
        await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wish, validate_only=True))


async def test_trainings_are_listed_newest_first_in_pages(plane: Managed, store: Store) -> None:
    first, second = new_configuration(store, KERAS), new_configuration(store, TORCH)
    ids = [(await create(plane, one)).id for one in (first, second, first, first)]
    request = api.ListDeploymentsRequest(page_size=2, configuration_id=first)
    page = await plane.manager.ListDeployments(request)
    assert [one.id for one in page.deployments] == [ids[3], ids[2]]
    request.page_token = page.next_page_token
    last = await plane.manager.ListDeployments(request)
    assert [one.id for one in last.deployments] == [ids[0]]
    assert not last.next_page_token
    finished = api.ListDeploymentsRequest(state=deployment_pb2.STATE_FINISHED)
    assert not (await plane.manager.ListDeployments(finished)).deployments


async def test_a_stream_whose_topic_is_gone_is_refused(tmp_path: Path, store: Store, kafka: KafkaSettings) -> None:
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as plane:
        stream_id = plane.world.stream("gone")
        with pytest.raises(NotFound) as refused:
            await create(plane, new_configuration(store, KERAS), stream_id=stream_id)
    assert refused.value.reason == error_pb2.REASON_UNKNOWN_TOPIC


async def test_a_stream_whose_topic_was_made_anew_is_refused(
    tmp_path: Path, store: Store, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic()
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as plane:
        stream_id = plane.world.stream("anew", topic=name, topic_ids={name: "the id before"})
        with pytest.raises(FailedPrecondition) as refused:
            await create(plane, new_configuration(store, KERAS), stream_id=stream_id)
    assert refused.value.reason == error_pb2.REASON_TOPIC_RECREATED
    assert refused.value.metadata["id"] == str(stream_id)


async def test_an_expired_stream_is_refused(
    tmp_path: Path, store: Store, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic()
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as plane:
        # A partition that the topic does not have: nothing of the range can be read.
        stream_id = plane.world.stream("expired", topic=name, partition=7)
        with pytest.raises(FailedPrecondition) as refused:
            await create(plane, new_configuration(store, KERAS), stream_id=stream_id)
    assert refused.value.reason == error_pb2.REASON_DATA_EXPIRED
    assert refused.value.metadata["id"] == str(stream_id)


async def test_a_stream_is_taken_while_kafka_does_not_answer(plane: Managed, store: Store) -> None:
    stream_id = plane.world.stream("unknown")
    assert (await create(plane, new_configuration(store, KERAS), stream_id=stream_id)).stream_id == stream_id


async def test_an_endless_stream_is_for_later(plane: Managed, store: Store) -> None:
    stream_id = plane.world.stream("endless", incremental=True)
    assert store.read_now(lambda: streams.get(stream_id)).incremental
    with pytest.raises(Unimplemented):
        await create(plane, new_configuration(store, KERAS), stream_id=stream_id)


async def test_those_that_wait_for_a_processor_know_their_place(plane: Managed, store: Store) -> None:
    both, waiting = [await create(plane, new_configuration(store, KERAS, TORCH)) for _ in range(2)]
    for result_id in both.result_ids:
        store.write_now(partial(results.start_attempt, result_id))
    assert not (await get(plane, both.id)).queue_message
    message = (await get(plane, waiting.id)).queue_message
    assert message.startswith("2 models wait, the first of them as 1st of 2 in the queue: 2 trainings run, at most 2")
    listed = (await plane.manager.ListDeployments(api.ListDeploymentsRequest())).deployments
    assert [one.queue_message for one in listed] == [message, ""]


async def trained(plane: Managed, store: Store, *, stream_id: int = 0) -> result_pb2.Result:
    """A result that knows its stream; its model and configuration are others by now."""
    settings = TrainingSettings(batch_size=7, seed=42, confusion_matrix=True)
    settings.tensorflow.fit_args = "epochs=3"
    made = await create(plane, new_configuration(store, KERAS, TORCH), settings=settings, stream_id=stream_id)
    result_id = made.result_ids[0]
    store.write_now(partial(results.start_attempt, result_id))
    stream = store.read_now(lambda: streams.get(stream_id)) if stream_id else STREAM
    known = result_collector_pb2.Outcome(stream=stream)
    event = result_collector_pb2.ReportRequest(result_id=result_id, attempt=1, seq=1, outcome=known)
    store.write_now(lambda: reports.store(result_id, 1, [event]))

    def change_model() -> None:
        model = models.get(plane.world.result(result_id).model_id)
        model.code, model.name = "model = 'another'", "renamed"
        models.update(model, "")

    store.write_now(change_model)
    return plane.world.result(result_id)


STREAM = stream_pb2.Stream(
    id=77,
    ranges=[stream_pb2.OffsetRange(topic="no-such-topic", partition=1, start=5, end=15)],
    input_format=stream_pb2.DATA_FORMAT_RAW,
    input_config={"data_type": "uint8"},
    validation_rate=0.25,
    stream_key="mine",
)


async def test_a_result_is_trained_again_as_it_was(plane: Managed, store: Store) -> None:
    source = await trained(plane, store)
    again = await create_again(plane, source.id, description="once more")
    assert (again.from_result_id, again.description) == (source.id, "once more")
    assert again.settings == source.settings
    (result_id,) = again.result_ids
    result = plane.world.result(result_id)
    for name in ("model_id", "model_name", "framework", "imports", "code", "code_sha256", "settings"):
        assert getattr(result, name) == getattr(source, name), name
    # Its own record was never in the catalog; what the result keeps of it is enough.
    assert again.stream_id == 0
    awaited = store.read_now(lambda: streams.of_deployment(again.id))
    assert awaited == STREAM
    assert [one.has_stream for one in store.read_now(results.active) if one.id == result_id] == [True]


async def test_a_result_is_trained_again_after_its_stream_was_deleted(plane: Managed, store: Store) -> None:
    stream_id = plane.world.stream("recorded")
    source = await trained(plane, store, stream_id=stream_id)
    assert (await create_again(plane, source.id)).stream_id == stream_id
    for one in store.read_now(lambda: deployments.page(before_id=None, limit=9)):
        for result_id in one.result_ids:
            store.write_now(partial(results.set_state, result_id, deployment_pb2.STATE_FAILED))
    store.write_now(lambda: streams.delete(stream_id))
    again = await create_again(plane, source.id)
    assert again.stream_id == 0
    assert store.read_now(lambda: streams.of_deployment(again.id)) == source.stream
    # An announcement for it comes too late.
    plane.world.stream("other", again.id)
    assert store.read_now(lambda: streams.of_deployment(again.id)) == source.stream


async def test_what_a_result_says_already_is_refused_beside_it(plane: Managed, store: Store) -> None:
    source = await trained(plane, store)
    wrong = Deployment(
        configuration_id=1, from_result_id=source.id, stream_id=3, settings=TrainingSettings(batch_size=8),
        allowed_topics=["data"],
    )  # fmt: skip
    with pytest.raises(InvalidArgument) as refused:
        await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wrong))
    fields = {"configuration_id", "settings", "stream_id", "allowed_topics"}
    assert set(bad_fields(refused.value)) == {f"deployment.{name}" for name in fields}
    with pytest.raises(NotFound) as unknown:
        await create_again(plane, 99)
    assert unknown.value.metadata["resource"] == "result"
    assert set(bad_fields(unknown.value)) == {"deployment.from_result_id"}


async def test_a_result_that_never_had_a_stream_is_not_trained_again(plane: Managed, store: Store) -> None:
    waiting = await create(plane, new_configuration(store, KERAS))
    with pytest.raises(FailedPrecondition) as refused:
        await create_again(plane, waiting.result_ids[0])
    assert refused.value.reason == error_pb2.REASON_WRONG_STATE


async def test_a_range_whose_topic_is_gone_is_not_trained_again(
    tmp_path: Path, store: Store, kafka: KafkaSettings
) -> None:
    async with managed(tmp_path, store, kafka=kafka.bootstrap_servers) as plane:
        source = await trained(plane, store)
        with pytest.raises(NotFound) as refused:
            await create_again(plane, source.id)
    assert refused.value.reason == error_pb2.REASON_UNKNOWN_TOPIC


async def test_training_again_can_be_only_checked(plane: Managed, store: Store) -> None:
    source = await trained(plane, store)
    wish = Deployment(from_result_id=source.id, resources=Resources(memory_bytes=5))
    request = api.CreateDeploymentRequest(deployment=wish, validate_only=True)
    answer = await plane.manager.CreateDeployment(request)
    assert (answer.id, answer.from_result_id, answer.settings) == (0, source.id, source.settings)
    assert answer.resources.memory_bytes == 5


async def create_again(plane: Managed, result_id: int, **fields: Any) -> Deployment:
    wish = Deployment(from_result_id=result_id, **fields)
    answer: Deployment = await plane.manager.CreateDeployment(api.CreateDeploymentRequest(deployment=wish))
    return answer


async def test_a_training_is_cancelled_within_seconds_and_deleted_with_its_logs(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store, reconciled=True) as plane:
        running = await create(plane, new_configuration(store, KERAS))
        (result_id,) = running.result_ids
        await until(plane, running.id, deployment_pb2.STATE_STARTING)
        await asyncio.to_thread(plane.world.trains, result_id)
        with pytest.raises(FailedPrecondition) as refused:
            await plane.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=running.id))
        assert refused.value.reason == error_pb2.REASON_WRONG_STATE
        cancel = api.CancelDeploymentRequest(id=running.id)
        assert (await plane.manager.CancelDeployment(cancel)).state == deployment_pb2.STATE_CANCELLING
        async with asyncio.timeout(5):
            await until(plane, running.id, deployment_pb2.STATE_CANCELLED)
        assert (await plane.manager.CancelDeployment(cancel)).state == deployment_pb2.STATE_CANCELLED
        assert plane.world.log(trainer_name(result_id, 1))
        await plane.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=running.id))
        assert not plane.world.log(trainer_name(result_id, 1))
        with pytest.raises(NotFound):
            await get(plane, running.id)


async def test_a_forced_delete_ends_what_runs_first(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store, reconciled=True) as plane:
        running = await create(plane, new_configuration(store, KERAS, TORCH))
        for result_id in running.result_ids:
            await asyncio.to_thread(plane.world.trains, result_id)
        await plane.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=running.id, force=True))
        assert not plane.world.trainers()
        assert not list((tmp_path / "logs").glob("train-*"))
        with pytest.raises(NotFound):
            await get(plane, running.id)


async def test_a_finished_training_is_not_cancelled_nor_deleted_while_it_is_served(
    plane: Managed, store: Store
) -> None:
    inference = await asyncio.to_thread(plane.world.inference)
    served = store.read_now(lambda: results.get(inference.result_id)).deployment_id
    with pytest.raises(FailedPrecondition) as finished:
        await plane.manager.CancelDeployment(api.CancelDeploymentRequest(id=served))
    assert finished.value.metadata["state"] == "FINISHED"
    for force in (False, True):
        with pytest.raises(FailedPrecondition) as in_use:
            await plane.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=served, force=force))
        assert in_use.value.reason == error_pb2.REASON_RESOURCE_IN_USE
        assert in_use.value.metadata["used_by_ids"] == str(inference.id)
    store.write_now(lambda: inferences.set_state(inference.id, inference_pb2.INFERENCE_STATE_STOPPED))
    store.write_now(lambda: inferences.delete(inference.id))
    await plane.manager.DeleteDeployment(api.DeleteDeploymentRequest(id=served))
    with pytest.raises(NotFound):
        store.read_now(lambda: deployments.get(served))


async def test_a_stream_of_other_topics_than_are_allowed_is_not_taken(plane: Managed, store: Store) -> None:
    early = plane.world.stream("early", deployment_id=1)
    created = await create(plane, new_configuration(store, KERAS), allowed_topics=["mine"])
    assert (created.stream_id, list(created.allowed_topics)) == (0, ["mine"])
    told = from_status(created.refused_announcement.error)
    assert (told.reason_name, told.metadata["allowed"]) == ("TOPIC_NOT_ALLOWED", "mine")
    with pytest.raises(InvalidArgument) as refused:
        await create(plane, created.configuration_id, stream_id=early, allowed_topics=["mine"])
    assert set(bad_fields(refused.value)) == {"deployment.allowed_topics"}


async def test_what_is_announced_before_its_training_is_trained_on(plane: Managed, store: Store) -> None:
    stream_id = plane.world.stream("early", deployment_id=1)
    created = await create(plane, new_configuration(store, KERAS))
    assert (created.id, created.stream_id) == (1, stream_id)
    assert store.read_now(lambda: streams.get(stream_id)).input_format == stream_pb2.DATA_FORMAT_RAW
