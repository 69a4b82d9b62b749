"""Every exported form, loaded as the README.md of its download says, answers 100 digits like the trained model."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from control_plane.result_readme import code_of, readme_of
from headrace.errors import HeadraceError
from headrace.v1 import model_pb2, result_pb2
from sandbox.exports import EXPORT_FORMATS
from sandbox.jobs import ExportJob
from sandbox.session import FitJob, WorkerSession
from streams.codecs import Field, Spec
from tests.frameworks.conftest import Bench
from tests.frameworks.data import job, write
from tests.frameworks.models import KERAS, TORCH, Models
from tests.trainer import digits as of_digits

CODE = {"tensorflow": of_digits.KERAS, "pytorch": of_digits.TORCH}
CLOSE = 1e-5


@dataclass(frozen=True)
class Trained:
    """A model that learned digits, its files by format, and what it answers."""

    code: str
    folder: Path
    signature: model_pb2.Signature
    rows: np.ndarray
    """float32 (100, 64)."""
    answers: np.ndarray
    """float32 (100, 10)."""

    def file(self, format: str) -> Path:
        """The exported file."""
        return self.folder / _file(self.framework, format)

    @property
    def framework(self) -> str:
        return "pytorch" if "nn.Module" in self.code else "tensorflow"

    @property
    def api(self) -> model_pb2.Framework:
        """As the API calls it."""
        return model_pb2.FRAMEWORK_PYTORCH if self.framework == "pytorch" else model_pb2.FRAMEWORK_TENSORFLOW


def _file(framework: str, format: str) -> str:
    return EXPORT_FORMATS[framework][format].file


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) float32 in [0, 1], and their classes."""
    found = load_digits()
    return (found.data / 16).astype(np.float32), found.target.astype(np.uint8)


def train(bench: Bench, folder: Path) -> Trained:
    """Trains, loads what was saved as an executor does, and exports every form."""
    framework, worker = bench.models.framework, bench.worker
    images, classes = digits()
    worker.build("", CODE[framework], seed=1, trainable=True)
    list(worker.fit(job(folder, images, classes, batch_size=64, fit_args=f"{bench.models.epochs}=3")))
    signature = worker.describe().signature
    (saved,) = worker.save(folder)
    worker.load("", CODE[framework], saved.path)
    write(folder, calibration=images[:200])
    for name, form in EXPORT_FORMATS[framework].items():
        if not form.is_original:
            samples = folder / "calibration.npy" if form.is_calibrated else None
            worker.export(ExportJob(name, folder / form.file, signature, samples))
    rows = images[-100:]
    (answers,) = worker.predict({"": rows}).values()
    np.save(folder / "rows.npy", rows)
    return Trained(CODE[framework], folder, signature, rows, answers)


