"""A training that is broken off and begun again ends as one that was not: over both frameworks, through a worker.

What a kill leaves of a training is what lies in its folder at that moment, so most tests keep every checkpoint of one
training, and go on from what lay there after some of its steps.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frameworks.checkpoints import Checkpoint, Checkpoints, Position
from headrace.errors import HeadraceError
from sandbox.session import FitBegun, FitCheckpoint, FitEpoch, FitJob, WorkerSession
from tests.frameworks.conftest import Bench
from tests.frameworks.data import job, three_classes
from tests.frameworks.models import Models
from tests.frameworks.weights import weights_of
from tests.support import eventually

KERAS = """
model = keras.Sequential([
    keras.Input((4,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3),
    layers.Dense(3, activation="softmax"),
])
model.compile(optimizer=keras.optimizers.OPTIMIZER, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
"""
TORCH = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.net(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        optimizer = torch.optim.OPTIMIZER
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    def metrics(self):
        return {"accuracy": Accuracy(), "top": ignite.metrics.TopKCategoricalAccuracy(2), "mean": Accuracy() * 2}

model = Net()
"""
OPTIMIZERS = {
    "tensorflow": {
        "adam": "Adam(keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.9))",
        "momentum": "SGD(keras.optimizers.schedules.CosineDecay(0.1, 60), momentum=0.9, nesterov=True)",
    },
    "pytorch": {
        "adam": "Adam(self.parameters(), lr=0.02)",
        "momentum": "SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)",
    },
}
# More steps than rows, in epochs that end in the middle of a pass; and one pass an epoch, with a short last batch.
SHAPES = {"repeating": "{epochs}=3, {steps}=11", "passes": "{epochs}=4, shuffle=True"}
SEED = 7


def code(models: Models, optimizer: str = "adam") -> str:
    text = {"tensorflow": KERAS, "pytorch": TORCH}[models.framework]
    return text.replace("OPTIMIZER", OPTIMIZERS[models.framework][optimizer])


def arguments(models: Models, shape: str) -> str:
    return SHAPES[shape].format(epochs=models.epochs, steps=models.steps)


@pytest.fixture(scope="module")
def what(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    rows = job(tmp_path_factory.mktemp("job"), *three_classes(89), validation=20, batch_size=8, seed=SEED)
    return replace(rows, fit_args=arguments(bench.models, "repeating"))


def written(what: FitJob, folder: Path, interval_s: float = 0.0) -> FitJob:
    """The same with checkpoints there, one after every step unless said otherwise."""
    return replace(what, checkpoints=folder, checkpoint_digest="this one", checkpoint_interval_s=interval_s)


def weights(worker: WorkerSession, folder: Path) -> str:
    """Those of the trained model."""
    folder.mkdir(exist_ok=True)
    (saved,) = worker.save(folder)
    return weights_of(saved.path)


class Ended:
    """A training to its end: what it began at, its epochs and its weights."""

    def __init__(self, worker: WorkerSession, code: str, what: FitJob, folder: Path) -> None:
        worker.build("", code, seed=SEED, trainable=True)
        self.events = list(worker.fit(what))
        self.began = next(event for event in self.events if isinstance(event, FitBegun))
        self.epochs = [event for event in self.events if isinstance(event, FitEpoch)]
        self.weights = weights(worker, folder)

    @property
    def came_to(self) -> tuple[list[FitEpoch], str]:
        return self.epochs, self.weights


KEEP_ALL = """
import pathlib
unlink = pathlib.Path.unlink
def unlink_others(path, missing_ok=False):
    if path.suffix != ".checkpoint":
        unlink(path, missing_ok)
pathlib.Path.unlink = unlink_others
pathlib.Path.unlink_all = unlink
"""
KEEP_TWO = "import pathlib; pathlib.Path.unlink = pathlib.Path.unlink_all\n"


@contextmanager
def keeping_all(worker: WorkerSession, models: Models) -> Iterator[None]:
    """Code of the model's author that keeps the worker from removing older checkpoints."""
    worker.build("", KEEP_ALL + models.classifier)
    yield
    worker.build("", KEEP_TWO + models.classifier)


def left_at(step: int, folder: Path, to: Path) -> Path:
    """What lay there when so many checkpoints, one a step, had been written: the last two of them, and epochs."""
    left = to / str(step)
    left.mkdir(parents=True)
    for path in [*sorted(folder.glob("*.checkpoint"))[max(0, step - 2) : step], folder / "epochs.jsonl"]:
        shutil.copy(path, left)
    return left


@pytest.mark.parametrize(("optimizer", "shape"), [("adam", "repeating"), ("momentum", "passes")])
def test_a_training_that_is_broken_off_anywhere_ends_as_one_that_is_not(
    worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path, optimizer: str, shape: str
) -> None:
    what, text = replace(what, fit_args=arguments(models, shape)), code(models, optimizer)
    whole = Ended(worker, text, what, tmp_path / "saved")
    checkpoints = tmp_path / "checkpoints"
    with keeping_all(worker, models):
        kept = Ended(worker, text, written(what, checkpoints), tmp_path / "saved")
    assert kept.came_to == whole.came_to, "to be written down changes nothing"
    # In the first epoch, around the end of one, in a later one, and after the last step.
    for step in (3, 11, 17, whole.epochs[-1].step):
        left = left_at(step, checkpoints, tmp_path / "left")
        resumed = Ended(worker, text, written(what, left), tmp_path / "saved")
        assert resumed.began.epoch * resumed.began.steps + resumed.began.step == step
        assert resumed.came_to == whole.came_to, f"broken off after step {step}"


@pytest.mark.parametrize("fit_args", ["gradient_accumulation_steps=3", "num_workers=1, shuffle=True"])
def test_what_pytorch_gathers_over_steps_is_not_lost(
    torch_worker: WorkerSession, benches: Any, tmp_path: Path, fit_args: str
) -> None:
    models = benches["pytorch"].models
    what = job(tmp_path, *three_classes(60), batch_size=8, seed=SEED, fit_args=f"max_epochs=2, {fit_args}")
    checkpoints = tmp_path / "checkpoints"
    with keeping_all(torch_worker, models):
        whole = Ended(torch_worker, code(models), written(what, checkpoints), tmp_path / "saved")
    for step in (4, 5):
        left = left_at(step, checkpoints, tmp_path / "left")
        resumed = Ended(torch_worker, code(models), written(what, left), tmp_path / "saved")
        assert resumed.began.step == step
        assert resumed.came_to == whole.came_to


# The schedule belongs to the module, which steps it itself.
OWN_SCHEDULE = """
class Scheduled(Net):
    def forward(self, x):
        if self.training and x.shape[0] == 8:
            self.schedule.step()
        return super().forward(x)

    def optimizer(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return optimizer

    def metrics(self):
        here = self

        class Rate(ignite.metrics.Metric):
            def reset(self): pass
            def update(self, output): pass
            def compute(self): return here.schedule.get_last_lr()[0]

        return {"rate": Rate()}

model = Scheduled()
"""


# Made with the first step.
LATE_SCHEDULE = """
class Scheduled(Net):
    def forward(self, x):
        if self.training:
            self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.learner, 0.5)
        return super().forward(x)

    def optimizer(self):
        self.learner = torch.optim.SGD(self.parameters(), lr=0.1)
        return self.learner

model = Scheduled()
"""


def test_a_schedule_that_the_module_keeps_goes_on_over_validations_and_restarts(
    torch_worker: WorkerSession, benches: Any, tmp_path: Path
) -> None:
    what = job(tmp_path, *three_classes(44), validation=4, batch_size=8, seed=SEED, fit_args="max_epochs=3")
    text, checkpoints = code(benches["pytorch"].models) + OWN_SCHEDULE, tmp_path / "checkpoints"
    with keeping_all(torch_worker, benches["pytorch"].models):
        whole = Ended(torch_worker, text, written(what, checkpoints), tmp_path / "saved")
    assert [epoch.metrics["training"]["rate"] for epoch in whole.epochs] == [0.1 / 2**5, 0.1 / 2**10, 0.1 / 2**15]
    for step in (5, 7, 10):
        left = left_at(step, checkpoints, tmp_path / "left")
        resumed = Ended(torch_worker, text, written(what, left), tmp_path / "saved")
        assert resumed.began.epoch * resumed.began.steps + resumed.began.step == step
        assert resumed.came_to == whole.came_to


def test_a_schedule_that_a_restart_would_not_find_costs_the_checkpoints_and_no_weight(
    torch_worker: WorkerSession, benches: Any, tmp_path: Path
) -> None:
    what = job(tmp_path, *three_classes(40), batch_size=8, seed=SEED, fit_args="max_epochs=2")
    Ended(
        torch_worker,
        code(benches["pytorch"].models) + LATE_SCHEDULE,
        written(what, tmp_path / "checkpoints"),
        tmp_path / "saved",
    )
    assert "no checkpoints are written" in torch_worker.output
    assert not list((tmp_path / "checkpoints").glob("*.checkpoint"))


def test_a_killed_worker_is_gone_on_from_by_another(
    bench: Bench, worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path
) -> None:
    whole = Ended(worker, code(models), what, tmp_path / "saved")
    kept = written(what, tmp_path / "checkpoints")
    worker.build("", code(models), seed=SEED, trainable=True)
    for event in worker.fit(kept):
        if isinstance(event, FitCheckpoint) and (event.epoch, event.step) == (1, 5):
            os.kill(worker.pid, signal.SIGKILL)
            break
    eventually(lambda: not worker.alive)
    assert bench.worker is not worker
    resumed = Ended(bench.worker, code(models), kept, tmp_path / "saved")
    assert (resumed.began.epoch, resumed.began.step) >= (1, 5)
    assert resumed.came_to == whole.came_to


def test_a_training_that_is_asked_to_stop_is_written_down_first(
    worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path
) -> None:
    seldom = written(replace(what, fit_args=what.fit_args.replace("=3", "=3000")), tmp_path / "checkpoints", 1e6)
    worker.build("", code(models), seed=SEED, trainable=True)
    stop = threading.Event()
    events = worker.fit(seldom, stop=stop)
    next(event for event in events if isinstance(event, FitEpoch))
    stop.set()
    with pytest.raises(HeadraceError) as caught:
        list(events)
    assert caught.value.reason_name == "CANCELLED"
    assert list((tmp_path / "checkpoints").glob("*.checkpoint"))


def edit(folder: Path, worker: WorkerSession, change: Callable[[Checkpoint], Checkpoint]) -> None:
    """Plants a bug: what a worker with it would have written."""
    own = Checkpoints(folder, f"this one {worker.framework_version}", 0)
    found = own.load()
    assert found is not None
    changed = change(found)
    for path in folder.glob("*.checkpoint"):
        path.unlink()
    own.write(changed.position, changed.seconds, changed.state)


def without_optimizer(found: Checkpoint) -> Checkpoint:
    if isinstance(found.state["optimizer"], list):
        return replace(found, state={**found.state, "optimizer": [0 * each for each in found.state["optimizer"]]})
    kept = dict(found.state["optimizer"]["optimizer"]["items"]) | {"state": {"items": []}}
    emptied = {**found.state["optimizer"], "optimizer": {"items": list(kept.items())}}
    return replace(found, state={**found.state, "optimizer": emptied})


def without_place_in_the_order(found: Checkpoint) -> Checkpoint:
    return replace(found, position=Position(found.position.epoch, 1))


def without_random_state(found: Checkpoint) -> Checkpoint:
    if "random" in found.state:
        torch = found.state["random"]["torch"]
        words = torch["bytes"].copy()
        words[24:2520] = words[24:2520][::-1]  # The words of the Mersenne twister.
        seed = np.array(8 * [1] + 8 * [0], np.uint8)  # Behind it is an offset, which has to be a multiple of four.
        cuda = [{**each, "bytes": each["bytes"] ^ seed} for each in found.state["random"]["cuda"]]
        random = {**found.state["random"], "torch": {**torch, "bytes": words}, "cuda": cuda}
        return replace(found, state={**found.state, "random": random})
    model = [each + 1 if each.dtype.kind in "ui" else each for each in found.state["model"]]
    return replace(found, state={**found.state, "model": model})


def without_running_metrics(found: Checkpoint) -> Checkpoint:
    name = "epoch" if "epoch" in found.state else "metrics"
    return replace(found, state={**found.state, name: None})


@pytest.fixture(scope="module")
def kept(bench: Bench, what: FitJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The checkpoints of every step of one training; and how it ended."""
    worker, folder = bench.worker, tmp_path_factory.mktemp("kept")
    with keeping_all(worker, bench.models):
        return folder, Ended(worker, code(bench.models), written(what, folder), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def left(kept: tuple[Path, Ended], tmp_path: Path) -> tuple[Path, Ended]:
    """What a kill in the second epoch leaves; and how the training ends without one."""
    checkpoints, ended = kept
    return left_at(16, checkpoints, tmp_path / "left"), ended


@pytest.mark.parametrize(
    "bug", [without_optimizer, without_place_in_the_order, without_random_state, without_running_metrics]
)
def test_these_tests_would_notice(
    worker: WorkerSession,
    models: Models,
    what: FitJob,
    left: tuple[Path, Ended],
    tmp_path: Path,
    bug: Callable[[Checkpoint], Checkpoint],
) -> None:
    folder, whole = left
    edit(folder, worker, bug)
    resumed = Ended(worker, code(models), written(what, folder), tmp_path / "saved")
    assert resumed.began.epoch == 1
    assert resumed.came_to != whole.came_to


def test_what_is_planted_is_the_bug_alone(
    worker: WorkerSession, models: Models, what: FitJob, left: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder, whole = left
    edit(folder, worker, lambda found: found)
    resumed = Ended(worker, code(models), written(what, folder), tmp_path / "saved")
    assert resumed.began.epoch == 1
    assert resumed.came_to == whole.came_to


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, cut])
def test_the_checkpoint_before_a_damaged_one_is_taken(
    worker: WorkerSession,
    models: Models,
    what: FitJob,
    left: tuple[Path, Ended],
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    folder, whole = left
    paths = sorted(folder.glob("*.checkpoint"))
    assert len(paths) >= 1
    damage(paths[-1])
    resumed = Ended(worker, code(models), written(what, folder), tmp_path / "saved")
    assert "CHECKPOINT_CORRUPT" in worker.output
    assert resumed.came_to == whole.came_to


def test_without_a_whole_checkpoint_a_training_begins_at_its_start(
    worker: WorkerSession, models: Models, what: FitJob, left: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder, whole = left
    for path in folder.glob("*.checkpoint"):
        flip(path)
    resumed = Ended(worker, code(models), written(what, folder), tmp_path / "saved")
    assert (resumed.began.epoch, resumed.began.step) == (0, 0)
    assert resumed.came_to == whole.came_to


def test_checkpoints_of_another_training_are_not_taken(
    worker: WorkerSession, models: Models, what: FitJob, left: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder, whole = left
    other = replace(written(what, folder), checkpoint_digest="another")
    resumed = Ended(worker, code(models), other, tmp_path / "saved")
    assert (resumed.began.epoch, resumed.began.step) == (0, 0)
    assert resumed.came_to == whole.came_to


def test_short_epochs_are_not_all_written_down(
    worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path
) -> None:
    many = replace(what, fit_args=f"{models.epochs}=30, {models.steps}=2")
    ended = Ended(worker, code(models), written(many, tmp_path / "checkpoints", 60), tmp_path / "saved")
    took_s = 1 + len([event for event in ended.events if isinstance(event, FitCheckpoint)])
    assert took_s < 10, "a second lies between the checkpoints of epochs"
    assert len(list((tmp_path / "checkpoints").glob("*.checkpoint"))) <= 2


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint_that_is(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    samples, labels = three_classes(40)
    samples[-1] = np.nan
    what = job(tmp_path, samples, labels, batch_size=4, fit_args=f"{models.epochs}=2, shuffle=False")
    what = replace(what, training_rows=None)
    # The relu of TensorFlow makes a number of what is none.
    worker.build("", code(models).replace("relu", "tanh"), seed=SEED, trainable=True)
    with pytest.raises(HeadraceError) as caught:
        list(worker.fit(written(what, tmp_path / "checkpoints")))
    assert caught.value.reason_name == "NAN_LOSS"
    assert (
        max(path.name for path in (tmp_path / "checkpoints").glob("*.checkpoint")) == "0000000000-0000000009.checkpoint"
    )


# Code of the model's author in place of a disk that has room for so many checkpoints.
FULL = """
import errno, os, pathlib
write = os.write
def write_if_there_is_room(file, data):
    path = pathlib.Path(os.readlink(f"/proc/self/fd/{file}"))
    if path.suffix == ".part" and len(list(path.parent.glob("*.checkpoint"))) >= ROOM:
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(file, data)
os.write, os.write_if_full = write_if_there_is_room, write
"""
EMPTY = "import os; os.write = os.write_if_full\n"


@contextmanager
def room_for(checkpoints: int, worker: WorkerSession, models: Models) -> Iterator[None]:
    worker.build("", FULL.replace("ROOM", str(checkpoints)) + models.classifier)
    yield
    worker.build("", EMPTY + models.classifier)


def test_a_full_disk_costs_an_older_checkpoint_first(
    worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path
) -> None:
    whole = Ended(worker, code(models), what, tmp_path / "saved")
    with room_for(2, worker, models):
        ended = Ended(worker, code(models), written(what, tmp_path / "checkpoints"), tmp_path / "saved")
    assert ended.came_to == whole.came_to
    assert len(list((tmp_path / "checkpoints").glob("*.checkpoint"))) == 2


def test_a_disk_that_stays_full_ends_the_training_and_leaves_its_checkpoint(
    worker: WorkerSession, models: Models, what: FitJob, tmp_path: Path
) -> None:
    whole = Ended(worker, code(models), what, tmp_path / "saved")
    kept = written(what, tmp_path / "checkpoints")
    with room_for(1, worker, models):
        worker.build("", code(models), seed=SEED, trainable=True)
        with pytest.raises(HeadraceError) as caught:
            list(worker.fit(kept))
    assert caught.value.reason_name == "DISK_FULL"
    assert int(caught.value.metadata["size_bytes"]) > 1000
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0000000000-0000000001.checkpoint"]
    resumed = Ended(worker, code(models), kept, tmp_path / "saved")
    assert (resumed.began.epoch, resumed.began.step) == (0, 1)
    assert resumed.came_to == whole.came_to
