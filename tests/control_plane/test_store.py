"""What the store promises: durability, one writer, typed faults, a gate for versions."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.events import Follower, Watchers
from control_plane.store import Change, Kind, Store, deployments, inferences, models, requests, results, states
from control_plane.store.schema import VERSION
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from headrace.v1 import deployment_pb2, inference_pb2, model_pb2
from tests.control_plane.conftest import new_training

State = deployment_pb2.State


def a_model(name: str) -> model_pb2.Model:
    return model_pb2.Model(name=name, framework=model_pb2.FRAMEWORK_PYTORCH, code="model = 1")


async def test_a_write_that_raises_leaves_nothing(store: Store) -> None:
    def half() -> None:
        models.create(a_model("a"))
        raise NotFound(0, "on purpose")

    with pytest.raises(NotFound):
        await store.write(half)
    assert await store.read(lambda: models.page(before_id=None, limit=10)) == []


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        await store.write(lambda: models.create(a_model("a")))
    with Store.open(tmp_path / "a.db") as store:
        assert (await store.read(lambda: models.get(1))).name == "a"


def test_two_stores_in_one_process_do_not_mix(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as a, Store.open(tmp_path / "b.db") as b:
        a.write_now(lambda: models.create(a_model("of a")))
        b.write_now(lambda: models.create(a_model("of b")))
        assert a.read_now(lambda: models.get(1)).name == "of a"
        assert b.read_now(lambda: models.get(1)).name == "of b"


def test_a_second_control_plane_on_one_file_is_refused(store: Store) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Store.open(store.path)
    assert caught.value.metadata["path"] == str(store.path)


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(FailedPrecondition) as caught:
        Store.open(path)
    assert caught.value.metadata["version"] == str(VERSION + 1)
    assert caught.value.metadata["supported_version"] == str(VERSION)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE other (id INTEGER)")
    with pytest.raises(FailedPrecondition):
        Store.open(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 50)
    with pytest.raises(Unavailable) as caught:
        Store.open(path)
    assert caught.value.reason_name == "STORAGE_UNAVAILABLE"


async def test_a_lock_held_by_others_is_unavailable_and_passes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", busy_timeout_s=0.05) as store:
        await store.write(lambda: models.create(a_model("a")))
        holder = sqlite3.connect(store.path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable) as caught:
            await store.write(lambda: models.create(a_model("b")))
        assert caught.value.reason_name == "STORAGE_UNAVAILABLE"
        assert caught.value.retry_after_s is not None
        assert (await store.read(lambda: models.get(1))).name == "a"
        holder.execute("ROLLBACK")
        holder.close()
        assert (await store.write(lambda: models.create(a_model("b")))).name == "b"
        assert not store.broken.is_set()


async def test_a_full_disk_stores_nothing_and_passes(store: Store) -> None:
    from control_plane.store.connections import database

    await store.write(lambda: models.create(a_model("a")))
    pages = await store.write(lambda: database.pragma("page_count"))
    await store.write(lambda: database.pragma("max_page_count", pages))
    big = a_model("b")
    big.code = "model = 1 #" + "x" * 100_000
    with pytest.raises(ResourceExhausted) as caught:
        await store.write(lambda: models.create(big))
    assert caught.value.reason_name == "STORAGE_UNAVAILABLE"
    await store.write(lambda: database.pragma("max_page_count", 1_000_000))
    assert (await store.write(lambda: models.create(big))).id == 2


def test_what_was_committed_survives_kill_9_and_what_was_not_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    script = f"""
import os, signal
from pathlib import Path
from control_plane.store import Store, models
from headrace.v1 import model_pb2
store = Store.open(Path({str(path)!r}))
def create(name): return models.create(model_pb2.Model(name=name, framework=1, code="model = 1"))
for number in range(20):
    store.write_now(lambda: create(str(number)))
    print(number, flush=True)
def die():
    create("lost")
    os.kill(os.getpid(), signal.SIGKILL)
store.write_now(die)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -9
    told = ended.stdout.split()
    with Store.open(path) as store:
        names = [model.name for model in store.read_now(lambda: models.page(before_id=None, limit=100))]
    assert list(reversed(names)) == told == [str(number) for number in range(20)]


