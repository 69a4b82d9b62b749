"""Trainings of both frameworks that are killed again and again, and what must not come of it.

The oracle is an undisturbed training of the same models on the same records: a killed one ends, too, with the same
weights to the last bit, and with every epoch once, with the same numbers.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from benchmarks.kills import Sums
from headrace.client import connect
from headrace.v1 import deployment_pb2, model_pb2, result_pb2, stream_pb2
from headrace.v1.deployment_manager_pb2 import GetDeploymentRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.result_collector_pb2 import DownloadArtifactRequest, GetResultRequest, WatchResultsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from tests.frameworks.weights import weights_of
from tests.support import eventually
from tests.trainer import digits
from tests.trainer.control_plane import (
    LONG_S,
    ControlPlaneProcess,
    announce,
    create_training,
    ended,
    running,
)

TORCH, KERAS = model_pb2.FRAMEWORK_PYTORCH, model_pb2.FRAMEWORK_TENSORFLOW
FRAMEWORKS = (TORCH, KERAS)
EPOCHS = 40
LOOK_S = 0.2
STEPS = -(-digits.split_sizes()[0] // 16)
SETTINGS = deployment_pb2.TrainingSettings(
    batch_size=16,
    seed=11,
    tensorflow=deployment_pb2.FrameworkArguments(fit_args=f"epochs={EPOCHS}, verbose=0"),
    pytorch=deployment_pb2.FrameworkArguments(fit_args=f"max_epochs={EPOCHS}"),
)
SETTINGS.checkpoint_interval.nanos = 1  # after every step
# Without progress an attempt may fail four times in a row: at most two of these in one run.
EARLY_FAILPOINTS = ("after_hello", "before_read", "after_spool", "before_fit")
LATE_FAILPOINTS = ("after_checkpoint", "after_epoch", "before_upload", "after_upload", "before_finish")


@dataclass(frozen=True)
class Kill:
    """A SIGKILL for an attempt, some steps after those that it began with; with none, so long after its start."""

    steps: int
    seconds: float
    of_worker: bool


@dataclass(frozen=True)
class Plan:
    """Kills from outside by framework, each of another attempt, and failpoints, each of which kills a trainer once."""

    kills: Mapping[model_pb2.Framework, Sequence[Kill]]
    failpoints: Sequence[str] = ()

    @classmethod
    def drawn(cls, seed: int, torch: int, keras: int, early: int, late: int) -> Plan:
        """So many kills of each, and so many failpoints of each kind."""
        chance = random.Random(seed)
        kills = {TORCH: list(_kills(chance, torch)), KERAS: list(_kills(chance, keras))}
        return cls(kills, [*chance.sample(EARLY_FAILPOINTS, early), *chance.sample(LATE_FAILPOINTS, late)])


def _kills(chance: random.Random, count: int) -> Iterator[Kill]:
    """Never two in a row before the first step: see above. Two thirds of the steps are left, for late kills."""
    most = EPOCHS * STEPS // (3 * max(1, count))
    early = True
    for _ in range(count):
        early = not early and chance.random() < 0.3
        steps = 0 if early else chance.randint(1, most)
        yield Kill(steps, chance.uniform(0, 2.5 if early else 0.01), chance.random() < 0.5)


@dataclass(frozen=True)
class CameTo:
    """What a training came to."""

    state: int
    epochs: Sequence[tuple[int, int, result_pb2.SplitMetrics]]
    """As a watcher is told of them, in this order: number, step, metrics."""
    weights: str

    def judged_by(self, whole: CameTo) -> Sums:
        """What is wrong with it, if that one is right."""
        numbers, right = [number for number, *_ in self.epochs], [number for number, *_ in whole.epochs]
        same = sum(one in whole.epochs for one in self.epochs)
        return Sums(
            trainings=1,
            not_finished=self.state != whole.state,
            other_weights=self.weights != whole.weights,
            epochs_lost=len({*right} - {*numbers}),
            epochs_doubled=len(numbers) - len({*numbers}),
            other=len(self.epochs) - same + (numbers != sorted(numbers)),
        )


@dataclass
class Killed:
    """What was done to the trainings of one deployment."""

    trainers: int = 0
    workers: int = 0
    at_failpoints: int = 0
    attempts: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Processes that were killed."""
        return self.trainers + self.workers + self.at_failpoints

    @property
    def unexplained(self) -> int:
        """Attempts that ended though nobody killed them."""
        return max(0, sum(self.attempts) - len(self.attempts) - self.total)


