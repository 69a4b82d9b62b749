"""What only PyTorch has."""

from pathlib import Path

import numpy as np
import pytest

from headrace.errors import HeadraceError
from sandbox.session import FitEpoch, FitJob, WorkerSession
from tests.frameworks.data import job, three_classes
from tests.frameworks.models import TORCH


def fit(worker: WorkerSession, code: str, what: FitJob) -> list[FitEpoch]:
    worker.build("", code, seed=1)
    return [event for event in worker.fit(what) if isinstance(event, FitEpoch)]


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ("", 4),
        ("drop_last=True", 3),
        ("epoch_length=9", 9),
        ("gradient_accumulation_steps=2", 4),
        ("shuffle=False, num_workers=1", 4),
        ("amp_mode='amp'", 4),
    ],
)
def test_the_words_of_ignite_and_the_loader_are_heeded(
    torch_worker: WorkerSession, tmp_path: Path, arguments: str, steps: int
) -> None:
    what = job(tmp_path, *three_classes(37), batch_size=10, fit_args=f"max_epochs=2, {arguments}")
    epochs = fit(torch_worker, TORCH.classifier, what)
    assert [epoch.step for epoch in epochs] == [steps, 2 * steps]
    assert epochs[-1].metrics["training"]["loss"] < epochs[0].metrics["training"]["loss"] * 1.5


def test_a_loader_with_processes_gives_the_same_batches(torch_worker: WorkerSession, tmp_path: Path) -> None:
    samples, labels = three_classes(60)
    answers = []
    for arguments in ("max_epochs=2", "max_epochs=2, num_workers=2"):
        fit(torch_worker, TORCH.classifier, job(tmp_path, samples, labels, fit_args=arguments))
        answers.append(torch_worker.predict({"": samples})["output"])
    np.testing.assert_array_equal(answers[0], answers[1])


def test_dropping_the_only_batch_is_refused(torch_worker: WorkerSession, tmp_path: Path) -> None:
    torch_worker.build("", TORCH.classifier)
    with pytest.raises(HeadraceError) as caught:
        list(torch_worker.fit(job(tmp_path, *three_classes(9), batch_size=10, fit_args="drop_last=True")))
    assert caught.value.reason_name == "INVALID_FIELD"


def test_batch_norm_trains_and_predicts_in_its_modes(torch_worker: WorkerSession, tmp_path: Path) -> None:
    code = TORCH.classifier.replace("nn.ReLU()", "nn.BatchNorm1d(8), nn.Dropout(0.5)")
    samples, labels = three_classes(40)
    fit(torch_worker, code, job(tmp_path, samples, labels, validation=10))
    first, second = (torch_worker.predict({"": samples})["output"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("return nn.CrossEntropyLoss()", "return 'cross entropy'", "loss_fn"),
        ("return torch.optim.Adam(model.parameters(), lr=0.02)", "return None", "optimizer"),
        ('"accuracy": Accuracy(), ', '"accuracy": 0.5, ', "metrics"),
    ],
)
def test_functions_that_return_something_else_are_said(
    torch_worker: WorkerSession, old: str, new: str, named: str
) -> None:
    assert old in TORCH.classifier
    with pytest.raises(HeadraceError) as caught:
        torch_worker.build("", TORCH.classifier.replace(old, new), trainable=True)
    assert caught.value.reason_name == "NO_MODEL"
    assert f"`{named}`" in caught.value.message


def test_missing_functions_are_all_named(torch_worker: WorkerSession) -> None:
    with pytest.raises(HeadraceError) as caught:
        torch_worker.build("", "class Net(nn.Module): pass\n\nmodel = Net()")
    assert (caught.value.reason_name, caught.value.metadata["line"]) == ("NO_MODEL", "3")
    for name in ("loss_fn", "optimizer", "metrics"):
        assert f"`{name}(self)`" in caught.value.message


def test_a_model_in_half_precision_learns_in_its_type(torch_worker: WorkerSession, tmp_path: Path) -> None:
    code = TORCH.classifier + "model.double()\n"
    assert fit(torch_worker, code, job(tmp_path, *three_classes(20)))
    assert torch_worker.predict({"": np.zeros((2, 4), np.float32)})["output"].dtype == np.float32


def test_ignored_labels_are_no_class(torch_worker: WorkerSession, tmp_path: Path) -> None:
    samples, labels = three_classes(20)
    labels[:3] = -100
    assert fit(torch_worker, TORCH.classifier, job(tmp_path, samples, labels))


THREADS = """
{chosen}
print("threads", torch.get_num_threads())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential({layers})

    def forward(self, x):
        if self.training:
            print("threads", torch.get_num_threads())
        return self.net(x)

    def loss_fn(self): return nn.CrossEntropyLoss()
    def optimizer(self): return torch.optim.SGD(self.parameters())
    def metrics(self): return {{}}

model = Net()
"""
FEW = "nn.Linear(4, 64), nn.Linear(64, 3)"
MANY = "nn.Linear(4, 2000), nn.Linear(2000, 1000), nn.Linear(1000, 3)"
# Few parameters that are used at many places.
OFTEN = "nn.Unflatten(1, (1, 1, 4)), nn.Upsample((40, 40)), nn.Conv2d(1, 40, 3), nn.Flatten(), nn.Linear(57760, 3)"


@pytest.mark.parametrize(
    ("layers", "chosen", "is_one"),
    [(FEW, "", True), (MANY, "", False), (OFTEN, "", False), (FEW, "torch.set_num_threads(3)", False)],
    ids=["little work", "many parameters", "many positions", "the code has chosen"],
)
def test_a_training_has_the_threads_that_its_steps_are_worth(
    torch_worker: WorkerSession, tmp_path: Path, layers: str, chosen: str, is_one: bool
) -> None:
    before = len(torch_worker.output)
    fit(torch_worker, THREADS.format(layers=layers, chosen=chosen), job(tmp_path, *three_classes(32)))
    outside, inside = (line for line in torch_worker.output[before:].splitlines() if line.startswith("threads"))
    assert inside == ("threads 1" if is_one else outside)
    if chosen:
        torch_worker.kill()  # The next test begins with another worker.