async def test_watchers_hear_of_commits_in_order_and_not_of_rollbacks(store: Store) -> None:
    watchers = Watchers(store)

    def fail() -> None:
        models.create(a_model("lost"))
        raise NotFound(0, "on purpose")

    with watchers.follow([(Kind.MODEL, None)]) as follower, watchers.wake((Kind.MODEL, 2)) as wake:
        await store.write(lambda: models.create(a_model("a")))
        with pytest.raises(NotFound):
            await store.write(fail)
        assert not await wake.wait(0.05)
        await store.write(lambda: models.create(a_model("b")))
        heard = [await follower.next(5) for _ in range(2)]
        assert [change.id for change in heard if change] == [1, 2]
        assert await wake.wait(5)


async def test_others_have_their_turn_while_many_are_told_of_a_change(store: Store) -> None:
    watchers, told = Watchers(store), 0

    async def watch(follower: Follower) -> None:
        nonlocal told
        assert await follower.next(30)
        told += 1

    with ExitStack() as stack:
        followers = [stack.enter_context(watchers.follow([(Kind.MODEL, None)])) for _ in range(2000)]
        async with asyncio.TaskGroup() as tasks:
            for follower in followers:
                tasks.create_task(watch(follower))
            await asyncio.sleep(0)
            watchers.tell([Change(Kind.MODEL, 1, None)])
            for _ in range(10):
                await asyncio.sleep(0)
            assert 0 < told < 200
    assert told == 2000


async def test_a_commit_is_told_though_its_caller_has_gone(store: Store) -> None:
    watchers = Watchers(store)
    with watchers.follow([(Kind.MODEL, None)]) as follower:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def create() -> model_pb2.Model:
            loop.call_soon_threadsafe(started.set)
            return models.create(a_model("a"))

        writing = asyncio.create_task(store.write(create))
        await started.wait()
        writing.cancel()
        assert await follower.next(5) is not None


async def test_a_deployment_makes_a_result_per_model_in_order(store: Store) -> None:
    deployment = await store.write(partial(new_training, "b", "a", start=False))
    found = [await store.read(partial(results.get, one)) for one in deployment.result_ids]
    assert [result.model_name for result in found] == ["b", "a"]
    assert all(result.settings.seed == 7 for result in found)
    assert all(result.code == "model = 1" for result in found)
    assert deployment.state == deployment_pb2.STATE_CREATED
    assert [one.attempt for one in await store.read(results.active)] == [0, 0]


async def test_an_edited_model_leaves_the_code_of_its_results(store: Store) -> None:
    deployment = await store.write(partial(new_training, "a"))

    def edit() -> None:
        model = models.get(1)
        model.code = "model = 2"
        models.update(model, "")

    await store.write(edit)
    assert (await store.read(partial(results.get, deployment.result_ids[0]))).code == "model = 1"


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["CREATED", "CREATED"], "CREATED"),
        (["TRAINING", "READING"], "READING"),
        (["FINISHED", "TRAINING"], "TRAINING"),
        (["FINISHED", "FINISHED"], "FINISHED"),
        (["FAILED", "TRAINING"], "TRAINING"),
        (["FAILED", "FINISHED"], "FAILED"),
        (["FAILED", "CANCELLED"], "FAILED"),
        (["CANCELLED", "FINISHED"], "CANCELLED"),
        (["CANCELLING", "CREATED"], "CANCELLING"),
        (["CANCELLING", "FINISHED"], "CANCELLING"),
    ],
)
def test_the_state_of_a_deployment_follows_from_its_results(parts: list[str], whole: str) -> None:
    numbers = [State.Value(f"STATE_{part}") for part in parts]
    assert states.state_name(states.whole_state(numbers)) == whole


@given(st.lists(st.sampled_from([number for number in State.values() if number]), min_size=1, max_size=6))
def test_a_deployment_has_ended_exactly_when_all_its_results_have(parts: list[int]) -> None:
    assert states.is_final(states.whole_state(parts)) == all(states.is_final(part) for part in parts)


async def test_cancelling_asks_every_result_that_runs(store: Store) -> None:
    deployment = await store.write(partial(new_training, "a", "b"))
    first, second = deployment.result_ids
    await store.write(partial(results.set_state, first, deployment_pb2.STATE_FINISHED))
    cancelled = await store.write(partial(deployments.cancel, deployment.id))
    assert cancelled.state == deployment_pb2.STATE_CANCELLING
    await store.write(partial(results.set_state, second, deployment_pb2.STATE_CANCELLED))
    ended = await store.read(partial(deployments.get, deployment.id))
    assert ended.state == deployment_pb2.STATE_CANCELLED
    assert ended.HasField("end_time")
    assert (await store.read(partial(results.get, first))).state == deployment_pb2.STATE_FINISHED


