"""Trainings that are killed come to what undisturbed ones come to, under the real control plane that starts them again.

The long run is in parts, by seed, each of some deployments of both frameworks, with about ten kills each:
HEADRACE_CHAOS_SEED=3 HEADRACE_CHAOS_RUNS=10 make chaos. A part whose seed was given is kept in benchmarks/RESULTS.md.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.kills import PARTS, Sums
from headrace.process import EXIT_FENCED
from headrace.v1 import stream_pb2
from streams.kafka import KafkaSettings, ensure_topics
from tests.support import eventually
from tests.trainer import digits
from tests.trainer.control_plane import LONG_S, ROOT, planted
from tests.trainer.kills import FRAMEWORKS, TORCH, CameTo, Kill, Plan, Trainings, trainings, undisturbed
from tests.trainer.warm import forking

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "0"))
IS_KEPT = "HEADRACE_CHAOS_SEED" in os.environ
LONG_RUNS = int(os.environ.get("HEADRACE_CHAOS_RUNS", "5"))
AT_ONCE = 3


@pytest.fixture(scope="module")
def stream(kafka: KafkaSettings) -> stream_pb2.Stream:
    ensure_topics(kafka, {"test-kills": 2})
    return digits.stream_of("test-kills", digits.send(kafka, "test-kills", 2, digits.records()))


@pytest.fixture(scope="module")
def whole(
    kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, CameTo]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "home", kafka.bootstrap_servers, stream)


def ride_out(
    home: Path,
    kafka: KafkaSettings,
    stream: stream_pb2.Stream,
    plan: Plan,
    whole: Mapping[int, CameTo],
    environ: Mapping[str, str] | None = None,
) -> Sums:
    """What was done to a deployment, and what is wrong with what it came to."""
    servers = kafka.bootstrap_servers
    with trainings(home, servers, stream, failpoints=plan.failpoints, environ=environ) as those:
        killed = those.kill(plan)
        judged = sum((came_to.judged_by(whole[which]) for which, came_to in those.came_to().items()), Sums())
        eventually(lambda: not list(home.glob("work/*/checkpoints")))  # They take no room any more.
    done = Sums(
        trainer_kills=killed.trainers,
        worker_kills=killed.workers,
        failpoint_kills=killed.at_failpoints,
        other=killed.unexplained,
    )
    return judged + done


def test_twenty_kills_change_nothing(
    kafka: KafkaSettings, stream: stream_pb2.Stream, whole: dict[int, CameTo], tmp_path: Path
) -> None:
    plan = Plan.drawn(1, torch=10, keras=3, early=2, late=5)
    sums = ride_out(tmp_path / "home", kafka, stream, plan, whole)
    assert sums.wrong == 0, sums
    assert sums.kills >= 20


@pytest.mark.chaos
def test_kills_at_random_moments_change_nothing(
    kafka: KafkaSettings, stream: stream_pb2.Stream, whole: dict[int, CameTo], tmp_path: Path
) -> None:
    def ride(run: int) -> Sums:
        plan = Plan.drawn(1000 * SEED + run, torch=4, keras=4, early=1, late=2)
        return ride_out(tmp_path / f"home-{run}", kafka, stream, plan, whole, environ)

    sums = Sums()
    with forking(tmp_path / "warm") as environ, ThreadPoolExecutor(AT_ONCE) as pool:
        for done in pool.map(ride, range(LONG_RUNS)):
            sums += done
            print(sums)
            if IS_KEPT:  # So far: whoever has no more time may break it off.
                PARTS.keep("kills of trainers and workers", SEED, sums)
    assert sums.wrong == 0, sums
    assert sums.kills >= 8 * LONG_RUNS  # Ten each, but some trainings are over before their last one.


# What a worker with such a bug would do, as code of the model's author.
WITHOUT_OPTIMIZER = """
import sys
if "torch" in sys.modules:
    import frameworks.torch_state
    frameworks.torch_state.put_optimizer = lambda optimizer, state: None
else:
    import frameworks.keras_state, frameworks.tensorflow
    put_weights = lambda model, state: frameworks.keras_state._assign(model.variables, state["model"])
    frameworks.tensorflow.put_variables = put_weights
"""
WITHOUT_PLACE_IN_THE_ORDER = """
from frameworks.rows import EpochOrder
batches = EpochOrder.batches
EpochOrder.batches = lambda order, epoch, first_step=0: batches(order, epoch, 0)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("bug", [WITHOUT_OPTIMIZER, WITHOUT_PLACE_IN_THE_ORDER], ids=["optimizer", "order"])
def test_what_a_checkpoint_lacks_is_caught(
    kafka: KafkaSettings, stream: stream_pb2.Stream, whole: dict[int, CameTo], tmp_path: Path, bug: str
) -> None:
    code = {framework: bug + text for framework, text in digits.RANDOM.items()}
    kill = Kill(steps=40, seconds=0, of_worker=False)
    with trainings(tmp_path / "home", kafka.bootstrap_servers, stream, code=code) as those:
        those.kill(Plan({framework: [kill] for framework in FRAMEWORKS}))
        came_to = those.came_to()
    assert all(came_to[framework] != whole[framework] for framework in FRAMEWORKS)


WITHOUT_FENCE = """
import sys
if sys.orig_argv[-1] == "control_plane":
    from control_plane.store import reports, results
    reports._is_fenced = lambda row, attempt: False
    results.check_attempt = lambda row, attempt: None
"""


def wake_an_older_attempt(those: Trainings, kafka: KafkaSettings, folder: Path) -> int:
    """While the second one trains, as a node does that was lost for a while; the exit code of the first."""
    result_id = those.ids[TORCH]
    those.kill(Plan({TORCH: [Kill(steps=20, seconds=0, of_worker=False)]}), wait=False)
    eventually(lambda: those.trainer(result_id, after_attempt=1), timeout_s=LONG_S)
    environ = {
        "HEADRACE_ADDRESS": those.address,
        "HEADRACE_KAFKA": kafka.bootstrap_servers,
        "HEADRACE_RESULT_ID": str(result_id),
        "HEADRACE_ATTEMPT": "1",
        "HEADRACE_WORK_DIR": str(folder),
    }
    command = [sys.executable, "-P", "-m", "trainer"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, timeout=LONG_S, check=False).returncode


@pytest.mark.chaos
def test_an_older_attempt_that_wakes_up_changes_nothing(
    kafka: KafkaSettings, stream: stream_pb2.Stream, whole: dict[int, CameTo], tmp_path: Path
) -> None:
    with trainings(tmp_path / "home", kafka.bootstrap_servers, stream) as those:
        assert wake_an_older_attempt(those, kafka, tmp_path / "zombie") == EXIT_FENCED
        assert those.came_to() == whole


@pytest.mark.chaos
def test_a_collector_without_a_fence_is_caught(kafka: KafkaSettings, stream: stream_pb2.Stream, tmp_path: Path) -> None:
    bug = planted(WITHOUT_FENCE, tmp_path / "bug")
    with trainings(tmp_path / "home", kafka.bootstrap_servers, stream, environ=bug) as those:
        assert wake_an_older_attempt(those, kafka, tmp_path / "zombie") != EXIT_FENCED
