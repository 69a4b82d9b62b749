"""What the cluster should do next, from tables of states."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from google.rpc import status_pb2

from control_plane.actions import (
    Action,
    DropReplicas,
    FailTraining,
    Forget,
    GiveWay,
    RemoveWorks,
    Requeue,
    RestartReplica,
    RetryReplica,
    RetryTraining,
    SetInferenceState,
    SettleCancelled,
    StartReplica,
    StartTrainer,
    Stop,
)
from control_plane.cluster import Exit, Observed, Seen
from control_plane.inference_plan import spec_hash
from control_plane.plan import Wish, plan
from control_plane.retries import MAX_ATTEMPTS, is_due, pause_us
from control_plane.store.inferences import Replica
from control_plane.store.results import ActiveResult
from control_plane.training_plan import queue_places
from headrace.errors import Unavailable, from_status
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2, model_pb2
from headrace.v1.inference_pb2 import Inference

NOW = 1_000_000_000_000_000
SECOND = 1_000_000

CREATED, STARTING, WAITING, READING, TRAINING, CANCELLING = (
    deployment_pb2.STATE_CREATED,
    deployment_pb2.STATE_STARTING,
    deployment_pb2.STATE_WAITING,
    deployment_pb2.STATE_READING,
    deployment_pb2.STATE_TRAINING,
    deployment_pb2.STATE_CANCELLING,
)
I_STARTING, RUNNING, DEGRADED, STOPPING, STOPPED, FAILED = (
    inference_pb2.INFERENCE_STATE_STARTING,
    inference_pb2.INFERENCE_STATE_RUNNING,
    inference_pb2.INFERENCE_STATE_DEGRADED,
    inference_pb2.INFERENCE_STATE_STOPPING,
    inference_pb2.INFERENCE_STATE_STOPPED,
    inference_pb2.INFERENCE_STATE_FAILED,
)
LOST_KAFKA = Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "no broker").to_status()


def result(
    id: int = 1,
    state: int = CREATED,
    attempt: int = 0,
    *,
    stream: bool = True,
    acked: int = 0,
    failures: int = 0,
    failure: status_pb2.Status | None = None,
    retry_in_s: float | None = None,
) -> ActiveResult:
    return ActiveResult(
        id=id,
        deployment_id=1,
        model_id=1,
        framework=model_pb2.FRAMEWORK_TENSORFLOW,
        state=state,
        attempt=attempt,
        acked_seq=acked,
        has_stream=stream,
        resources=deployment_pb2.Resources(),
        failure_count=failures,
        failure=failure,
        retry_time_us=None if retry_in_s is None else NOW + int(retry_in_s * SECOND),
    )


def trainer(id: int = 1, attempt: int = 1, ended: Exit | None = None) -> Observed:
    return Observed(f"train-{id}-a{attempt}", attempt, "", 4711, ended)


def planned(
    results: Iterable[ActiveResult] = (), workloads: Iterable[Observed] = (), max_trainings: int = 2, **wish: object
) -> list[Action]:
    seen = Seen({workload.name: workload for workload in workloads})
    return list(plan(Wish(tuple(results), **wish), seen, max_trainings, NOW).actions)  # type: ignore[arg-type]


def started(actions: Iterable[Action]) -> list[int]:
    return [action.result.id for action in actions if isinstance(action, StartTrainer)]


def test_nothing_is_planned_where_wish_and_world_agree() -> None:
    assert planned() == []
    assert planned([result(state=TRAINING, attempt=1)], [trainer()]) == []


@pytest.mark.parametrize("max_trainings", [1, 2, 3])
def test_no_more_trainers_run_than_are_allowed(max_trainings: int) -> None:
    results = [result(number) for number in range(1, 6)]
    assert started(planned(results, max_trainings=max_trainings)) == list(range(1, max_trainings + 1))
    one_runs = [result(9, TRAINING, 1), *results]
    assert len(started(planned(one_runs, [trainer(9)], max_trainings))) == max_trainings - 1


def test_a_trainer_that_ends_slowly_still_has_its_processor() -> None:
    leftover = trainer(id=77)
    assert planned([result(1)], [leftover], max_trainings=1) == [Stop(leftover.name, 10.0)]
    cancelled = [result(1), result(2, CANCELLING, 1)]
    assert started(planned(cancelled, [trainer(2)], max_trainings=1)) == []


def test_results_with_a_stream_go_first_then_what_had_begun_then_the_oldest() -> None:
    results = [
        result(1, stream=False),
        result(2),
        result(3),
        result(4, STARTING, 1, retry_in_s=-1),
    ]
    assert [started(planned(results, max_trainings=n)) for n in range(1, 5)] == [
        [4],
        [4, 2],
        [4, 2, 3],
        [4, 2, 3, 1],
    ]


def test_a_trainer_that_waits_for_its_stream_gives_way_to_a_result_that_has_one() -> None:
    idle = [result(1, WAITING, 1, stream=False), result(2, STARTING, 1, stream=False)]
    both = [trainer(1), trainer(2)]
    assert planned([*idle, result(3)], both) == [GiveWay(2)]
    assert planned([*idle, result(3), result(4)], both) == [GiveWay(2), GiveWay(1)]
    # Nobody gives way to one that would only wait as well, nor do those that work.
    assert planned([*idle, result(3, stream=False)], both) == []
    assert planned([result(1, TRAINING, 1), result(2, READING, 1), result(3)], both) == []


def test_one_that_gives_way_is_stopped_before_another_is_started() -> None:
    leaving = [result(1, WAITING, 1, stream=False), result(2, CREATED, 1, stream=False), result(3)]
    assert planned(leaving, [trainer(1), trainer(2)]) == [Stop("train-2-a1", 5.0)]
    gone = planned(leaving, [trainer(1), trainer(2, ended=Exit(0, stopped=True))])
    assert gone == [Forget("train-2-a1"), StartTrainer(result(3))]


@pytest.mark.parametrize(
    ("ended", "reason", "facts"),
    [
        (Exit(code=75), "INTERNAL_ERROR", {"exit_code": "75"}),
        (Exit(code=0), "INTERNAL_ERROR", {"exit_code": "0"}),
        (Exit(code=1), "INTERNAL_ERROR", {"exit_code": "1"}),
        (Exit(code=11), "FENCED", {"workload": "train-1-a1"}),
        (Exit(code=20), "INTERNAL_ERROR", {"exit_code": "20"}),
        (Exit(signal=9), "WORKER_CRASHED", {"signal": "9"}),
        (Exit(signal=11), "WORKER_CRASHED", {"signal": "11"}),
        (Exit(), "WORKER_CRASHED", {}),
    ],
)
def test_an_end_without_a_final_state_is_worth_another_attempt(ended: Exit, reason: str, facts: dict[str, str]) -> None:
    (action,) = planned([result(state=TRAINING, attempt=1)], [trainer(ended=ended)])
    assert isinstance(action, RetryTraining)
    assert action.retry_time_us == NOW + SECOND // 2
    assert action.error is not None
    error = from_status(action.error)
    assert error.reason_name == reason
    assert error.metadata == {"workload": "train-1-a1", **facts}


def test_what_the_attempt_reported_is_kept() -> None:
    (action,) = planned([result(state=STARTING, attempt=1, failure=LOST_KAFKA)], [trainer(ended=Exit(code=75))])
    assert isinstance(action, RetryTraining)
    assert action.error is None


@pytest.mark.parametrize("code", [10, 12, 19])
def test_a_permanent_failure_is_not_tried_again(code: int) -> None:
    (silent,) = planned([result(state=TRAINING, attempt=1)], [trainer(ended=Exit(code=code))])
    assert isinstance(silent, FailTraining)
    assert from_status(silent.error).metadata["exit_code"] == str(code)
    (known,) = planned([result(state=TRAINING, attempt=1, failure=LOST_KAFKA)], [trainer(ended=Exit(code=code))])
    assert known == FailTraining(1, LOST_KAFKA)


def test_pauses_double_up_to_thirty_seconds() -> None:
    assert [pause_us(failures) / SECOND for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pause_us(10_000) == 30 * SECOND


def test_a_clock_that_was_set_back_does_not_hold_a_retry_up() -> None:
    assert is_due(NOW - 1, NOW)
    assert not is_due(NOW + 30 * SECOND, NOW)
    assert is_due(NOW + 7200 * SECOND, NOW)


def test_the_last_attempt_gives_the_training_its_error() -> None:
    last = result(state=TRAINING, attempt=9, failures=MAX_ATTEMPTS - 1, failure=LOST_KAFKA)
    (action,) = planned([last], [trainer(attempt=9, ended=Exit(code=75))])
    assert isinstance(action, FailTraining)
    error = from_status(action.error)
    assert error.reason == error_pb2.REASON_KAFKA_UNAVAILABLE
    assert error.metadata["attempts"] == str(MAX_ATTEMPTS)


def test_a_failed_attempt_waits_and_then_the_next_one_starts() -> None:
    waiting = result(state=STARTING, attempt=1, failures=1, retry_in_s=3)
    found = plan(Wish([waiting]), Seen({"train-1-a1": trainer(ended=Exit(signal=9))}), 2, NOW)
    assert list(found.actions) == [Forget("train-1-a1")]
    assert found.next_s == 3
    due = result(state=STARTING, attempt=1, failures=1, retry_in_s=-1)
    assert planned([due]) == [StartTrainer(due)]


def test_a_process_that_was_told_to_end_did_not_fail() -> None:
    for ended in (Exit(0, stopped=True), Exit(signal=9, stopped=True), Exit(stopped=True)):
        assert planned([result(state=TRAINING, attempt=2, failures=4)], [trainer(1, 2, ended)]) == [Requeue(1)]


def test_an_attempt_that_was_numbered_and_not_started_is_started() -> None:
    numbered = result(state=STARTING, attempt=3)
    assert planned([numbered]) == [StartTrainer(numbered, again=True)]
    # One that has reported was started: it was lost.
    for lost in (result(state=STARTING, attempt=3, acked=1), result(state=TRAINING, attempt=3)):
        (action,) = planned([lost])
        assert isinstance(action, RetryTraining)


def test_cancelling_stops_the_trainer_and_ends_when_it_is_gone() -> None:
    cancelling = [result(state=CANCELLING, attempt=1)]
    assert planned(cancelling, [trainer()]) == [Stop("train-1-a1", 4.0)]
    gone = planned(cancelling, [trainer(ended=Exit(0, stopped=True))])
    assert gone == [SettleCancelled(1), Forget("train-1-a1")]
    assert planned([result(state=CANCELLING)]) == [SettleCancelled(1)]


def test_two_attempts_of_a_result_never_run_at_once() -> None:
    # As after a database was restored from an older copy.
    assert planned([result(state=STARTING, attempt=2)], [trainer(attempt=1)]) == [Stop("train-1-a1", 0.0)]
    assert planned([result(state=CREATED)], [trainer(attempt=1)]) == [Stop("train-1-a1", 5.0)]
    due = result(state=STARTING, attempt=2, retry_in_s=-1)
    assert planned([due], [trainer(attempt=1)]) == [Stop("train-1-a1", 0.0)]


def test_what_nobody_wants_is_ended_and_forgotten() -> None:
    stranger = Observed("something-else")
    assert planned([], [trainer(5), trainer(6, ended=Exit(0)), stranger]) == [
        Stop("train-5-a1", 10.0),
        Forget("train-6-a1"),
        Stop("something-else", 10.0),
    ]


def test_work_folders_live_as_long_as_their_results_and_processes() -> None:
    seen = Seen(
        {"train-2-a1": trainer(2), "infer-7-1": Observed("infer-7-1")},
        frozenset(
            {"result-1", "result-2", "result-3", "deployment-1", "deployment-2"}
            | {"inference-7-1", "inference-8-0", "inference-9-0"}
        ),
    )
    wish = Wish([result(1, CREATED)], [inference(8)], [replica(8)])
    found = plan(wish, seen, 1, NOW).actions
    assert [one for one in found if isinstance(one, RemoveWorks)] == [
        RemoveWorks(frozenset({"result-3", "deployment-2", "inference-9-0"}))
    ]


def test_the_queue_has_places_for_those_that_find_no_processor() -> None:
    results = [result(1, TRAINING, 1), result(2, stream=False), result(3), result(4)]
    assert queue_places(results, max_trainings=1) == {3: 1, 4: 2, 2: 3}
    assert queue_places(results, max_trainings=2) == {4: 1, 2: 2}
    assert queue_places(results, max_trainings=4) == {}


@pytest.mark.parametrize("max_trainings", [1, 2])
def test_every_queue_is_worked_off(max_trainings: int) -> None:
    """Whatever mixture of states a step begins with, it leaves at most the allowed number of trainers."""
    states = (result(0, CREATED), result(0, TRAINING, 1), result(0, WAITING, 1, stream=False), result(0, CANCELLING, 1))
    for mixture in itertools.product(states, (None, Exit(0, stopped=True), Exit(signal=9)), repeat=2):
        results = [ActiveResult(**{**vars(one), "id": number}) for number, one in enumerate(mixture[::2], start=1)]
        workloads = [
            trainer(one.id, one.attempt, ended)  # type: ignore[arg-type]
            for one, ended in zip(results, mixture[1::2], strict=True)
            if one.attempt
        ]
        running = sum(one.is_running for one in workloads)
        if running <= max_trainings:
            assert running + len(started(planned(results, workloads, max_trainings))) <= max_trainings


def inference(id: int = 1, state: int = RUNNING, replicas: int = 1, **fields: object) -> Inference:
    return Inference(id=id, state=state, replicas=replicas, input_topic="in", result_id=5, **fields)  # type: ignore[arg-type]


def replica(
    id: int = 1,
    slot: int = 0,
    attempt: int = 1,
    state: int = RUNNING,
    failures: int = 0,
    retry_in_s: float | None = None,
    error: status_pb2.Status | None = None,
    silent_s: float | None = None,
) -> Replica:
    return Replica(
        inference_id=id,
        slot=slot,
        attempt=attempt,
        state=state,
        restart_count=0,
        failure_count=failures,
        retry_time_us=None if retry_in_s is None else NOW + int(retry_in_s * SECOND),
        report_time_us=None if silent_s is None else NOW - int(silent_s * SECOND),
        error=error,
    )


def process(slot: int = 0, attempt: int = 1, ended: Exit | None = None, spec: str | None = None) -> Observed:
    return Observed(f"infer-1-{slot}", attempt, spec or spec_hash(inference()), 4711, ended)


def kept(one: Inference, replicas: Iterable[Replica], processes: Iterable[Observed]) -> list[Action]:
    return planned(workloads=processes, inferences=[one], replicas=list(replicas))


def starts(one: Inference, slot: int, again: bool = False) -> StartReplica:
    return StartReplica(one, slot, spec_hash(one), again)


def test_an_inference_gets_a_process_per_slot() -> None:
    new = inference(state=I_STARTING, replicas=2)
    slots = [replica(slot=0, attempt=0, state=I_STARTING), replica(slot=1, attempt=0, state=I_STARTING)]
    assert kept(new, slots, []) == [starts(new, 0), starts(new, 1)]
    begun = [replica(slot=0, state=I_STARTING), replica(slot=1, state=I_STARTING)]
    assert kept(new, begun, [process(0), process(1)]) == []


def test_an_inference_runs_when_all_its_replicas_do() -> None:
    new = inference(state=I_STARTING, replicas=2)
    both = [process(0), process(1)]
    assert kept(new, [replica(slot=0), replica(slot=1, state=I_STARTING)], both) == []
    assert kept(new, [replica(slot=0), replica(slot=1)], both) == [SetInferenceState(1, RUNNING)]
    assert kept(inference(), [replica()], [process()]) == []


@pytest.mark.parametrize("ended", [Exit(signal=9), Exit(code=75), Exit(code=1), Exit(), Exit(code=0)])
def test_a_replica_that_dies_is_started_again_at_once(ended: Exit) -> None:
    retry, degraded = kept(inference(), [replica()], [process(ended=ended)])
    assert isinstance(retry, RetryReplica)
    assert retry.retry_time_us == NOW
    assert degraded == SetInferenceState(1, DEGRADED)
    again = kept(inference(state=DEGRADED), [replica(failures=1, retry_in_s=0)], [process(ended=ended)])
    assert again == [Forget("infer-1-0"), starts(inference(state=DEGRADED), 0)]


def test_a_replica_that_keeps_dying_waits_longer_and_longer() -> None:
    for failures, pause_s in ((1, 0.5), (2, 1), (4, 4), (20, 30)):
        retry = kept(inference(), [replica(failures=failures)], [process(ended=Exit(code=75))])[0]
        assert isinstance(retry, RetryReplica)
        assert retry.retry_time_us == NOW + pause_s * SECOND
    waiting = [replica(failures=3, retry_in_s=2, state=I_STARTING)]
    assert kept(inference(state=DEGRADED), waiting, [process(ended=Exit(code=75))]) == [Forget("infer-1-0")]


def test_a_permanent_failure_of_a_replica_is_that_of_the_inference() -> None:
    two = inference(replicas=2)
    slots = [replica(slot=0), replica(slot=1, error=LOST_KAFKA)]
    failed = kept(two, slots, [process(0), process(1, ended=Exit(code=10))])
    assert failed == [SetInferenceState(1, FAILED, LOST_KAFKA)]
    (silent,) = kept(inference(), [replica()], [process(ended=Exit(code=12))])
    assert isinstance(silent, SetInferenceState)
    assert silent.error is not None
    assert from_status(silent.error).metadata["exit_code"] == "12"
    # What is left of it is stopped like anything that nobody wants.
    assert planned([], [process(0)]) == [Stop("infer-1-0", 10.0)]


def test_a_replica_that_falls_silent_does_not_answer_and_is_started_again() -> None:
    assert kept(inference(), [replica(silent_s=9)], [process()]) == []
    degraded = SetInferenceState(1, DEGRADED)
    assert kept(inference(), [replica(silent_s=11)], [process()]) == [degraded]
    assert kept(inference(), [replica(silent_s=61)], [process()]) == [Stop("infer-1-0", 0.0), degraded]
    # A clock that was set forward kills nothing.
    assert kept(inference(), [replica(silent_s=7200)], [process()]) == [degraded]
    # Loading a model may take long, and nobody hears a report while the control plane is away.
    loading = replica(state=I_STARTING, silent_s=600)
    assert kept(inference(state=I_STARTING), [loading], [process()]) == []
    away = planned(
        workloads=[process()], inferences=[inference()], replicas=[replica(silent_s=600)], heard_since_us=NOW - SECOND
    )
    assert away == []


def test_a_process_of_another_attempt_is_replaced() -> None:
    assert kept(inference(), [replica(attempt=2)], [process(attempt=1)])[0] == Stop("infer-1-0", 0.0)
    left = kept(inference(), [replica(attempt=2)], [process(attempt=1, ended=Exit(signal=9))])
    assert left[:2] == [Forget("infer-1-0"), starts(inference(), 0, again=True)]
    assert kept(inference(), [replica(attempt=2)], [])[0] == starts(inference(), 0, again=True)


def test_scaling_down_stops_the_highest_slots_gracefully() -> None:
    slots = [replica(slot=slot) for slot in range(3)]
    assert kept(inference(), slots, [process(0), process(1), process(2)]) == [
        Stop("infer-1-2", 10.0),
        Stop("infer-1-1", 10.0),
    ]
    gone = kept(inference(), slots, [process(0), process(1, ended=Exit(0, stopped=True))])
    assert gone == [Forget("infer-1-1")]
    assert kept(inference(), slots, [process(0)]) == [DropReplicas(1, 1)]


def test_scaling_up_starts_what_is_missing() -> None:
    two = inference(replicas=2)
    actions = kept(two, [replica(slot=0), replica(slot=1, attempt=0, state=I_STARTING)], [process(0)])
    assert actions == [starts(two, 1), SetInferenceState(1, DEGRADED)]


def test_a_changed_inference_replaces_one_replica_while_the_others_answer() -> None:
    changed = inference(replicas=2, input_config={"data_type": "uint8"})
    new = spec_hash(changed)
    old = [process(0), process(1)]
    both = [replica(slot=0), replica(slot=1)]
    assert kept(changed, both, old) == [Stop("infer-1-0", 10.0)]
    # The first is back but does not answer yet; then it does.
    starting = [replica(slot=0, attempt=2, state=I_STARTING), replica(slot=1)]
    halfway = [process(0, attempt=2, spec=new), process(1)]
    assert kept(changed, starting, halfway) == [SetInferenceState(1, DEGRADED)]
    assert kept(changed, [replica(slot=0, attempt=2), replica(slot=1)], halfway) == [Stop("infer-1-1", 10.0)]
    # What does not answer anyway is not waited for.
    idle = [replica(slot=0, state=I_STARTING), replica(slot=1)]
    assert Stop("infer-1-0", 10.0) in kept(changed, idle, old)
    stopped = kept(changed, both, [process(0, ended=Exit(0, stopped=True)), process(1)])
    assert stopped[0] == RestartReplica(1, 0)


def test_the_number_of_replicas_the_name_and_another_model_replace_nothing() -> None:
    assert spec_hash(inference(replicas=3, name="other", etag="r9")) == spec_hash(inference())
    other = Inference(result_id=6, model_id=2, alias="champion", answering_result_id=5, input_topic="in")
    assert spec_hash(other) == spec_hash(inference())
    assert spec_hash(inference(output_topic="other")) != spec_hash(inference())


def test_stopping_ends_every_replica_and_then_the_inference() -> None:
    stopping = inference(state=STOPPING, replicas=2)
    slots = [replica(slot=0), replica(slot=1)]
    assert kept(stopping, slots, [process(0), process(1)]) == [Stop("infer-1-1", 10.0), Stop("infer-1-0", 10.0)]
    last = kept(stopping, slots, [process(0), process(1, ended=Exit(code=10))])
    assert last == [Forget("infer-1-1"), Stop("infer-1-0", 10.0)]
    assert kept(stopping, slots, [process(0, ended=Exit(0, stopped=True))]) == [
        Forget("infer-1-0"),
        SetInferenceState(1, STOPPED),
    ]