class Trainings:
    """A deployment of both models at a control plane."""

    def __init__(self, plane: ControlPlaneProcess, channel: grpc.Channel, home: Path, deployment_id: int) -> None:
        self._plane, self._channel, self._home = plane, channel, home
        request = GetDeploymentRequest(id=deployment_id)
        ids = DeploymentManagerStub(channel).GetDeployment(request).result_ids
        self.ids = dict(zip(FRAMEWORKS, ids, strict=True))

    @property
    def address(self) -> str:
        """The control plane's."""
        return self._plane.address

    def came_to(self) -> dict[int, CameTo]:
        """By framework, once they have ended."""
        return {framework: self._came_to(result_id) for framework, result_id in self.ids.items()}

    def kill(self, plan: Plan, *, wait: bool = True) -> Killed:
        """Does to them what was planned while they go on, and then waits for their ends."""
        killed = Killed()
        with ThreadPoolExecutor(len(plan.kills), thread_name_prefix="kill") as pool:
            for hits in pool.map(lambda each: self._kill(self.ids[each[0]], each[1]), plan.kills.items()):
                killed.workers += sum(kill.of_worker for kill in hits)
                killed.trainers += sum(not kill.of_worker for kill in hits)
        for result_id in self.ids.values() if wait else ():
            killed.attempts.append(ended(self._channel, result_id).attempt)
        killed.at_failpoints = len(list(self._home.glob("*.exit.1")))
        return killed

    def trainer(self, result_id: int, after_attempt: int = 0) -> psutil.Process | None:
        """The process of its present attempt, if that is a later one."""
        for child in _descendants(self._plane.process.pid):
            try:
                environ = child.environ() if child.cmdline()[-2:] == ["-m", "trainer"] else {}
            except psutil.Error:
                continue
            if environ.get("HEADRACE_RESULT_ID") == str(result_id) and int(environ["HEADRACE_ATTEMPT"]) > after_attempt:
                return child
        return None

    def _kill(self, result_id: int, kills: Sequence[Kill]) -> Sequence[Kill]:
        """Those that met a living process."""
        attempt, hits = 0, 0
        while hits < len(kills):
            trainer = eventually(lambda: self._next(result_id, attempt), timeout_s=LONG_S, every_s=LOOK_S)  # noqa: B023
            if not isinstance(trainer, psutil.Process):
                break
            try:
                attempt = int(trainer.environ()["HEADRACE_ATTEMPT"])
                _strike(trainer, kills[hits])
                hits += 1
            except psutil.Error:
                continue  # It ended by itself, or a failpoint was quicker.
        return kills[:hits]

    def _next(self, result_id: int, attempt: int) -> psutil.Process | str | None:
        """The next attempt's process; a text when there will be none."""
        state = ResultCollectorStub(self._channel).GetResult(GetResultRequest(id=result_id)).state
        if state in (deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED):
            return "ended"
        return self.trainer(result_id, attempt)

    def _came_to(self, result_id: int) -> CameTo:
        result = ended(self._channel, result_id)
        collector = ResultCollectorStub(self._channel)
        told = [event.epoch for event in collector.WatchResults(WatchResultsRequest(result_id=result_id))
                if event.HasField("epoch")]  # fmt: skip
        weights = "".join(_weights(collector, result_id, artifact.name) for artifact in result.artifacts)
        return CameTo(result.state, [(one.number, one.step, one.metrics) for one in told], weights)


def _weights(collector: ResultCollectorStub, result_id: int, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        chunks = collector.DownloadArtifact(DownloadArtifactRequest(result_id=result_id, name=name))
        path.write_bytes(b"".join(chunk.data for chunk in chunks))
        return weights_of(path)


def _strike(trainer: psutil.Process, kill: Kill) -> None:
    """Raises psutil.Error when there was nobody to be killed any more."""
    if kill.steps:
        checkpoints = Path(trainer.environ()["HEADRACE_WORK_DIR"]) / "checkpoints"
        goal = _steps_done(checkpoints) + kill.steps
        eventually(
            lambda: _steps_done(checkpoints) >= goal or not trainer.is_running(), timeout_s=LONG_S, every_s=0.005
        )
    time.sleep(kill.seconds)
    victim = eventually(lambda: _victim(trainer, kill), timeout_s=LONG_S)
    assert victim is not None
    victim.kill()


def _victim(trainer: psutil.Process, kill: Kill) -> psutil.Process | None:
    """The worker as soon as there is one; a trainer that is gone raises NoSuchProcess when it is killed."""
    return next(_workers(trainer), None) if kill.of_worker and trainer.is_running() else trainer


def _descendants(pid: int) -> Iterator[psutil.Process]:
    """As psutil finds them, but it reads all of /proc for that, and this is asked all the time."""
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            with suppress(psutil.Error):
                yield psutil.Process(child)
            yield from _descendants(child)


def _workers(trainer: psutil.Process) -> Iterator[psutil.Process]:
    """Whatever lives in the folder that the trainer gave its worker."""
    folder = str(Path(trainer.environ()["HEADRACE_WORK_DIR"]) / "worker")
    return (process for process in psutil.process_iter() if _cwd(process) == folder)


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def _steps_done(checkpoints: Path) -> int:
    """Where the newest checkpoint is."""
    newest = max((path.stem for path in checkpoints.glob("*.checkpoint")), default="0-0")
    epoch, step = newest.split("-")
    return int(epoch) * STEPS + int(step)


@contextmanager
def trainings(
    home: Path,
    kafka: str,
    stream: stream_pb2.Stream,
    *,
    code: Mapping[model_pb2.Framework, str] = digits.RANDOM,
    failpoints: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Trainings]:
    """A deployment that begins to train, at a control plane of its own."""
    home.mkdir(parents=True)
    fail = ",".join(f"{name}:exit" for name in failpoints)
    with running(home, kafka, fail, **(environ or {})) as plane, connect(plane.address) as channel:
        deployment_id = create_training(channel, *FRAMEWORKS, code=code, settings=SETTINGS)
        announce(channel, deployment_id, stream)
        yield Trainings(plane, channel, home, deployment_id)


def undisturbed(home: Path, kafka: str, stream: stream_pb2.Stream) -> dict[int, CameTo]:
    """What nobody kills."""
    with trainings(home, kafka, stream) as those:
        return those.came_to()
