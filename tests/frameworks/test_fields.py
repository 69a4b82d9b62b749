"""Records of several fields: one row for a model with one input, inputs by name for one with several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import HeadraceError
from sandbox.session import FitEpoch, FitJob, WorkerSession
from tests.frameworks.data import write
from tests.frameworks.models import TORCH, Models, keras_model, torch_model


@dataclass(frozen=True)
class Spec:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Field:
    name: str
    spec: Spec
    start: int
    stop: int


def fields(**specs: tuple[str, tuple[int, ...]]) -> tuple[Field, ...]:
    """One after the other, as codecs lay them out."""
    made: list[Field] = []
    for name, (dtype, shape) in specs.items():
        start = made[-1].stop if made else 0
        made.append(Field(name, Spec(np.dtype(dtype), shape), start, start + int(np.prod(shape))))
    return tuple(made)


FIELDS = fields(other=("f4", ()), right=("f4", (3,)), left=("f4", (2,)))
# An image of numbers and a number, and what a model sees of them.
MIXED = fields(age=("i4", ()), image=("f4", (2, 2)))
KERAS_MIXED = """
image, age = keras.Input((2, 2), name="image"), keras.Input((1,), name="age")
score = layers.Dense(3, activation="softmax")(layers.Concatenate()([layers.Flatten()(image), age]))
model = keras.Model({"image": image, "age": age}, score)
model.compile("adam", "sparse_categorical_crossentropy")
"""
TORCH_MIXED = torch_model(
    "self.net = nn.Linear(5, 3)",
    """image, age, *, scale=1.0):
        assert image.shape[1:] == (2, 2) and age.shape[1:] == ()
        return self.net(torch.cat([image.flatten(1), age[:, None] * scale], 1))""",
)


def a_matrix(rows: int = 40, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).random((rows, width), np.float32)


def a_job(folder: Path, matrix: np.ndarray, of: tuple[Field, ...], **settings: Any) -> FitJob:
    paths = write(folder, samples=matrix, labels=np.arange(len(matrix)) % 3, validation=np.arange(10))
    return FitJob(paths["samples"], paths["labels"], validation_rows=paths["validation"], fields=of, **settings)


def fit(worker: WorkerSession, code: str, what: FitJob) -> list[FitEpoch]:
    worker.build("", code, seed=1)
    return [event for event in worker.fit(what) if isinstance(event, FitEpoch)]


def failure(worker: WorkerSession, code: str, what: FitJob) -> HeadraceError:
    worker.build("", code, seed=1)
    with pytest.raises(HeadraceError) as caught:
        list(worker.fit(what))
    return caught.value


@pytest.mark.parametrize("in_memory_bytes", [None, 0])
def test_fields_feed_several_inputs_as_files_by_name_do(
    worker: WorkerSession, models: Models, tmp_path: Path, in_memory_bytes: int | None
) -> None:
    matrix = a_matrix()
    by_field = a_job(tmp_path, matrix, FIELDS, in_memory_bytes=in_memory_bytes)
    columns = {"right": matrix[:, 1:4], "left": matrix[:, 4:]}
    by_name = replace(by_field, samples=write(tmp_path, **columns), fields=())
    told = fit(worker, models.several_inputs, by_field)
    [answers] = worker.predict({"": matrix}, fields=FIELDS).values()
    evaluation = worker.evaluate(by_field.samples, by_field.labels, None, fields=FIELDS)
    assert told == fit(worker, models.several_inputs, by_name)
    np.testing.assert_array_equal(answers, next(iter(worker.predict(columns).values())))
    assert evaluation == worker.evaluate(by_name.samples, by_name.labels, None)


def test_fields_that_no_input_takes_are_said_to_be_unused(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    before = len(worker.output)
    fit(worker, models.several_inputs, a_job(tmp_path, a_matrix(), FIELDS))
    assert "not used: other" in worker.output[before:]


def test_each_field_comes_in_its_own_shape(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (30, 5)).astype(np.float64)
    code = {"tensorflow": KERAS_MIXED, "pytorch": TORCH_MIXED}[models.framework]
    assert len(fit(worker, code, a_job(tmp_path, matrix, MIXED))) == 1
    [answers] = worker.predict({"": matrix}, fields=MIXED).values()
    assert answers.shape == (30, 3)


def test_a_field_of_a_nested_record_feeds_the_input_of_its_joined_name(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    code = models.several_inputs.replace("left", "both_left").replace("right", "both_right")
    of = fields(**{"both.right": ("f4", (3,)), "both.left": ("f4", (2,))})
    matrix = a_matrix(width=5)
    assert len(fit(worker, code, a_job(tmp_path, matrix, of))) == 1
    assert worker.predict({"": matrix}, fields=of)


def test_whole_numbers_of_a_field_stay_whole_where_asked(torch_worker: WorkerSession, tmp_path: Path) -> None:
    code = torch_model(
        "self.words, self.net = nn.Embedding(9, 2), nn.Linear(6, 3)",
        "image, age):\n        return self.net(torch.cat([image.flatten(1), self.words(age)], 1))",
    )
    matrix = np.random.default_rng(0).integers(0, 9, (30, 5)).astype(np.float64)
    assert len(fit(torch_worker, code, a_job(tmp_path, matrix, MIXED, keep_integers=True))) == 1


def test_a_model_with_one_input_takes_all_fields_as_a_row(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    matrix, of = a_matrix(width=4), fields(a=("f4", ()), b=("f4", (3,)))
    assert fit(worker, models.classifier, a_job(tmp_path, matrix, of)) == fit(
        worker, models.classifier, a_job(tmp_path, matrix, ())
    )
    [answers] = worker.predict({"": matrix}, fields=of).values()
    np.testing.assert_array_equal(answers, next(iter(worker.predict({"": matrix}).values())))


@pytest.mark.parametrize(
    ("of", "expected", "actual"),
    [
        (fields(left=("f4", (2,)), light=("f4", (4,))), "left, right", "left (2,), light (4,)"),
        ((), "left, right", "(6,)"),
    ],
    ids=["another name", "no names"],
)
def test_inputs_without_a_field_are_refused_by_name(
    worker: WorkerSession, models: Models, tmp_path: Path, of: tuple[Field, ...], expected: str, actual: str
) -> None:
    error = failure(worker, models.several_inputs, a_job(tmp_path, a_matrix(), of))
    assert (error.reason_name, error.metadata) == ("SCHEMA_MISMATCH", {"expected": expected, "actual": actual})
    with pytest.raises(HeadraceError) as caught:
        worker.predict({"": a_matrix()}, fields=of)
    assert caught.value.reason_name == "SCHEMA_MISMATCH"


def test_fields_of_another_shape_are_refused_with_both_shapes(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    of = fields(right=("f4", (2,)), left=("f4", (4,)))
    error = failure(worker, models.several_inputs, a_job(tmp_path, a_matrix(), of))
    assert error.reason_name == "SCHEMA_MISMATCH"
    assert error.metadata["actual"] in ("left (4,), right (2,)", "right (2,), left (4,)")
    # Keras knows its inputs; of a PyTorch model the layer that refuses is known.
    expected = {"tensorflow": "left (2,), right (3,)", "pytorch": "Linear(in_features=5, out_features=3"}
    assert expected[models.framework] in error.metadata["expected"]


def test_a_row_that_does_not_fit_is_said_with_its_fields(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    error = failure(worker, models.classifier, a_job(tmp_path, a_matrix(), FIELDS))
    assert error.reason_name == "SCHEMA_MISMATCH"
    assert error.metadata["actual"] == "(6,) of the fields other, right, left"
    assert "(4,)" in error.metadata["expected"]


def test_the_inputs_of_a_model_are_described_by_name(worker: WorkerSession, models: Models) -> None:
    described = worker.build("", models.several_inputs).signature.inputs
    assert [each.name for each in described] == ["left", "right"]


def test_a_parameter_with_a_default_takes_the_field_of_its_name(torch_worker: WorkerSession, tmp_path: Path) -> None:
    code = TORCH.several_inputs.replace("left, right):", "left, right, other=None):\n        assert other is not None")
    assert len(fit(torch_worker, code, a_job(tmp_path, a_matrix(), FIELDS))) == 1


KERAS_LAYER = """
class Own(layers.Layer):
    def call(self, x):
        {line}

