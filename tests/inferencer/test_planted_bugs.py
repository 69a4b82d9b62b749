"""The oracle finds bugs that an inference could have: each is planted in the replicas, and has to show.

The same faults without the bug are harmless.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.v1 import inference_pb2
from streams.kafka import KafkaSettings
from tests.inferencer.faults.load import Kind, Load
from tests.inferencer.faults.oracle import Verdict
from tests.inferencer.faults.trial import Setting, Trial, trial
from tests.support import eventually

PARTITIONS, COUNT = 4, 500
# With a bug, some things never happen.
QUIET_S = 6.0
PLANTED_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Scenario:
    """Faults that show a bug."""

    finds: str
    """The field of the verdict that counts what it does."""
    fail: str = ""
    """Where the first process of slot 0 ends."""
    bad: dict[Kind, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    guarantee: inference_pb2.Guarantee = inference_pb2.GUARANTEE_EXACTLY_ONCE
    seconds: float = 0.05
    replicas: int = 1
    max_rows: int = 128
    provoke: Callable[[Trial], object] = lambda trial: None
    """What happens once the replicas are started."""


def add_a_replica(trial: Trial) -> None:
    """While the first one has records of several partitions with its model: the first fetch may be of one alone."""
    trial.await_count(1, timeout_s=30)
    trial.fleet.scale(2)


def wake_up_late(trial: Trial) -> None:
    """The process of slot 0 stops before a commit, and goes on when others have answered everything."""
    eventually(lambda: trial.is_committed, timeout_s=30)
    process = trial.fleet.process(0)
    assert process is not None
    process.send_signal(signal.SIGCONT)
    eventually(lambda: not trial.hidden_offsets, timeout_s=20)


SCENARIOS = {
    "commit_before_produce": Scenario("lost", "after_produce:exit@3"),
    "no_rewind": Scenario("lost", environment={"HEADRACE_STALE_EVERY": "2"}),
    "latest": Scenario("lost"),
    "last_offset": Scenario("doubled", "after_commit:exit@2"),
    "random_transactional_id": Scenario("hanging", "before_commit:exit@2"),
    "offsets_before_reports": Scenario("lost", "after_commit:exit@2", guarantee=inference_pb2.GUARANTEE_AT_LEAST_ONCE),
    "unfenced": Scenario(
        "doubled",
        "before_commit:stop@2",
        environment={"HEADRACE_SESSION_TIMEOUT_MS": "1500"},
        replicas=2,
        provoke=wake_up_late,
    ),
    "dead_letters_apart": Scenario("doubled", "before_commit:exit@2", {Kind.MALFORMED: 5}),
    "batch_refused": Scenario("wrong", bad={Kind.CRASH: 1}, max_rows=16),
    "out_of_order": Scenario("reordered"),
    "revocation_ignored": Scenario("doubled", seconds=5, max_rows=1024, provoke=add_a_replica),
    "auto_commit": Scenario("lost", "after_predict:exit@3", seconds=0.2),
}
# The others take as long, but the time of everyday tests is short.
QUICK = ("commit_before_produce", "no_rewind", "dead_letters_apart")


def run(kafka: KafkaSettings, folder: Path, scenario: Scenario, planted: str) -> Verdict:
    """The faults, with the bug or without one."""
    environment = {**scenario.environment, "HEADRACE_PLANTED": planted}
    setting = Setting(
        Load(1, PARTITIONS, COUNT, scenario.bad),
        replicas=0,
        environment=environment,
        guarantee=scenario.guarantee,
        max_rows=scenario.max_rows,
        seconds=scenario.seconds,
    )
    with trial(kafka, folder, setting) as running, running.sending() as sending:
        eventually(lambda: sending.is_done, timeout_s=20)
        if scenario.fail:
            running.fleet.once[0] = scenario.fail
        running.fleet.scale(scenario.replicas)
        scenario.provoke(running)
        return finished(running, planted)


def finished(running: Trial, planted: str) -> Verdict:
    """Does not wait for ever for what a bug keeps from happening."""
    return running.finish(PLANTED_TIMEOUT_S, QUIET_S) if planted else running.finish()


@pytest.mark.parametrize("bug", [b if b in QUICK else pytest.param(b, marks=pytest.mark.chaos) for b in SCENARIOS])
def test_a_planted_bug_is_found(kafka: KafkaSettings, tmp_path: Path, bug: str) -> None:
    verdict = run(kafka, tmp_path, SCENARIOS[bug], bug)
    print(verdict)
    assert getattr(verdict, SCENARIOS[bug].finds)


@pytest.mark.chaos
@pytest.mark.parametrize("bug", SCENARIOS)
def test_the_same_faults_without_the_bug_are_harmless(kafka: KafkaSettings, tmp_path: Path, bug: str) -> None:
    scenario = SCENARIOS[bug]
    verdict = run(kafka, tmp_path, scenario, "")
    if scenario.guarantee == inference_pb2.GUARANTEE_AT_LEAST_ONCE:
        verdict.forgive("doubled", "reordered")
    assert verdict.is_clean, verdict


@pytest.mark.chaos
@pytest.mark.parametrize("planted", ["constant_group", ""])
def test_two_inferences_of_one_input_that_share_a_group_are_found(
    kafka: KafkaSettings, tmp_path: Path, planted: str
) -> None:
    setting = Setting(Load(1, PARTITIONS, COUNT), replicas=0, environment={"HEADRACE_PLANTED": planted})
    with (
        trial(kafka, tmp_path / "one", setting) as one,
        trial(kafka, tmp_path / "two", setting, one.source) as two,
        one.sending() as sending,
    ):
        eventually(lambda: sending.is_done, timeout_s=20)
        for each in (one, two):
            each.fleet.scale(1)
        verdicts = [finished(each, planted) for each in (one, two)]
    assert bool(sum(verdict.lost for verdict in verdicts)) == bool(planted), verdicts
    assert all(verdict.is_clean for verdict in verdicts) != bool(planted), verdicts
