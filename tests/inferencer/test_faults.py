"""Whatever is killed, stopped, malformed or swapped: every record has one answer or one dead letter, in order.

The short forms run with all tests, the long ones with `make chaos`: each takes some four minutes, and another
HEADRACE_CHAOS_SEED is another part. A part that was asked for by its seed is kept in benchmarks/RESULTS.md.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.faults import PARTS, Sums
from cli.broker import Broker
from streams.kafka import KafkaSettings
from tests.inferencer.faults.load import Kind, Load
from tests.inferencer.faults.oracle import Verdict
from tests.inferencer.faults.storm import Storm
from tests.inferencer.faults.trial import Setting, Trial, trial

PARTITIONS = 4
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "0"))
IS_KEPT = "HEADRACE_CHAOS_SEED" in os.environ
# A process that is stopped for longer has lost its partitions.
IMPATIENT = {
    "HEADRACE_SESSION_TIMEOUT_MS": "3000",
    "HEADRACE_BATCH_TIMEOUT_S": "2",
    "HEADRACE_PART_TIMEOUT_S": "0.5",
    "HEADRACE_STALL_S": "50",
}


@dataclass(frozen=True)
class Weather:
    """What comes down on the replicas."""

    records: int
    faults: dict[str, int] = field(default_factory=dict)
    bad: dict[Kind, int] = field(default_factory=dict)
    """Kind to how many of all records."""
    within_s: float = 60.0
    """For the faults; what is left of them then is left out."""
    finish_s: float = 60.0
    fails: float = 0.0
    replicas: int = 3
    pause_s: float = 0.3
    environment: dict[str, str] = field(default_factory=lambda: dict(IMPATIENT))


def ride_out(
    kafka: KafkaSettings, folder: Path, weather: Weather, broker: Broker | None = None
) -> tuple[Sums, Verdict]:
    """Runs it to its end; what happened, and what was wrong."""
    bad = {kind: count // PARTITIONS for kind, count in weather.bad.items()}
    setting = Setting(
        Load(SEED, PARTITIONS, weather.records // PARTITIONS, bad),
        seed=SEED,
        replicas=weather.replicas,
        fails=weather.fails,
        environment=weather.environment,
    )
    with trial(kafka, folder, setting) as running:
        storm = Storm(running, SEED, broker, weather.pause_s)
        with running.sending(lambda: storm.progress):
            running.await_count(1)
            storm.run(weather.faults, within_s=weather.within_s)
            verdict = running.finish(weather.finish_s)
        return summed(running, storm, verdict), verdict


def summed(running: Trial, storm: Storm, verdict: Verdict) -> Sums:
    """The row of the table."""
    load, sums = running.load, storm.sums
    sums.records = load.total
    sums.replica_kills = running.fleet.endings.killed
    sums.malformed = load.number_of(Kind.MALFORMED)
    sums.poison = load.number_of(Kind.CRASH) + load.number_of(Kind.HANG)
    sums.lost, sums.doubled, sums.reordered = verdict.lost, verdict.doubled, verdict.reordered
    sums.other = verdict.total - verdict.lost - verdict.doubled - verdict.reordered
    return sums


def expect_clean(name: str, sums: Sums, verdict: Verdict) -> None:
    """Keeps what a part of a long run found, then looks at it."""
    print(sums)
    if IS_KEPT:
        PARTS.keep(name, SEED, sums)
    assert verdict.is_clean, verdict


def test_kills_zombies_rebalances_and_swaps_lose_double_and_reorder_nothing(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    faults = {"kill replica": 8, "kill worker": 10, "freeze": 1, "scale": 3, "swap": 2}
    weather = Weather(12_000, faults, {Kind.MALFORMED: 120}, fails=0.3, within_s=15, pause_s=0.2)
    sums, verdict = ride_out(kafka, tmp_path, weather)
    assert verdict.is_clean, (sums, verdict)


def test_exactly_the_bad_records_become_dead_letters(kafka: KafkaSettings, tmp_path: Path) -> None:
    bad = {Kind.MALFORMED: 400, Kind.CRASH: 4, Kind.HANG: 4, Kind.RAISE: 4, Kind.NAN: 40}
    weather = Weather(4_000, bad=bad, replicas=2)
    sums, verdict = ride_out(kafka, tmp_path, weather)
    assert verdict.is_clean, (sums, verdict)
    assert sums.poison == 8


@pytest.mark.chaos
def test_a_long_run_with_kills_of_replicas_and_workers(kafka: KafkaSettings, tmp_path: Path) -> None:
    faults = {"kill replica": 130, "kill worker": 260, "scale": 10}
    weather = Weather(200_000, faults, {Kind.MALFORMED: 2000}, fails=0.5, within_s=165, pause_s=0.3)
    expect_clean("kills of replicas and workers", *ride_out(kafka, tmp_path, weather))


@pytest.mark.chaos
def test_a_long_run_with_broker_kills_zombies_rebalances_and_swaps_on_top(
    own_broker: Callable[[], Broker], tmp_path: Path
) -> None:
    broker = own_broker()
    faults = {
        "kill broker": 15, "freeze": 10, "sleep": 6, "scale": 32, "swap": 8, "kill replica": 30, "kill worker": 30,
    }  # fmt: skip
    weather = Weather(100_000, faults, {Kind.MALFORMED: 1000}, fails=0.2, within_s=165, pause_s=0.4)
    kafka = KafkaSettings(broker.bootstrap_servers)
    expect_clean("the same with broker kills", *ride_out(kafka, tmp_path, weather, broker))


@pytest.mark.chaos
def test_a_long_run_with_malformed_records_and_such_that_crash_or_hang_the_model(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    bad = {Kind.MALFORMED: 20_000, Kind.CRASH: 160, Kind.HANG: 40, Kind.RAISE: 40, Kind.NAN: 40}
    weather = Weather(200_000, bad=bad, finish_s=400)
    expect_clean("malformed records, and such that crash or hang the model", *ride_out(kafka, tmp_path, weather))