model = keras.Sequential([Own(), layers.Dense(3, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
"""
# What a forward() or call() does with x (rows, 6), and what that is.
MISTAKES = {
    "attribute of the model": ("return self.scale * x", "CODE_ERROR"),
    "attribute of a tensor": ("return x.flattened()", "CODE_ERROR"),
    "name": ("return scale * x", "CODE_ERROR"),
    "key": ("return {}['x']", "CODE_ERROR"),
    "arguments": ("return max()", "CODE_ERROR"),
    "import": ("import nothing_of_this_name", "CODE_ERROR"),
    "assertion": ("assert x.shape[1] == 7", "CODE_ERROR"),
    "raised": ("raise ValueError('mine')", "CODE_ERROR"),
    "not implemented": ("raise NotImplementedError", "CODE_ERROR"),
    "endless": ("return self.{method}(x)", "CODE_ERROR"),
    "matrix product": ("return x @ {ones}", "SCHEMA_MISMATCH"),
    "sum": ("return x + {ones}", "SCHEMA_MISMATCH"),
    "reshape": ("return {reshape}", "SCHEMA_MISMATCH"),
}
WORDS = {
    "tensorflow": {"method": "call", "ones": "tf.ones((7, 5))", "reshape": "tf.reshape(x, (-1, 7))"},
    "pytorch": {"method": "forward", "ones": "torch.ones(7, 5)", "reshape": "x.reshape(7, 11)"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_code_is_told_from_data_that_do_not_fit(
    worker: WorkerSession, models: Models, tmp_path: Path, mistake: str
) -> None:
    template, reason = MISTAKES[mistake]
    line = template.format(**WORDS[models.framework]) if "{}" not in template else template
    code = {
        "tensorflow": KERAS_LAYER.format(line=line),
        "pytorch": torch_model("self.net = nn.Linear(6, 3)", "x):\n        " + line),
    }[models.framework]
    error = failure(worker, code, a_job(tmp_path, a_matrix(), FIELDS))
    assert error.reason_name == reason, error.message
    place = code.splitlines()[int(error.metadata["line"]) - 1]
    assert (error.metadata["file"], place.strip()) == ("code", line)


def test_layers_without_code_of_their_own_refuse_data(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    code = {
        "tensorflow": keras_model("layers.Reshape((7, 11)), layers.Flatten(), layers.Dense(3)"),
        "pytorch": torch_model("self.net = nn.Sequential(nn.Conv2d(1, 2, 3))", "x):\n        return self.net(x)"),
    }[models.framework]
    assert failure(worker, code, a_job(tmp_path, a_matrix(), ())).reason_name == "SCHEMA_MISMATCH"


def test_predictions_of_undeclared_inputs_that_do_not_fit_are_refused(keras_worker: WorkerSession) -> None:
    keras_worker.build("", KERAS_LAYER.format(line="return x @ tf.ones((7, 5))"))
    with pytest.raises(HeadraceError) as caught:
        keras_worker.predict({"": a_matrix()})
    assert caught.value.reason_name == "SCHEMA_MISMATCH"
