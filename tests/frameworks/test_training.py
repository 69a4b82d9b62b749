"""Build, fit, evaluate, save, load, predict: one suite over both frameworks, always through a worker."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import HeadraceError, InvalidArgument
from sandbox.session import FitEpoch, FitJob, WorkerSession
from tests.frameworks.data import job, three_classes, write
from tests.frameworks.models import Models


def fit(worker: WorkerSession, code: str, what: FitJob, *, seed: int = 1) -> list[FitEpoch]:
    """Builds and trains; the epochs."""
    worker.build("", code, seed=seed, trainable=True)
    return [event for event in worker.fit(what) if isinstance(event, FitEpoch)]


def failure(worker: WorkerSession, code: str, what: FitJob) -> HeadraceError:
    """Builds and trains; how it fails. No epoch and no step may have come before."""
    worker.build("", code, seed=1)
    with pytest.raises(HeadraceError) as caught:
        list(worker.fit(what))
    return caught.value


def accuracy(metrics: dict[str, float]) -> float:
    return metrics["accuracy"]


def test_a_model_is_described(worker: WorkerSession, models: Models) -> None:
    built = worker.build("", models.classifier)
    assert list(built.signature.inputs[0].shape) == [-1, 4]
    assert list(built.signature.outputs[0].shape) == [-1, 3]
    assert built.signature.parameter_count == built.signature.trainable_parameter_count == 4 * 8 + 8 + 8 * 3 + 3
    assert "67" in built.signature.summary or "Linear" in built.signature.summary
    assert {"tensorflow": "keras", "pytorch": "ignite"}[models.framework] in built.framework_version
    assert worker.framework_version == built.framework_version


def test_a_classifier_learns_and_says_so(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    what = job(tmp_path, *three_classes(), validation=40, batch_size=16, fit_args=f"{models.epochs}=15")
    epochs = fit(worker, models.classifier, what)
    assert [epoch.number for epoch in epochs] == list(range(1, 16))
    assert [epoch.step for epoch in epochs] == [13 * number for number in range(1, 16)]
    for split in ("training", "validation"):
        assert epochs[-1].metrics[split]["loss"] < epochs[0].metrics[split]["loss"]
        assert set(epochs[-1].metrics[split]) == {"loss", "accuracy"}
    assert accuracy(epochs[-1].metrics["validation"]) > 0.8
    evaluation = worker.evaluate(what.samples, what.labels, what.validation_rows, confusion_matrix=True)
    assert evaluation.metrics == pytest.approx(epochs[-1].metrics["validation"], rel=1e-3)
    assert evaluation.confusion is not None
    assert evaluation.confusion.labels == ["0", "1", "2"]
    counts = evaluation.confusion.counts
    assert counts.sum() == 40
    assert np.trace(counts) / 40 == pytest.approx(accuracy(evaluation.metrics))
    labels = np.load(tmp_path / "labels.npy")[np.load(tmp_path / "validation.npy")]
    assert counts.sum(axis=1).tolist() == np.bincount(labels, minlength=3).tolist()


def test_without_validation_rows_there_are_no_validation_metrics(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    epochs = fit(worker, models.classifier, job(tmp_path, *three_classes(30)))
    assert list(epochs[0].metrics) == ["training"]


def test_data_repeat_for_as_long_as_steps_are_asked_for(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    # More steps than rows, in epochs that end in the middle of a pass.
    arguments = f"{models.epochs}=30, {models.steps}=22, shuffle=True"
    what = job(tmp_path, *three_classes(239), batch_size=10, fit_args=arguments)
    epochs = fit(worker, models.classifier, what)
    assert [epoch.step for epoch in epochs] == [22 * number for number in range(1, 31)]


def test_the_same_seed_gives_the_same_weights(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, labels = three_classes(100)
    what = job(tmp_path, samples, labels, fit_args=f"{models.epochs}=2", seed=5)
    answers = []
    for seed in (5, 5, 6):
        fit(worker, models.classifier, replace(what, seed=seed), seed=seed)
        answers.append(next(iter(worker.predict({"": samples}).values())))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_files_too_large_for_memory_train_the_same(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, labels = three_classes(100)
    what = job(tmp_path, samples, labels, validation=20, fit_args=f"{models.epochs}=2")
    answers = []
    for in_memory_bytes in (None, 0):
        epochs = fit(worker, models.classifier, replace(what, in_memory_bytes=in_memory_bytes))
        answers.append((epochs, next(iter(worker.predict({"": samples}).values())).tobytes()))
    assert answers[0] == answers[1]


def test_a_saved_model_answers_as_it_did(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, labels = three_classes(100)
    fit(worker, models.classifier, job(tmp_path, samples, labels))
    before = worker.predict({"": samples})
    [saved] = worker.save(tmp_path)
    assert saved.name == {"tensorflow": "model.keras", "pytorch": "model.safetensors"}[models.framework]
    assert saved.path.stat().st_size > 200
    worker.build("", models.classifier, seed=99)
    worker.load("", models.classifier, saved.path)
    worker.warm(64)
    after = worker.predict({"": samples})
    assert list(after) == list(before)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_file_that_is_no_model_of_this_code_is_refused(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    worker.build("", models.image)
    [saved] = worker.save(tmp_path)
    broken = tmp_path / f"broken{saved.path.suffix}"
    broken.write_bytes(saved.path.read_bytes()[:100])
    for path in (saved.path, broken, tmp_path / f"missing{saved.path.suffix}"):
        with pytest.raises(HeadraceError) as caught:
            worker.load("", models.classifier, path)
        assert caught.value.reason_name == "CHECKPOINT_CORRUPT"


@pytest.mark.parametrize("rows", [1, 2, 3, 100, 1000])
def test_any_number_of_rows_is_answered_row_by_row(worker: WorkerSession, models: Models, rows: int) -> None:
    if rows == 1:
        worker.build("", models.classifier, seed=3)
    samples, _ = three_classes(rows)
    [(name, answers)] = worker.predict({"": samples}).items()
    assert answers.dtype == np.float32
    assert answers.shape == (rows, 3)
    for row in (0, rows - 1):
        np.testing.assert_allclose(worker.predict({"": samples[row : row + 1]})[name][0], answers[row], rtol=1e-4)


def test_several_outputs_carry_their_names(worker: WorkerSession, models: Models) -> None:
    worker.build("", models.several_outputs)
    outputs = worker.predict({"": np.zeros((5, 4), np.float32)})
    assert {name: array.shape for name, array in outputs.items()} == {"hidden": (5, 6), "scores": (5, 3)}


def test_several_inputs_are_fed_by_name(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    left, right = np.random.default_rng(0).random((40, 2)), np.random.default_rng(1).random((40, 3))
    paths = write(tmp_path, left=left, right=right, labels=np.arange(40) % 3)
    columns = {"left": paths["left"], "right": paths["right"]}
    epochs = fit(worker, models.several_inputs, FitJob(columns, paths["labels"]))
    assert len(epochs) == 1
    [answers] = worker.predict({"right": right, "left": left}).values()
    assert answers.shape == (40, 3)


def test_whole_numbers_are_learnt_from_as_numbers(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    what = job(tmp_path, images, (images[:, 0, 0] % 3).astype(np.uint8), validation=10)
    assert fit(worker, models.image, what)[0].metrics["validation"]["loss"] > 0
    [answers] = worker.predict({"": images}).values()
    assert answers.shape == (60, 3)


def test_whole_numbers_stay_whole_where_asked(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 10, (60, 3), dtype=np.uint16)
    what = job(tmp_path, words, words[:, 0] % 2, keep_integers=True)
    assert len(fit(worker, models.embedding, what)) == 1
    assert worker.evaluate(what.samples, what.labels, None, keep_integers=True).metrics["loss"] > 0


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_a_single_score_takes_labels_of_any_number_type(
    worker: WorkerSession, models: Models, tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    samples, _ = three_classes(80)
    labels = (samples[:, 0] > 0.5).astype(dtype).reshape(-1, *shape)
    what = job(tmp_path, samples, labels, fit_args=f"{models.epochs}=2")
    assert len(fit(worker, models.binary, what)) == 2
    evaluation = worker.evaluate(what.samples, what.labels, None, confusion_matrix=True)
    assert evaluation.confusion is not None
    assert evaluation.confusion.counts.sum(axis=1).tolist() == [int((labels == 0).sum()), int((labels == 1).sum())]


def test_a_regression_has_no_confusion_matrix(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, _ = three_classes(200)
    what = job(tmp_path, samples, samples.sum(axis=1), fit_args=f"{models.epochs}=30", batch_size=10)
    epochs = fit(worker, models.regression, what)
    # (rows,) against (rows, 1) would be spread to (rows, rows), and learn the mean at best.
    assert epochs[-1].metrics["training"]["loss"] < 0.05
    evaluation = worker.evaluate(what.samples, what.labels, None, confusion_matrix=True)
    assert evaluation.confusion is None
    assert set(evaluation.metrics) == {"loss", "mae"}


@pytest.mark.parametrize(
    ("samples", "labels", "named"),
    [
        (np.zeros((40, 5), np.float32), np.zeros(40, np.int64), ["(5,)"]),
        (np.zeros((40, 2, 2), np.float32), np.zeros(40, np.int64), ["(2, 2)"]),
        (np.zeros((40, 4, 1), np.float32), np.zeros(40, np.int64), ["(4, 1)"]),
        (np.zeros((40, 4), np.float32), np.zeros((40, 2), np.float32), ["(2,)", "3"]),
        (np.zeros((40, 4), np.float32), np.full(40, 3), ["3", "0 to 2"]),
        (np.zeros((40, 4), np.float32), np.full(40, -7), ["-7", "0 to 2"]),
        (np.zeros((40, 4), np.float32), np.zeros(39, np.int64), ["40", "39"]),
    ],
)
def test_data_that_do_not_fit_are_refused_with_both_shapes(
    worker: WorkerSession, models: Models, tmp_path: Path, samples: Any, labels: Any, named: list[str]
) -> None:
    paths = write(tmp_path, samples=samples, labels=labels)
    error = failure(worker, models.classifier, FitJob(paths["samples"], paths["labels"]))
    assert (error.reason_name, type(error)) == ("SCHEMA_MISMATCH", InvalidArgument)
    for text in named:
        assert text in error.message


def test_rows_that_do_not_fit_are_not_predicted(worker: WorkerSession, models: Models) -> None:
    worker.build("", models.classifier)
    for rows in (np.zeros((3, 5), np.float32), np.zeros((3, 4, 2), np.float32)):
        with pytest.raises(HeadraceError) as caught:
            worker.predict({"": rows})
        assert caught.value.reason_name == "SCHEMA_MISMATCH"
    assert worker.predict({"": np.zeros((3, 4), np.float32)})


def test_no_rows_are_no_training(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    paths = write(tmp_path, samples=np.zeros((3, 4)), labels=np.zeros(3, int), none=np.zeros(0, int))
    what = FitJob(paths["samples"], paths["labels"], training_rows=paths["none"])
    assert failure(worker, models.classifier, what).reason_name == "EMPTY_STREAM"


def test_a_loss_that_is_no_number_stops_at_its_step(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, _ = three_classes(100)
    what = job(tmp_path, samples, samples[:, 0], batch_size=10, fit_args=f"{models.epochs}=50")
    worker.build("", models.exploding, seed=1, trainable=True)
    with pytest.raises(HeadraceError) as caught:
        list(worker.fit(what))
    error = caught.value
    assert error.reason_name == "NAN_LOSS"
    assert int(error.metadata["epoch"]) == 1
    assert 2 <= int(error.metadata["step"]) <= 9


@pytest.mark.parametrize("kind", ["KeyError", "ValueError"])
def test_an_exception_of_the_code_in_training_has_its_place(
    worker: WorkerSession, models: Models, tmp_path: Path, kind: str
) -> None:
    error = failure(worker, models.raising.replace("KeyError", kind), job(tmp_path, *three_classes(40)))
    assert error.reason_name == "CODE_ERROR"
    assert (error.metadata["file"], error.metadata["line"]) == ("code", "5")
    assert error.message.startswith(f"{kind}: ")
    assert "not today" in error.message
    assert "\x1b" not in error.message
    assert "x1b" not in error.message, "as a literal neither"


def test_a_model_that_cannot_be_trained_is_said_to_be_so(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError) as caught:
        worker.build("", models.incomplete, trainable=True)
    assert caught.value.reason_name == "NO_MODEL"
    assert int(caught.value.metadata["line"]) > 0


@pytest.mark.parametrize("code", ["x = 1", "model = 3", "model = np.zeros(3)", "class Net: pass\nmodel = Net"])
def test_code_without_a_model_is_refused(worker: WorkerSession, code: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        worker.build("", code)
    assert caught.value.reason_name == "NO_MODEL"


def test_names_are_there_without_an_import(worker: WorkerSession, models: Models) -> None:
    names = {
        "tensorflow": "tf.keras.layers, keras.layers, layers.Dense, np.zeros, tf.nn.relu",
        "pytorch": "torch.nn, nn.Linear, F.relu, np.zeros, Accuracy, Loss, ignite.engine",
    }
    worker.build("", names[models.framework] + "\n" + models.classifier)


def test_dataclasses_and_closures_work_in_code(worker: WorkerSession, models: Models) -> None:
    imports = "from __future__ import annotations\nfrom dataclasses import dataclass\nWIDTH = 4"
    code = "@dataclass\nclass Options:\n    width: int = WIDTH\n\n" + models.classifier
    worker.build(imports, code)


def test_unknown_arguments_are_refused_with_the_known_ones(
    worker: WorkerSession, models: Models, tmp_path: Path
) -> None:
    found = worker.check_arguments(f"{models.epochs}=5, colour='red', shuffle=True", "")
    assert models.epochs in found.known_fit_args
    assert models.steps in found.known_fit_args
    [wrong] = found.diagnostics
    assert (wrong.reason, wrong.file, wrong.line) == ("UNKNOWN_ARGUMENT", "fit_args", 1)
    assert wrong.column == len(f"{models.epochs}=5, ") + 1
    assert models.steps in wrong.message
    error = failure(worker, models.classifier, job(tmp_path, *three_classes(20), fit_args="colour='red'"))
    assert error.reason_name == "UNKNOWN_ARGUMENT"
    assert models.steps in error.metadata["known"]


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("{epochs}=range(3)", "UNKNOWN_ARGUMENT", 1, None),
        ("shuffle=__import__('os')", "UNKNOWN_ARGUMENT", 1, 9),
        ("shuffle=True,\n  {epochs}=open('x')", "UNKNOWN_ARGUMENT", 2, None),
        ("5", "UNKNOWN_ARGUMENT", 1, 1),
        ("**{{}}", "UNKNOWN_ARGUMENT", 1, None),
        ("{epochs}=", "UNKNOWN_ARGUMENT", 1, None),
        ("{epochs}=1) or f(", "UNKNOWN_ARGUMENT", 1, None),
        ("shuffle=True, shuffle=False", "UNKNOWN_ARGUMENT", 1, None),
        ("{epochs}=0", "INVALID_FIELD", 1, None),
        ("{epochs}=1.5", "INVALID_FIELD", 1, None),
        ("{epochs}='3'", "INVALID_FIELD", 1, None),
        ("{epochs}=True", "INVALID_FIELD", 1, None),
        ("{steps}=-1", "INVALID_FIELD", 1, None),
        ("shuffle='yes'", "INVALID_FIELD", 1, 9),
        ("batch_size=3", "UNKNOWN_ARGUMENT", 1, 1),
        ("shuffle=" + "[" * 5000 + "]" * 5000, None, 1, None),
    ],
)
def test_arguments_are_literals_and_never_run(
    worker: WorkerSession, models: Models, text: str, reason: str | None, line: int, column: int | None
) -> None:
    text = text if reason is None else text.format(epochs=models.epochs, steps=models.steps)
    [wrong] = worker.check_arguments(text, "").diagnostics
    assert reason in (None, wrong.reason)
    assert (wrong.file, wrong.line) == ("fit_args", line)
    assert column in (None, wrong.column)


def test_good_arguments_have_no_diagnostics(worker: WorkerSession, models: Models) -> None:
    text = f"{models.epochs}=1000,\n {models.steps}=22, shuffle=True,"
    assert worker.check_arguments(text, "").diagnostics == []
    assert worker.check_arguments("", "").diagnostics == []


def test_class_numbers_may_be_of_a_float_type(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, labels = three_classes(100)
    what = job(tmp_path, samples, labels.astype(np.float32), validation=20, fit_args=f"{models.epochs}=2")
    as_integers = job(tmp_path / "int", samples, labels, validation=20, fit_args=f"{models.epochs}=2")
    assert [each.metrics for each in fit(worker, models.classifier, what)] == [
        each.metrics for each in fit(worker, models.classifier, as_integers)
    ]
    evaluation = worker.evaluate(what.samples, what.labels, what.validation_rows, confusion_matrix=True)
    assert evaluation.confusion is not None
    assert evaluation.confusion.labels == ["0", "1", "2"]


@pytest.mark.parametrize("value", [1.5, np.nan])
def test_fractional_class_numbers_are_refused_with_type_and_value(
    worker: WorkerSession, models: Models, tmp_path: Path, value: float
) -> None:
    samples, labels = three_classes(100)
    fractional = np.where(np.arange(100) == 90, value, labels).astype(np.float32)
    error = failure(worker, models.classifier, job(tmp_path, samples, fractional))
    assert error.reason_name == "SCHEMA_MISMATCH"
    assert f"float32 numbers such as {value}" in error.message


def test_a_stream_without_labels_is_refused(worker: WorkerSession, models: Models, tmp_path: Path) -> None:
    samples, _ = three_classes(20)
    error = failure(worker, models.classifier, FitJob(write(tmp_path, samples=samples)["samples"], None))
    assert error.reason_name == "SCHEMA_MISMATCH"
    assert error.message == "the stream has no labels, but the model's loss needs them"


def test_a_keras_model_whose_layers_add_its_loss_needs_no_labels(keras_worker: WorkerSession, tmp_path: Path) -> None:
    code = """
class Reconstructed(layers.Layer):
    def call(self, pair):
        given, output = pair
        self.add_loss(keras.ops.mean((given - output) ** 2))
        return output

given = keras.Input((4,))
model = keras.Model(given, Reconstructed()([given, layers.Dense(4)(given)]))
model.compile(keras.optimizers.Adam(0.02))
"""
    samples, _ = three_classes(20)
    epochs = fit(keras_worker, code, FitJob(write(tmp_path, samples=samples)["samples"], None, fit_args="epochs=2"))
    assert epochs[1].metrics["training"]["loss"] < epochs[0].metrics["training"]["loss"]
