"""Keras on TensorFlow."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from frameworks.arguments import (
    Known,
    class_weights,
    epochs_to_validate,
    one_of,
    parameters_of,
    whole,
)
from frameworks.checkpoints import START, Checkpoint, Position
from frameworks.choice import choose_model
from frameworks.code import unless_theirs
from frameworks.course import Course
from frameworks.exports.job import ExportJob
from frameworks.failure import Failure, no_labels, schema_mismatch
from frameworks.fields import Columns, Field, Inputs
from frameworks.framework import Described, Events, Plan, Scores, Training
from frameworks.keras_state import put_random, put_variables, put_within_epoch, take
from frameworks.rows import EpochOrder, Rows, check_class_numbers, shapes_of

VERBOSITY = one_of("auto", 0, 1, 2)
FIT_CHECKS = {
    "epochs": whole(1),
    "verbose": VERBOSITY,
    "shuffle": one_of(True, False, "batch"),
    "class_weight": class_weights,
    "steps_per_epoch": whole(1, optional=True),
    "validation_steps": whole(1, optional=True),
    "validation_batch_size": whole(1, optional=True),
    "validation_freq": epochs_to_validate,
}
EVALUATE_CHECKS = {"batch_size": whole(1, optional=True), "verbose": VERBOSITY, "steps": whole(1, optional=True)}
# Batches that are ready before they are asked for.
BATCHES_AHEAD = 4
# Rows that are read in one call into Python.
CHUNK_BYTES = 2 * 1024 * 1024
SPARSE_LOSSES = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")


class TensorFlow:
    """Keras models on TensorFlow, behind the protocol of frameworks.framework."""

    def __init__(self) -> None:
        self.version = f"tensorflow {tf.__version__}, keras {keras.__version__}"
        self.fit_arguments = Known.of(parameters_of(keras.Model.fit), FIT_CHECKS)
        self.evaluate_arguments = Known.of(parameters_of(keras.Model.evaluate), EVALUATE_CHECKS)
        # By (inputs' names, types, shapes): a traced function for any number of rows.
        self._traced: dict[Any, Callable[..., Any]] = {}
        _accept_whole_number_shapes()
        threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)

    def warm_up(self, *, trains: bool) -> None:
        """Makes a tiny model, so that the first real one does not pay for what Keras loads late."""
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        if trains:
            model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        self.describe(model)

    def begin(self) -> None:
        """Forgets what earlier models left: generated names count from the start again."""
        keras.backend.clear_session(free_memory=False)
        self._traced.clear()

    def seed(self, seed: int) -> None:
        """Seeds Python's, numpy's and TensorFlow's random numbers."""
        keras.utils.set_random_seed(seed)

    def names(self) -> dict[str, Any]:
        """What code finds without importing it."""
        return {"tf": tf, "keras": keras, "layers": keras.layers, "np": np}

    def find_model(self, variables: Mapping[str, Any]) -> keras.Model:
        """The Keras model among the code's variables."""
        return choose_model(variables, lambda value: isinstance(value, keras.Model), "a keras.Model")

    def check_trainable(self, model: keras.Model) -> None:
        """Refuses a model that was not compiled."""
        if not model.compiled or model.optimizer is None:
            message = "the model is not compiled; call model.compile(optimizer=…, loss=…, metrics=[…])"
            raise Failure("NO_MODEL", message)

    def describe(self, model: keras.Model) -> Described:
        """What the model takes and gives; nothing of either for a model that Keras has not built yet."""
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) if model.built else 0
        lines: list[str] = []
        model.summary(print_fn=lambda text, **_: lines.append(text))
        return Described(
            parameter_count=model.count_params() if model.built else 0,
            trainable_parameter_count=trainable,
            summary="\n".join(lines),
            inputs=[_spec(name, tensor) for name, tensor in _declared_inputs(model).items()],
            outputs=[_spec(name, tensor) for name, tensor in _declared_outputs(model).items()],
        )

    def describe_fed(self, model: keras.Model, columns: Columns, *, keep_integers: bool, declares: bool) -> Described:
        """Of a model that Keras built in its first step, that step's batch is no part of the shapes."""
        described = self.describe(model)
        if declares and described.outputs:
            return described
        if not declares:
            given = _Feed(model, keep_integers).inputs({name: tf.constant(array) for name, array in columns.items()})
            named = given if isinstance(given, Mapping) else {"input": given}
            described.inputs = [_batch_spec(name, tensor) for name, tensor in named.items()]
        answers = self.predict(model, columns, keep_integers=keep_integers)
        described.outputs = [_batch_spec(name, tf.constant(array)) for name, array in answers.items()]
        return described

    def inputs(self, model: keras.Model) -> Inputs:
        """The names of several declared inputs."""
        names = tuple(_declared_inputs(model))
        return Inputs(names) if len(names) > 1 else Inputs()

    def fit(self, model: keras.Model, training: Training, begin: Callable[[Plan], Events]) -> None:
        """Trains by Keras' own `fit`, on a data set that repeats for as long as the training goes on."""
        self.check_trainable(model)
        arguments = {"epochs": 1, "verbose": 0, "shuffle": True, **training.arguments}
        _check_data(model, training)
        order = EpochOrder(
            rows=len(training.rows),
            batch_size=training.batch_size,
            shuffle=arguments.pop("shuffle"),
            seed=training.seed,
            steps_per_epoch=arguments.pop("steps_per_epoch", None),
        )
        plan = Plan(arguments["epochs"], order.steps, training.batch_size)
        course = Course(plan, begin, training.checkpoints if _is_in_step(model, plan) else None)
        validation_batch = arguments.pop("validation_batch_size", None) or training.batch_size
        if arguments.get("class_weight"):
            arguments["class_weight"] = _weights_of_all(training.rows, arguments["class_weight"])
        feed = _Feed(model, training.keep_integers)
        data = feed.epochs(training.rows, order, plan.epochs, course.position)
        if course.resumed is not None:
            _put(model, course.resumed, feed.epochs(training.rows, order, 1))
        _watch_steps(model, course)
        model.fit(
            data,
            initial_epoch=course.position.epoch,
            steps_per_epoch=order.steps,
            shuffle=False,  # The order is already in the data.
            validation_data=feed.once(training.validation, validation_batch) if training.validation else None,
            callbacks=[_EpochEvents(course)],
            **arguments,
        )

    def evaluate(
        self, model: keras.Model, rows: Rows, arguments: Mapping[str, Any], batch_size: int, *, keep_integers: bool
    ) -> dict[str, float]:
        """Metrics over the rows, by Keras' own `evaluate`."""
        self.check_trainable(model)
        arguments = {"verbose": 0, **arguments}
        batch_size = arguments.pop("batch_size", None) or batch_size
        data = _Feed(model, keep_integers).once(rows, batch_size)
        metrics = model.evaluate(data, return_dict=True, **arguments)
        return {name: float(value) for name, value in metrics.items()}

    def scores(self, model: keras.Model, rows: Rows, batch_size: int, *, keep_integers: bool) -> Scores | None:
        """The model's answers for all rows, if it has a single output."""
        answers = [
            self.predict(model, samples, keep_integers=keep_integers)
            for samples, _ in rows.batches(max(batch_size, 256))
        ]
        if not answers or len(answers[0]) != 1:
            return None
        outputs = np.concatenate([next(iter(answer.values())) for answer in answers])
        return Scores(outputs, logits=bool(getattr(model.loss, "from_logits", False)))

    def predict(self, model: keras.Model, columns: Columns, *, keep_integers: bool) -> dict[str, np.ndarray]:
        """float32 outputs by name, by one traced function for any number of rows."""
        _check_samples(model, columns)
        try:
            return self._predict(model, columns, keep_integers)
        except Exception as error:
            raise unless_theirs(error, _samples_mismatch(columns, error)) from error

    def warm(self, model: keras.Model, max_rows: int, *, keep_integers: bool) -> None:
        """Traces the prediction for the declared inputs."""
        declared = _declared_inputs(model)
        if not declared or any(size is None for tensor in declared.values() for size in tensor.shape[1:]):
            return
        zeros = {name: np.zeros((max_rows, *t.shape[1:]), _dtype(t)) for name, t in declared.items()}
        columns = zeros if len(zeros) > 1 else {"": next(iter(zeros.values()))}
        self.predict(model, columns, keep_integers=keep_integers)

    def save(self, model: keras.Model, folder: Path) -> list[dict[str, str]]:
        """Writes `model.keras`."""
        model.save(folder / "model.keras")
        return [{"name": "model.keras", "media_type": "application/vnd.keras"}]

    def load_weights(self, model: keras.Model, path: Path) -> keras.Model:
        """Takes the weights of a `.keras` file; a model that its code leaves unbuilt is built as the saved one was."""
        try:
            if not model.built:
                _build_as_saved(model, path)
            with warnings.catch_warnings():
                # The state of the saved optimizer is not taken: this model predicts, or begins anew.
                warnings.simplefilter("ignore", UserWarning)
                model.load_weights(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise Failure("CHECKPOINT_CORRUPT", f"{path.name} does not hold this model's weights: {error}") from error
        return model

    def export(self, model: keras.Model, job: ExportJob) -> None:
        """Writes the model in another format."""
        from frameworks.exports import keras_forms  # ONNX's library is not there everywhere.

        keras_forms.export(model, job, _export_specs(model, job))

    def _predict(self, model: keras.Model, columns: Columns, keep_integers: bool) -> dict[str, np.ndarray]:
        fixed = _fixed_batch(model)
        if fixed is None:
            return self._predict_once(model, columns, keep_integers)
        rows = len(next(iter(columns.values())))
        parts = [
            _of_rows(self._predict_once(model, _padded(columns, start, fixed), keep_integers), fixed)
            for start in range(0, rows, fixed)
        ]
        return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]} if parts else {}

    def _predict_once(self, model: keras.Model, columns: Columns, keep_integers: bool) -> dict[str, np.ndarray]:
        feed = _Feed(model, keep_integers)
        key = tuple((name, array.dtype.str, array.shape[1:]) for name, array in columns.items())
        if key not in self._traced:
            specs = {name: tf.TensorSpec((_fixed_batch(model), *a.shape[1:]), a.dtype) for name, a in columns.items()}
            function = tf.function(lambda given: model(feed.inputs(given), training=False))
            self._traced[key] = function.get_concrete_function(specs)
        answers = self._traced[key]({name: tf.constant(array) for name, array in columns.items()})
        return _named_outputs(model, answers)