async def test_a_result_that_has_ended_stays_as_it_is(store: Store) -> None:
    deployment = await store.write(partial(new_training, "a"))
    (result_id,) = deployment.result_ids
    await store.write(partial(results.set_state, result_id, deployment_pb2.STATE_CANCELLED))
    await store.write(partial(results.set_state, result_id, deployment_pb2.STATE_STARTING))
    assert (await store.read(partial(results.get, result_id))).state == deployment_pb2.STATE_CANCELLED
    with pytest.raises(FailedPrecondition):
        await store.write(partial(results.start_attempt, result_id))


async def test_a_running_deployment_is_not_deleted_and_an_ended_one_takes_its_results(store: Store) -> None:
    deployment = await store.write(partial(new_training, "a"))
    (result_id,) = deployment.result_ids
    with pytest.raises(FailedPrecondition):
        await store.write(partial(deployments.delete, deployment.id))
    await store.write(partial(results.set_state, result_id, deployment_pb2.STATE_CANCELLED))
    await store.write(partial(deployments.delete, deployment.id))
    with pytest.raises(NotFound):
        await store.read(partial(results.get, result_id))


async def test_a_request_id_gives_the_first_answer_again(store: Store) -> None:
    request = deployment_pb2.Deployment(description="asked")
    answer = deployment_pb2.Deployment(id=5)
    await store.write(lambda: requests.remember("create", "u1", request, answer))

    def again(request: deployment_pb2.Deployment, request_id: str = "u1") -> deployment_pb2.Deployment | None:
        found = deployment_pb2.Deployment()
        return found if requests.answered("create", request_id, request, found) else None

    assert await store.write(lambda: again(request)) == answer
    assert await store.write(lambda: again(request, "u2")) is None
    assert await store.write(lambda: again(request, "")) is None
    with pytest.raises(InvalidArgument) as caught:
        await store.write(lambda: again(deployment_pb2.Deployment(description="other")))
    assert caught.value.reason_name == "REQUEST_ID_REUSED"


async def a_served_result(store: Store) -> int:
    deployment = await store.write(partial(new_training, "a"))
    (result_id,) = deployment.result_ids
    await store.write(partial(results.set_state, result_id, deployment_pb2.STATE_FINISHED))
    return result_id


async def test_an_older_attempt_of_a_replica_is_fenced(store: Store) -> None:
    wish = inference_pb2.Inference(
        name="i", result_id=await a_served_result(store), replicas=2, input_topic="in", output_topic="out"
    )
    inference = await store.write(lambda: inferences.create(wish))
    assert [one.slot for one in inference.replica_states] == [0, 1]
    for attempt in (1, 2):
        assert await store.write(lambda: inferences.start_replica(inference.id, 0)) == attempt
    running = inference_pb2.ReplicaState(slot=0, state=inference_pb2.INFERENCE_STATE_RUNNING, lag=3)
    with pytest.raises(FailedPrecondition) as caught:
        await store.write(lambda: inferences.report_replica(inference.id, 1, running))
    assert caught.value.reason_name == "FENCED"
    await store.write(lambda: inferences.report_replica(inference.id, 2, running))
    told = (await store.read(lambda: inferences.get(inference.id))).replica_states[0]
    assert (told.lag, told.state) == (3, inference_pb2.INFERENCE_STATE_RUNNING)


async def test_a_result_that_is_served_is_not_deleted(store: Store) -> None:
    result_id = await a_served_result(store)
    wish = inference_pb2.Inference(name="i", result_id=result_id, replicas=1, input_topic="in", output_topic="out")
    inference = await store.write(lambda: inferences.create(wish))
    with pytest.raises(FailedPrecondition) as caught:
        await store.write(partial(results.delete, result_id))
    assert caught.value.metadata["used_by"] == "inference"
    await store.write(lambda: inferences.set_state(inference.id, inference_pb2.INFERENCE_STATE_STOPPED))
    await store.write(lambda: inferences.delete(inference.id))
    await store.write(partial(results.delete, result_id))
