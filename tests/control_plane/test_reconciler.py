"""Wishes and processes brought together, from any state: with real processes and a real database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from control_plane.names import replica_name, trainer_name
from control_plane.store import Store, deployments, inferences, results
from headrace.errors import FailedPrecondition, Unavailable, from_status
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2
from headrace.v1.result_collector_pb2 import StateChange
from tests.control_plane.world import World
from tests.support import eventually

LOST_KAFKA = Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "no broker").to_status()


@pytest.fixture
def world(tmp_path: Path, store: Store) -> Iterator[World]:
    """A home and its store; whatever runs there at the end is killed."""
    yield World(tmp_path, store)
    kill_all(tmp_path)


def kill_all(home: Path) -> None:
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADRACE_HOME") == str(home):
                process.kill()
        except psutil.Error:
            continue


def test_trainings_take_turns(world: World) -> None:
    first, second, third = world.training("a", "b", "c")
    with world.reconciled(max_trainings=2):
        for result_id in (first, second):
            world.trains(result_id)
        assert world.trainers() == {first, second}
        assert world.result(third).state == deployment_pb2.STATE_CREATED
        world.finish(first)
        world.trains(third)
        assert world.trainers() == {second, third}
        for result_id in (second, third):
            world.finish(result_id)
        eventually(lambda: not world.cluster.list().workloads and not world.cluster.list().works)
    assert world.deployment_of(first).state == deployment_pb2.STATE_FINISHED


def test_a_killed_trainer_is_replaced_within_a_second_and_a_half(world: World) -> None:
    (result_id,) = world.training("a")
    with world.reconciled():
        old = world.trains(result_id)
        world.report(result_id, StateChange(state=deployment_pb2.STATE_TRAINING))
        os.kill(old.pid or 0, signal.SIGKILL)
        # Noticed within 0.25 s, tried again after 0.5 s.
        eventually(lambda: world.result(result_id).attempt == 2, timeout_s=1.5)
        new = world.trains(result_id, attempt=2)
        assert new.pid != old.pid
        assert world.result(result_id).state == deployment_pb2.STATE_STARTING


@pytest.mark.parametrize(("code", "failures_before"), [(10, 0), (75, 4), (1, 4)])
def test_a_training_fails_with_what_its_last_attempt_reported(world: World, code: int, failures_before: int) -> None:
    (result_id,) = world.training("a")
    for _ in range(failures_before):
        world.write(lambda: results.record_failure(result_id, None, 0))
    with world.reconciled():
        world.trains(result_id)
        world.report(result_id, StateChange(state=deployment_pb2.STATE_STARTING, error=LOST_KAFKA))
        world.tell(trainer_name(result_id, 1), code)
        eventually(lambda: world.result(result_id).state == deployment_pb2.STATE_FAILED)
        eventually(lambda: not world.cluster.list().works)
    assert from_status(world.result(result_id).error).reason == error_pb2.REASON_KAFKA_UNAVAILABLE
    assert world.deployment_of(result_id).error == world.result(result_id).error


def test_a_training_that_fails_without_a_word_says_how_it_ended(world: World) -> None:
    (result_id,) = world.training("a")
    for _ in range(4):
        world.write(lambda: results.record_failure(result_id, None, 0))
    with world.reconciled():
        os.kill(world.trains(result_id).pid or 0, signal.SIGKILL)
        eventually(lambda: world.result(result_id).state == deployment_pb2.STATE_FAILED)
    error = from_status(world.result(result_id).error)
    assert error.reason == error_pb2.REASON_WORKER_CRASHED
    assert error.metadata == {"workload": "train-1-a1", "signal": "9", "attempts": "5"}


def test_cancelling_ends_the_processes_and_keeps_what_is_finished(world: World) -> None:
    done, runs, waits = world.training("a", "b", "c")
    with world.reconciled(max_trainings=2):
        world.trains(done)
        world.finish(done)
        world.trains(runs)
        world.trains(waits)
        deployment = world.deployment_of(done)
        world.write(lambda: deployments.cancel(deployment.id))
        assert world.deployment_of(done).state == deployment_pb2.STATE_CANCELLING
        eventually(lambda: world.deployment_of(done).state == deployment_pb2.STATE_CANCELLED, timeout_s=5)
        assert not world.trainers()
    assert world.result(done).state == deployment_pb2.STATE_FINISHED


def test_what_waits_for_its_stream_gives_way_and_comes_back(world: World) -> None:
    waiting = world.training("a", "b", stream=False)
    with world.reconciled(max_trainings=2):
        for result_id in waiting:
            world.trains(result_id)
            world.report(result_id, StateChange(state=deployment_pb2.STATE_WAITING))
        (urgent,) = world.training("c")
        world.trains(urgent)
        assert world.trainers() == {waiting[0], urgent}
        assert world.result(waiting[1]).state == deployment_pb2.STATE_CREATED
        world.finish(urgent)
        world.trains(waiting[1], attempt=2)


def test_a_stream_for_a_queued_training_makes_it_urgent(world: World) -> None:
    (idle,) = world.training("a", stream=False)
    (queued,) = world.training("b", stream=False)
    with world.reconciled(max_trainings=1):
        world.trains(idle)
        world.stream("late", world.deployment_of(queued).id)
        world.trains(queued)
        assert world.trainers() == {queued}
        assert world.result(idle).state == deployment_pb2.STATE_CREATED


def test_workloads_stop_with_the_control_plane_and_go_on_with_the_next(world: World) -> None:
    (result_id,) = world.training("a")
    inference = world.inference()
    with world.reconciled(stop_workloads=True):
        world.trains(result_id)
        world.answers(inference.id, 0)
    assert not any(one.is_running for one in world.cluster.list().workloads.values())
    assert world.result(result_id).state == deployment_pb2.STATE_STARTING
    with world.reconciled():
        world.trains(result_id, attempt=2)
        world.answers(inference.id, 0, attempt=2)


def test_workloads_outlive_the_control_plane_and_are_found_again(world: World) -> None:
    (result_id,) = world.training("a")
    inference = world.inference(replicas=2)
    with world.reconciled():
        trainer = world.trains(result_id)
        replicas = [world.answers(inference.id, slot) for slot in (0, 1)]
    with world.reconciled():
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_RUNNING)
        assert world.trains(result_id) == trainer
        assert [world.answers(inference.id, slot) for slot in (0, 1)] == replicas


def test_a_training_that_ended_while_nobody_looked_is_settled(world: World) -> None:
    finished, failed, cancelled = world.training("a", "b", "c")
    with world.reconciled(max_trainings=3):
        for result_id in (finished, failed, cancelled):
            world.trains(result_id)
    world.finish(finished)
    world.tell(trainer_name(failed, 1), 13)
    world.write(lambda: results.set_state(cancelled, deployment_pb2.STATE_CANCELLING))
    eventually(lambda: world.trainers() == {cancelled})
    with world.reconciled(max_trainings=3):
        eventually(lambda: world.deployment_of(finished).state == deployment_pb2.STATE_FAILED)
        eventually(lambda: not world.cluster.list().workloads)
    assert [world.result(one).state for one in (finished, failed, cancelled)] == [
        deployment_pb2.STATE_FINISHED,
        deployment_pb2.STATE_FAILED,
        deployment_pb2.STATE_CANCELLED,
    ]
    assert from_status(world.result(failed).error).metadata["exit_code"] == "13"


def test_a_killed_replica_is_back_at_once_and_the_whole_says_so(world: World) -> None:
    inference = world.inference(replicas=2)
    with world.reconciled():
        old = world.answers(inference.id, 0)
        assert world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_STARTING
        world.answers(inference.id, 1)
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_RUNNING)
        os.kill(old.pid or 0, signal.SIGKILL)
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_DEGRADED, timeout_s=1)
        world.answers(inference.id, 0, attempt=2)
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_RUNNING)
        (first, _) = world.read(lambda: inferences.get(inference.id)).replica_states
        assert first.restart_count == 1
        said = inference_pb2.ReplicaState(slot=0, state=inference_pb2.INFERENCE_STATE_RUNNING)
        with pytest.raises(FailedPrecondition) as fenced:
            world.write(lambda: inferences.report_replica(inference.id, 1, said))
        assert fenced.value.reason == error_pb2.REASON_FENCED


def test_a_permanent_failure_of_one_replica_ends_the_inference(world: World) -> None:
    inference = world.inference(replicas=2)
    with world.reconciled():
        for slot in (0, 1):
            world.answers(inference.id, slot)
        said = inference_pb2.ReplicaState(slot=1, state=inference_pb2.INFERENCE_STATE_FAILED, error=LOST_KAFKA)
        world.write(lambda: inferences.report_replica(inference.id, 1, said))
        world.tell(replica_name(inference.id, 1), 10)
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_FAILED)
        eventually(lambda: not world.cluster.list().workloads)
        eventually(lambda: not world.cluster.list().works)
    assert world.read(lambda: inferences.get(inference.id)).error == LOST_KAFKA


def test_replicas_are_added_removed_and_replaced_while_data_flow(world: World) -> None:
    inference = world.inference(replicas=1)

    def change(**fields: int) -> None:
        wish = world.read(lambda: inferences.get(inference.id))
        for name, value in fields.items():
            setattr(wish, name, value)
        world.write(lambda: inferences.update(wish, wish.etag))

    with world.reconciled():
        world.answers(inference.id, 0)
        change(replicas=3)
        kept = [world.answers(inference.id, slot) for slot in (0, 1, 2)]
        change(replicas=2)
        eventually(lambda: len(world.read(lambda: inferences.get(inference.id)).replica_states) == 2)
        assert world.replica(inference.id, 2) is None
        assert [world.replica(inference.id, slot) for slot in (0, 1)] == kept[:2]
        change(on_error=inference_pb2.ERROR_POLICY_SKIP)
        eventually(lambda: (one := world.replica(inference.id, 0)) is not None and one.attempt == 2)
        # The second goes only when the first answers again.
        assert world.replica(inference.id, 1) == kept[1]
        world.answers(inference.id, 0, attempt=2)
        world.answers(inference.id, 1, attempt=2)
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_RUNNING)
        world.write(lambda: inferences.stop(inference.id))
        eventually(lambda: world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_STOPPED)
        assert not any(one.is_running for one in world.cluster.list().workloads.values())


@pytest.mark.parametrize(
    "point",
    [
        "trainer_attempt_given",
        "trainer_started",
        "replica_attempt_given",
        "replica_started",
        "workload_intended",
        "workload_started",
    ],
)
def test_a_control_plane_killed_between_wish_and_record_starts_everything_once(tmp_path: Path, point: str) -> None:
    with Store.open(tmp_path / "headrace.db") as store:
        before = World(tmp_path, store)
        (result_id,) = before.training("a")
        inference_id = before.inference().id
    try:
        command = [sys.executable, "-m", "tests.control_plane.actors", str(tmp_path)]
        killed = subprocess.run(command, env={**os.environ, "HEADRACE_FAIL": f"{point}:exit@1"}, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        with Store.open(tmp_path / "headrace.db") as store:
            after = World(tmp_path, store)
            with after.reconciled():
                after.trains(result_id)
                after.answers(inference_id, 0)
            for name in (trainer_name(result_id, 1), replica_name(inference_id, 0)):
                assert after.log(name) == "begun 1\n"
    finally:
        kill_all(tmp_path)


def test_a_wish_to_stop_is_not_undone_by_what_was_seen_before_it(world: World) -> None:
    inference = world.inference()
    world.write(lambda: inferences.stop(inference.id))
    world.write(lambda: inferences.set_state(inference.id, inference_pb2.INFERENCE_STATE_RUNNING))
    assert world.state_of(inference.id) == inference_pb2.INFERENCE_STATE_STOPPING
    (result_id,) = world.training("a")
    deployment = world.deployment_of(result_id)
    world.write(lambda: deployments.cancel(deployment.id))
    world.write(lambda: results.requeue(result_id))
    world.write(lambda: results.give_way(result_id))
    world.write(lambda: results.record_failure(result_id, LOST_KAFKA, 0))
    world.write(lambda: results.fail(result_id, LOST_KAFKA))
    with pytest.raises(FailedPrecondition):
        world.write(lambda: results.start_attempt(result_id))
    assert world.result(result_id).state == deployment_pb2.STATE_CANCELLING