class _Feed:
    """Turns rows into what a model is fed: the right structure and types, batch by batch, in TensorFlow's threads."""

    def __init__(self, model: keras.Model, keep_integers: bool) -> None:
        self._declared = _declared_inputs(model)
        self._keep_integers = keep_integers

    def inputs(self, columns: Mapping[str, Any]) -> Any:
        """Tensors by column name as the model takes them."""
        if len(columns) == 1:
            return self._cast(next(iter(columns.values())), len(self._declared) == 1)
        return {name: self._cast(tensor, name in self._declared) for name, tensor in columns.items()}

    def epochs(self, rows: Rows, order: EpochOrder, epochs: int, start: Position = START) -> tf.data.Dataset:
        """The batches of all epochs from `start` on, one after the other.

        Python hands rows over in chunks of many steps, TensorFlow cuts them into batches: a call into Python, or only a
        gather, for every batch would take longer than a step of a small model.
        """
        steps = max(1, CHUNK_BYTES // (max(1, rows.size_bytes // len(rows)) * order.batch_size))

        def read() -> Iterator[Any]:
            for positions in order.chunks(epochs, steps, start.epoch, start.step):
                yield _columns_of(rows.take(positions))

        def cut(samples: Mapping[str, Any], labels: Mapping[str, Any]) -> tf.data.Dataset:
            size = tf.minimum(order.batch_size, tf.shape(next(iter(samples.values())))[0])
            batches = tf.nest.map_structure(
                lambda tensor: tf.reshape(tensor, [-1, size, *tensor.shape[1:]]), self._pair(samples, labels)
            )
            return tf.data.Dataset.from_tensor_slices(batches)

        specs = tuple(
            {name: tf.TensorSpec((None, *array.shape[1:]), array.dtype) for name, array in columns.items()}
            for columns in _columns_of(rows.first(0))
        )
        chunks = tf.data.Dataset.from_generator(read, output_signature=specs).prefetch(1)
        # There is nothing to convert in `cut`, and looking for it takes 0.2 s.
        batches = chunks.flat_map(tf.autograph.experimental.do_not_convert(cut))
        return batches.prefetch(BATCHES_AHEAD).with_options(_untuned())

    def once(self, rows: Rows, batch_size: int) -> tf.data.Dataset:
        """All rows, once, in order."""
        order = EpochOrder(len(rows), batch_size, shuffle=False)
        # Otherwise Keras warns that the data ended.
        return self.epochs(rows, order, 1).apply(tf.data.experimental.assert_cardinality(order.steps))

    def _pair(self, columns: Mapping[str, Any], labels: Mapping[str, Any]) -> Any:
        if not labels:
            return (self.inputs(columns),)
        return self.inputs(columns), next(iter(labels.values())) if len(labels) == 1 else dict(labels)

    def _cast(self, tensor: tf.Tensor, declared: bool) -> tf.Tensor:
        if declared:
            return tensor  # Keras casts it inside the step: the narrower type is the quicker one to move.
        if tensor.dtype.is_floating or self._keep_integers:
            return tensor
        return tf.cast(tensor, keras.config.floatx())


def _untuned() -> tf.data.Options:
    """Nothing needs tuning here, and the thread that tunes may sleep for seconds at the end of a training."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _columns_of(taken: tuple[Columns, Columns | None]) -> tuple[Columns, Columns]:
    """TensorFlow's structures have no None in them."""
    samples, labels = taken
    return samples, labels or {}


class _EpochEvents(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells of epochs. It has no hook for batches: Keras would convert every metric of every step for it."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self._course = course
        self._resumed = course.resumed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keras has just reset the metrics, and will draw no more numbers before the next step."""
        if self._resumed is not None:
            put_within_epoch(self.model, self._resumed.state)
            put_random(self._resumed.state)
        self._resumed = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Sorts Keras' metrics by split."""
        splits: dict[str, dict[str, float]] = {"training": {}}
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith("val_") else "training"
            splits.setdefault(split, {})[name.removeprefix("val_")] = float(value)
        self._course.epoch(splits, lambda: take(self.model, within_epoch=False))


def _watch_steps(model: keras.Model, course: Course) -> None:
    """Lets the course know of every step; the steps of an epoch that were done before are passed over."""
    model.make_train_function()
    train, count = model.train_function, model.steps_per_execution
    passed_over = course.position.step // count

    @functools.wraps(train)
    def watched(iterator: Any) -> Any:
        nonlocal passed_over
        if passed_over:
            passed_over -= 1
            return {}
        logs = train(iterator)
        # Keras' loss is the mean since the epoch's start: once it is no number it stays so until the epoch ends.
        loss = logs.get("loss") if isinstance(logs, Mapping) else None
        course.step(0.0 if loss is None else float(loss), count, lambda: take(model, within_epoch=True))
        return logs

    model.train_function = watched


def _put(model: keras.Model, checkpoint: Checkpoint, data: tf.data.Dataset) -> None:
    """Sets the state of a checkpoint, but what Keras resets and draws when a training begins."""
    # Keras makes the variables of optimizer and metrics in the first step: one that does not count.
    model.make_train_function()
    model.train_function(iter(data))
    put_variables(model, checkpoint.state)


def _is_in_step(model: keras.Model, plan: Plan) -> bool:
    """Whether epochs end where Keras looks up: otherwise the place in the data drifts away from the epochs."""
    if plan.steps % model.steps_per_execution == 0:
        return True
    print(f"no checkpoints are written: {plan.steps} steps of an epoch are not whole steps_per_execution")
    return False


def _accept_whole_number_shapes() -> None:
    """`keras.Input(shape=64)` was right in Keras 2 and is in people's code: a number means one dimension."""
    original = keras.layers.InputLayer.__init__

    @functools.wraps(original)
    def init(self: Any, shape: Any = None, *args: Any, **kwargs: Any) -> None:
        original(self, (shape,) if isinstance(shape, int) else shape, *args, **kwargs)

    # Keras records the arguments of every layer by the signature of its constructor.
    init.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    keras.layers.InputLayer.__init__ = init


def _weights_of_all(rows: Rows, weights: Mapping[int, float]) -> dict[int, float]:
    """1 for all others, as `fit` has it on arrays; on a data set Keras fails at classes behind the last given."""
    last = max(weights)
    for array in (rows.labels or {}).values():
        width = math.prod(array.shape[1:])
        last = max(last, width - 1 if width > 1 else math.ceil(array[rows.index].max()))
    return {number: weights.get(number, 1.0) for number in range(last + 1)}


def _check_data(model: keras.Model, training: Training) -> None:
    """Runs the model and its loss on the first rows, so that data which do not fit fail before the first step."""
    if len(training.rows) == 0:
        raise Failure("EMPTY_STREAM", "there are no rows to train on")
    samples, labels = training.rows.first(training.batch_size)
    _check_samples(model, samples, training.rows.fields)
    feed = _Feed(model, training.keep_integers)
    inputs = feed.inputs({name: tf.constant(array) for name, array in samples.items()})
    try:
        outputs = model(inputs, training=False)
    except Exception as error:
        raise unless_theirs(error, _samples_mismatch(samples, error, training.rows.fields)) from error
    if labels is None and _needs_labels(model):
        raise no_labels()
    if labels is None or type(model).train_step is not keras.Model.train_step:
        return
    if _is_sparse(model.loss) and hasattr(outputs, "shape"):
        check_class_numbers(training.rows, int(outputs.shape[-1]), getattr(model.loss, "ignore_class", None))
    _check_labels(model, inputs, labels, outputs)


def _needs_labels(model: keras.Model) -> bool:
    """Without a loss in compile() there are those that layers add; a step or a loss of its own may do without, too."""
    kind, plain = type(model), keras.Model
    return kind.train_step is plain.train_step and kind.compute_loss is plain.compute_loss and model.loss is not None


def _check_labels(model: keras.Model, inputs: Any, labels: Columns, outputs: Any) -> None:
    target = next(iter(labels.values())) if len(labels) == 1 else dict(labels)
    try:
        model.compute_loss(x=inputs, y=tf.nest.map_structure(tf.constant, target), y_pred=outputs, training=False)
    except Exception as error:
        answered = tf.nest.map_structure(lambda tensor: tuple(tensor.shape[1:]), outputs)
        taken = f"{answered} with this loss ({_first_line(error)})"
        mismatch = schema_mismatch("labels", shapes_of(labels), taken)
        raise unless_theirs(error, mismatch) from error


def _check_samples(model: keras.Model, columns: Columns, fields: Sequence[Field] = ()) -> None:
    """`fields`: what the rows consist of, for the message."""
    declared = _declared_inputs(model)
    if not declared:
        return
    given = columns if len(declared) > 1 or len(columns) > 1 else dict(zip(declared, columns.values(), strict=True))
    if any(name not in given or not _fits(given[name], tensor) for name, tensor in declared.items()):
        raise schema_mismatch("samples", shapes_of(columns, fields), _shapes_taken(declared))
    if len(given) > len(declared):
        raise schema_mismatch("samples", shapes_of(columns, fields), f"only {_shapes_taken(declared)}")


def _fits(array: np.ndarray, declared: Any) -> bool:
    shape, wanted = tuple(array.shape[1:]), tuple(declared.shape[1:])
    if {shape, wanted} == {(), (1,)}:
        return True  # Keras makes the one of the other.
    return len(shape) == len(wanted) and all(w in (None, g) for g, w in zip(shape, wanted, strict=True))


def _shapes_taken(declared: Mapping[str, Any]) -> str:
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in declared.items()}
    if len(shapes) == 1:
        return str(next(iter(shapes.values())))
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _samples_mismatch(samples: Columns, error: Exception, fields: Sequence[Field] = ()) -> Failure:
    return schema_mismatch("samples", shapes_of(samples, fields), f"something else ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]


def _is_sparse(loss: Any) -> bool:
    return loss in SPARSE_LOSSES or isinstance(loss, keras.losses.SparseCategoricalCrossentropy)


def _declared(model: keras.Model, which: str) -> list[Any]:
    """`model.inputs` or `model.outputs`; nothing for a model that does not declare them."""
    try:
        return list(getattr(model, which, None) or [])
    except (AttributeError, ValueError):
        return []


def _dtype(tensor: Any) -> str:
    return str(tf.as_dtype(tensor.dtype).as_numpy_dtype.__name__)


def _spec(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "dtype": _dtype(tensor), "shape": [-1 if size is None else size for size in tensor.shape]}


def _declared_inputs(model: keras.Model) -> dict[str, Any]:
    """The declared inputs by the names that they are fed by; nothing for a model that does not declare them."""
    tensors = _declared(model, "inputs")
    structure = getattr(_graph(model), "input", None) if tensors else None
    if isinstance(structure, Mapping):
        return dict(structure)
    return {str(tensor.name): tensor for tensor in tensors}


def _declared_outputs(model: keras.Model) -> dict[str, Any]:
    """The declared outputs by the names that predictions carry; nothing for a model that does not declare them."""
    tensors = _declared(model, "outputs")
    structure = getattr(_graph(model), "output", None) if tensors else None
    if isinstance(structure, Mapping):
        return dict(structure)
    return dict(zip(getattr(_graph(model), "output_names", []), tensors, strict=False))


def _batch_spec(name: str, tensor: Any) -> dict[str, Any]:
    """Of one of any number of rows."""
    spec = _spec(name, tensor)
    return {**spec, "shape": [-1, *spec["shape"][1:]]}


def _export_specs(model: keras.Model, job: ExportJob) -> Any:
    """What the model was fed with, in the structure of its inputs."""
    specs = [tf.TensorSpec([None if n < 0 else n for n in each.shape], each.dtype, each.name) for each in job.inputs]
    if len(specs) == 1:
        return specs[0]
    structure = getattr(_graph(model), "input", None) if _declared(model, "inputs") else {}
    return specs if isinstance(structure, list | tuple) else {spec.name: spec for spec in specs}


def _graph(model: keras.Model) -> Any:
    """What knows the structure of inputs and outputs: a Sequential keeps the graph of its layers apart."""
    return getattr(model, "_functional", None) or model


def _fixed_batch(model: keras.Model) -> int | None:
    """The number of rows that a model declared with `batch_size` takes at a time."""
    sizes = {tensor.shape[0] for tensor in _declared_inputs(model).values() if tensor.shape[0] is not None}
    return int(min(sizes)) if sizes else None


def _padded(columns: Columns, start: int, size: int) -> dict[str, np.ndarray]:
    def pad(array: np.ndarray) -> np.ndarray:
        part = array[start : start + size]
        return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])

    return {name: pad(array) for name, array in columns.items()}


def _of_rows(outputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Raises SCHEMA_MISMATCH for another number of rows: who would cut the padding off would cut off others."""
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            shape = list(array.shape)
            raise Failure("SCHEMA_MISMATCH", f"the model's output {name!r} has the shape {shape} for {rows} rows")
    return outputs


def _named_outputs(model: keras.Model, answers: Any) -> dict[str, np.ndarray]:
    if isinstance(answers, Mapping):
        named = dict(answers)
    else:
        flat = list(answers) if isinstance(answers, list | tuple) else [answers]
        names = list(_declared_outputs(model))
        if len(names) != len(flat):
            names = ["output"] if len(flat) == 1 else [f"output_{number}" for number in range(len(flat))]
        named = dict(zip(names, flat, strict=True))
    return {str(name): np.asarray(tensor, dtype=np.float32) for name, tensor in named.items()}


def _build_as_saved(model: keras.Model, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        saved = json.loads(archive.read("config.json")).get("build_config") or {}
    if "input_shape" not in saved:
        raise ValueError("the saved model does not say which shape it was built for")
    model.build(saved["input_shape"] if isinstance(saved["input_shape"], dict) else tuple(saved["input_shape"]))
