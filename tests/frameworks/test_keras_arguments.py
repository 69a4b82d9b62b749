"""What only Keras has."""

from pathlib import Path

import numpy as np
import pytest

from headrace.errors import HeadraceError
from sandbox.session import FitEpoch, FitJob, WorkerSession
from tests.frameworks.data import job, three_classes, write
from tests.frameworks.models import KERAS


def fit(worker: WorkerSession, code: str, what: FitJob) -> list[FitEpoch]:
    worker.build("", code, seed=1)
    return [event for event in worker.fit(what) if isinstance(event, FitEpoch)]


def test_validation_happens_as_often_as_asked(keras_worker: WorkerSession, tmp_path: Path) -> None:
    arguments = "epochs=4, validation_freq=2, validation_batch_size=7, validation_steps=2"
    epochs = fit(keras_worker, KERAS.classifier, job(tmp_path, *three_classes(60), validation=20, fit_args=arguments))
    assert ["validation" in epoch.metrics for epoch in epochs] == [False, True, False, True]


def test_class_weights_change_what_is_learnt(keras_worker: WorkerSession, tmp_path: Path) -> None:
    samples, labels = three_classes(90)
    what = "epochs=5, class_weight={0: 0, 1: 0, 2: 1.0}"
    fit(keras_worker, KERAS.classifier, job(tmp_path, samples, labels, fit_args=what))
    [answers] = keras_worker.predict({"": samples}).values()
    assert set(np.argmax(answers, axis=1)) == {2}


@pytest.mark.parametrize("weights", ["{0: 1.0}", "{1: 1}", "{0: 1.0, 7: 9.0}"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_without_a_weight_have_one(
    keras_worker: WorkerSession, tmp_path: Path, weights: str, one_hot: bool
) -> None:
    samples, numbers = three_classes(90)
    labels = np.eye(3, dtype=np.float32)[numbers] if one_hot else numbers
    code = KERAS.classifier.replace("sparse_", "") if one_hot else KERAS.classifier
    plain, weighted = (
        fit(keras_worker, code, job(tmp_path, samples, labels, fit_args=f"epochs=2{what}"))
        for what in ("", f", class_weight={weights}")
    )
    losses = [[epoch.metrics["training"]["loss"] for epoch in epochs] for epochs in (plain, weighted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rows_stay_in_order_without_shuffle(keras_worker: WorkerSession, tmp_path: Path) -> None:
    # The model prints what it is fed.
    code = """
class Shown(layers.Layer):
    def call(self, x):
        tf.print("batch", x[:, 0], summarize=-1, output_stream="file:///proc/self/fd/1")
        return x
model = keras.Sequential([keras.Input((1,)), Shown(), layers.Dense(1)])
model.compile("sgd", "mse")
"""
    samples = np.arange(10, dtype=np.float32).reshape(10, 1)
    paths = write(tmp_path, samples=samples, labels=samples[:, 0], rows=np.arange(9, -1, -1))
    before = len(keras_worker.output)
    what = FitJob(paths["samples"], paths["labels"], paths["rows"], batch_size=4, fit_args="shuffle=False, epochs=2")
    fit(keras_worker, code, what)
    printed = [line for line in keras_worker.output[before:].splitlines() if line.startswith("batch")]
    assert printed[-6:] == ["batch [9 8 7 6]", "batch [5 4 3 2]", "batch [1 0]"] * 2


def test_keras_prints_its_progress_when_asked(keras_worker: WorkerSession, tmp_path: Path) -> None:
    fit(keras_worker, KERAS.classifier, job(tmp_path, *three_classes(20), fit_args="verbose=2, epochs=3"))
    assert "Epoch 3/3" in keras_worker.output


def test_a_model_without_declared_inputs_learns_and_is_loaded(keras_worker: WorkerSession, tmp_path: Path) -> None:
    code = "model = keras.Sequential([layers.Dense(3, activation='softmax')])\n"
    code += "model.compile('adam', 'sparse_categorical_crossentropy')"
    built = keras_worker.build("", code, seed=1)
    assert (len(built.signature.inputs), built.signature.parameter_count) == (0, 0)
    samples, labels = three_classes(30)
    fit(keras_worker, code, job(tmp_path, (samples * 9).astype(np.uint8), labels))
    before = keras_worker.predict({"": samples})
    [saved] = keras_worker.save(tmp_path)
    assert keras_worker.load("", code, saved.path).signature.parameter_count == 15
    after = keras_worker.predict({"": samples})
    np.testing.assert_array_equal([*before.values()], [*after.values()])


def test_a_model_of_its_own_class_learns(keras_worker: WorkerSession, tmp_path: Path) -> None:
    code = """
class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.inner(x)

model = Own()
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
"""
    assert fit(keras_worker, code, job(tmp_path, *three_classes(30)))[0].metrics["training"]["loss"] > 0


def test_a_fixed_batch_size_is_kept_to(keras_worker: WorkerSession) -> None:
    keras_worker.build("", "model = keras.Sequential([keras.Input((2,), batch_size=4), layers.Dense(1)])", seed=1)
    samples = np.arange(18, dtype=np.float32).reshape(9, 2)
    [answers] = keras_worker.predict({"": samples}).values()
    assert answers.shape == (9, 1)
    [again] = keras_worker.predict({"": samples[8:]}).values()
    np.testing.assert_allclose(again[0], answers[8], rtol=1e-5)


def test_rows_that_a_model_of_a_fixed_batch_size_loses_are_not_made_up_for_by_the_padding(
    keras_worker: WorkerSession,
) -> None:
    code = """
inputs = keras.Input((2,), batch_size=4)
model = keras.Model(inputs, layers.Lambda(lambda x: x[1:])(inputs))
"""
    keras_worker.build("", code)
    with pytest.raises(HeadraceError) as caught:
        keras_worker.predict({"": np.arange(6, dtype=np.float32).reshape(3, 2)})
    assert caught.value.reason_name == "SCHEMA_MISMATCH"


def test_a_shape_may_be_a_whole_number(keras_worker: WorkerSession) -> None:
    built = keras_worker.build("from tensorflow.keras import Input", "model = tf.keras.Model(*[Input(shape=64)] * 2)")
    assert list(built.signature.inputs[0].shape) == [-1, 64]


def test_sub_models_build_though_they_are_not_compiled(keras_worker: WorkerSession, tmp_path: Path) -> None:
    built = keras_worker.build("", KERAS.several_outputs)
    assert [spec.name for spec in built.signature.outputs] == ["hidden", "scores"]
    with pytest.raises(HeadraceError) as caught:
        list(keras_worker.fit(job(tmp_path, *three_classes(10))))
    assert caught.value.reason_name == "NO_MODEL"
    assert "compile" in caught.value.message


def test_several_models_without_the_name_are_refused(keras_worker: WorkerSession) -> None:
    code = "edge_model = keras.Sequential([layers.Dense(1)])\ncloud_model = keras.Sequential([layers.Dense(1)])"
    with pytest.raises(HeadraceError) as caught:
        keras_worker.build("", code)
    assert caught.value.reason_name == "NO_MODEL"
    assert "edge_model, cloud_model" in caught.value.message


def test_generated_names_do_not_depend_on_earlier_models(keras_worker: WorkerSession) -> None:
    names = [keras_worker.build("", KERAS.classifier).signature.outputs[0].name for _ in range(2)]
    assert names[0] == names[1]