@pytest.fixture(scope="module")
def trained(benches: dict[str, Bench], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """By framework; each is trained once."""
    found: dict[str, Trained] = {}

    def get(framework: str) -> Trained:
        if framework not in found:
            found[framework] = train(benches[framework], tmp_path_factory.mktemp(framework))
        return found[framework]

    return get


@pytest.fixture
def keras_model(trained: Callable[[str], Trained]) -> Trained:
    return trained("tensorflow")


@pytest.fixture
def torch_model(trained: Callable[[str], Trained]) -> Trained:
    return trained("pytorch")


def example(trained: Trained, file: str) -> str:
    """What the README.md of the download says about a file."""
    artifacts = [result_pb2.Artifact(name=form.file) for form in EXPORT_FORMATS[trained.framework].values()]
    result = result_pb2.Result(
        model_name="digits", signature=trained.signature, artifacts=artifacts, code=trained.code, framework=trained.api
    )
    (trained.folder / "model.py").write_text(code_of(result))
    section = readme_of(result).partition(f"### {file}\n")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def in_python(trained: Trained, file: str) -> np.ndarray:
    """What a process of its own answers that has the download, does what its README.md says, and knows no Headrace."""
    code = [
        "import numpy as np, sys; sys.path.insert(0, '')",
        "rows = np.load('rows.npy')",
        example(trained, file),
        "np.save('answers.npy', np.asarray(answers))",
    ]
    command = [sys.executable, "-I", "-c", "\n".join(code)]
    ended = subprocess.run(command, cwd=trained.folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return np.asarray(np.load(trained.folder / "answers.npy"))


def here(trained: Trained, file: str) -> np.ndarray:
    """The same in this process, for runtimes that it may import."""
    variables: dict[str, Any] = {"rows": trained.rows}
    with contextlib.chdir(trained.folder):
        exec(example(trained, file), variables)
    answers = variables["answers"]
    return np.asarray(next(iter(answers.values())) if isinstance(answers, dict) else answers[0])


def difference(trained: Trained, answers: np.ndarray) -> float:
    assert answers.shape == trained.answers.shape == (100, 10)
    return float(np.abs(answers - trained.answers).max())


def test_what_was_trained_knows_its_inputs_and_outputs(keras_model: Trained, torch_model: Trained) -> None:
    for each in (keras_model, torch_model):
        (given,), (answered,) = each.signature.inputs, each.signature.outputs
        assert (given.dtype, list(given.shape)) == ("float32", [-1, 64])
        assert (answered.dtype, list(answered.shape)) == ("float32", [-1, 10])


@pytest.mark.parametrize("file", ["model.keras", "model.savedmodel.zip"])
def test_keras_and_saved_model_answer_alike(keras_model: Trained, file: str) -> None:
    assert difference(keras_model, in_python(keras_model, file)) < CLOSE


@pytest.mark.parametrize("file", ["model.safetensors", "model.pt2"])
def test_state_dict_and_exported_program_answer_alike(torch_model: Trained, file: str) -> None:
    assert difference(torch_model, in_python(torch_model, file)) < CLOSE


@pytest.mark.parametrize("framework", ["tensorflow", "pytorch"])
def test_onnx_answers_alike_and_has_the_names_of_predictions(trained: Callable[[str], Trained], framework: str) -> None:
    import onnxruntime

    model = trained(framework)
    session = onnxruntime.InferenceSession(model.file("onnx"), providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, answered.name) == (model.signature.inputs[0].name, model.signature.outputs[0].name)
    assert (given.shape[1:], answered.shape[1:]) == ([64], [10])
    assert difference(model, here(model, "model.onnx")) < CLOSE
    assert session.run(None, {given.name: model.rows[:1]})[0].shape == (1, 10)


def test_tflite_answers_alike(keras_model: Trained) -> None:
    assert difference(keras_model, here(keras_model, "model.tflite")) < CLOSE


def test_tflite_of_eight_bits_answers_nearly_alike_and_is_smaller(keras_model: Trained) -> None:
    answers = here(keras_model, "model.int8.tflite")
    assert np.mean(answers.argmax(axis=1) == keras_model.answers.argmax(axis=1)) >= 0.97
    span = float(np.ptp(keras_model.answers))
    assert 0 < difference(keras_model, answers) < 0.1 * span
    assert np.abs(answers - keras_model.answers).mean() < 0.01 * span
    assert keras_model.file("tflite_int8").stat().st_size < keras_model.file("tflite").stat().st_size


def load_untrained(worker: WorkerSession, models: Models, code: str, folder: Path) -> model_pb2.Signature:
    """A model as its code makes it, loaded as an executor does."""
    worker.build("", code, seed=1)
    (saved,) = worker.save(folder)
    signature = worker.load("", code, saved.path).signature
    if models.framework == "pytorch":
        for given, size in zip(signature.inputs, (2, 3), strict=True):
            given.shape[:] = [-1, size]
    return signature


def test_several_inputs_keep_their_names(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    import onnxruntime

    signature = load_untrained(worker, models, models.several_inputs, tmp_path)
    worker.export(ExportJob("onnx", tmp_path / "model.onnx", signature))
    random = np.random.default_rng(1)
    rows = {"left": random.random((5, 2), np.float32), "right": random.random((5, 3), np.float32)}
    (wanted,) = worker.predict(rows).values()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["left", "right"]
    np.testing.assert_allclose(session.run(None, rows)[0], wanted, atol=CLOSE)


def test_an_unknown_format_is_refused_with_the_known_ones(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    signature = worker.build("", models.classifier).signature
    with pytest.raises(HeadraceError) as caught:
        worker.export(ExportJob("pickle", tmp_path / "model.pickle", signature))
    assert caught.value.reason_name == "INVALID_FIELD"
    assert "onnx" in caught.value.message


def test_a_model_that_no_converter_understands_says_so(torch_worker: WorkerSession, tmp_path: Path) -> None:
    code = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
    def forward(self, x):
        return self.net(x) if float(x.sum()) > 0 else self.net(-x)
    def loss_fn(self): return nn.CrossEntropyLoss()
    def optimizer(self): return torch.optim.Adam(self.parameters())
    def metrics(self): return {}
model = Net()
"""
    signature = torch_worker.build("", code).signature
    with pytest.raises(HeadraceError) as caught:
        torch_worker.export(ExportJob("exported_program", tmp_path / "model.pt2", signature))
    assert caught.value.reason_name == "EXPORT_FAILED"
    assert caught.value.metadata["format"] == "exported_program"
    assert torch_worker.alive


def saved_and_loaded(
    worker: WorkerSession, code: str, what: FitJob, folder: Path, *, keep_integers: bool = False
) -> model_pb2.Signature:
    """A model that was trained and loaded again, as an executor has it, and what the training was fed with."""
    worker.build("", code, seed=1, trainable=True)
    list(worker.fit(what))
    signature = worker.describe().signature
    (saved,) = worker.save(folder)
    worker.load("", code, saved.path, keep_integers=keep_integers)
    return signature


def test_a_model_that_declares_no_inputs_is_exported_as_it_was_fed(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    import onnxruntime

    rows = np.random.default_rng(1).integers(0, 10, (40, 3))
    what = job(tmp_path, rows, rows[:, 0] % 2, keep_integers=True)
    signature = saved_and_loaded(worker, models.embedding, what, tmp_path, keep_integers=True)
    assert (signature.inputs[0].dtype, list(signature.inputs[0].shape)) == ("int64", [-1, 3])
    worker.export(ExportJob("onnx", tmp_path / "model.onnx", signature))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (wanted,) = worker.predict({"": rows}).values()
    (answers,) = session.run(None, {session.get_inputs()[0].name: rows})
    np.testing.assert_allclose(answers, wanted, atol=CLOSE)


def test_several_inputs_are_calibrated_with_the_fields_of_their_names(
    keras_worker: WorkerSession, tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    rows = np.random.default_rng(1).random((60, 5), np.float32)
    # The fields change places: taken by position, they would not even fit.
    fields = (Field("right", Spec(np.dtype("f4"), (3,)), 0, 3), Field("left", Spec(np.dtype("f4"), (2,)), 3, 5))
    what = job(tmp_path, rows, np.argmax(rows[:, :3], axis=1), fields=fields)
    signature = saved_and_loaded(keras_worker, KERAS.several_inputs, what, tmp_path)
    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    samples = write(tmp_path, calibration=rows)["calibration"]
    keras_worker.export(ExportJob("tflite_int8", tmp_path / "model.int8.tflite", signature, samples, fields))
    (wanted,) = keras_worker.predict({"": rows}, fields=fields).values()
    run = Interpreter(str(tmp_path / "model.int8.tflite")).get_signature_runner()
    (answers,) = run(left=rows[:, 3:], right=rows[:, :3]).values()
    np.testing.assert_allclose(answers, wanted, atol=0.05)


def test_without_its_library_onnx_says_what_to_install(tmp_path: Path) -> None:
    code = f"import sys\nsys.modules['onnxscript'] = None\n{TORCH.classifier}"
    with WorkerSession.start("pytorch", folder=tmp_path / "worker") as worker:
        signature = worker.build("", code).signature
        with pytest.raises(HeadraceError) as caught:
            worker.export(ExportJob("onnx", tmp_path / "model.onnx", signature))
        assert caught.value.reason_name == "NOT_INSTALLED"
        assert caught.value.metadata["command"] == "pip install 'headrace[export]'"
        worker.export(ExportJob("exported_program", tmp_path / "model.pt2", signature))
