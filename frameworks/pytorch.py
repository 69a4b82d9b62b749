"""PyTorch, trained by Ignite."""

from __future__ import annotations

import inspect
import itertools
import os
import random
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite
import numpy as np
import torch
import torch.nn.functional as functional
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss, Metric
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils.data import DataLoader

from frameworks import torch_state
from frameworks.arguments import Known, boolean, number, one_of, parameters_of, whole
from frameworks.checkpoints import START, Position
from frameworks.choice import choose_model
from frameworks.code import unless_theirs
from frameworks.course import Course
from frameworks.exports.job import ExportJob
from frameworks.failure import Failure, no_labels, schema_mismatch
from frameworks.fields import Columns, Field, Inputs
from frameworks.framework import Described, Plan, Scores, Training
from frameworks.framework import Events as TrainingEvents
from frameworks.rows import EpochOrder, Rows, check_class_numbers, shapes_of
from frameworks.tree import Tree
from frameworks.work import Work, threads_for

LOADER_CHECKS = {
    "shuffle": boolean,
    "drop_last": boolean,
    "num_workers": whole(0),
    "pin_memory": boolean,
    "timeout": number(0),
    "prefetch_factor": whole(1, optional=True),
    "persistent_workers": boolean,
}
FIT_CHECKS = {
    "max_epochs": whole(1),
    "epoch_length": whole(1, optional=True),
    "amp_mode": one_of(None, "amp"),
    "gradient_accumulation_steps": whole(1),
    **LOADER_CHECKS,
}
EVALUATE_CHECKS = {"epoch_length": whole(1, optional=True), **LOADER_CHECKS}
METHODS = {
    "loss_fn": "a loss such as nn.CrossEntropyLoss()",
    "optimizer": "an optimizer such as torch.optim.Adam(self.parameters())",
    "metrics": 'metrics by name, such as {"accuracy": Accuracy()}',
}


class PyTorch:
    """PyTorch modules trained by Ignite, behind the protocol of frameworks.framework."""

    def __init__(self) -> None:
        self.version = f"torch {torch.__version__}, ignite {ignite.__version__}"
        loop = parameters_of(Engine.run, create_supervised_trainer)
        loader = parameters_of(DataLoader.__init__)
        self.fit_arguments = Known.of(dict.fromkeys([*loop, *loader]), FIT_CHECKS)
        self.evaluate_arguments = Known.of(dict.fromkeys([*loop, *loader]), EVALUATE_CHECKS)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        if threads:
            torch.set_num_threads(threads)
        self._threads = torch.get_num_threads()
        torch_state.notice_schedulers()

    def warm_up(self, *, trains: bool) -> None:
        """Makes a tiny model, for a training with its optimizer: the first one of a process imports a compiler, which
        takes a second and 35 MB.
        """
        model = nn.Linear(2, 2)
        if trains:
            torch.optim.Adam(model.parameters())
        self.describe(model)

    def begin(self) -> None:
        """PyTorch keeps nothing."""

    def seed(self, seed: int) -> None:
        """Seeds Python's, numpy's and PyTorch's random numbers."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def names(self) -> dict[str, Any]:
        """What code finds without importing it."""
        return {
            "torch": torch,
            "nn": nn,
            "F": functional,
            "optim": torch.optim,
            "ignite": ignite,
            "Accuracy": Accuracy,
            "Loss": Loss,
            "np": np,
        }

    def find_model(self, variables: Mapping[str, Any]) -> nn.Module:
        """The module among the code's variables, with the three functions that a training needs."""
        model: nn.Module = choose_model(variables, _is_model, "an instance of your nn.Module")
        missing = [name for name in METHODS if not callable(getattr(model, name, None))]
        if missing:
            wanted = "; ".join(f"`{name}(self)` that returns {METHODS[name]}" for name in missing)
            raise Failure("NO_MODEL", f"the class {type(model).__name__} has to define {wanted}")
        return model

    def check_trainable(self, model: nn.Module) -> None:
        """Calls the model's three functions once."""
        _Parts.of(model)

    def describe(self, model: nn.Module) -> Described:
        """The parameters, and inputs and outputs where a try with the first layer's size succeeds.

        Of several inputs only the names are known: their shapes are empty.
        """
        sizes = [(int(parameter.numel()), bool(parameter.requires_grad)) for parameter in _known_parameters(model)]
        described = Described(
            parameter_count=sum(size for size, _ in sizes),
            trainable_parameter_count=sum(size for size, trained in sizes if trained),
            summary=str(model),
        )
        described.inputs = [{"name": name, "dtype": "float32", "shape": []} for name in self.inputs(model).required]
        example = None if described.inputs else _example(model)
        answers = None if example is None else _try(model, example)
        if example is not None and answers is not None:
            described.inputs = [{"name": _input_name(model), "dtype": "float32", "shape": [-1, *example.shape[1:]]}]
            described.outputs = [
                {"name": name, "dtype": "float32", "shape": [-1, *array.shape[1:]]} for name, array in answers.items()
            ]
        return described

    def describe_fed(self, model: nn.Module, columns: Columns, *, keep_integers: bool, declares: bool) -> Described:
        """Inputs and outputs as the rows have them: a module declares neither."""
        given = self._samples(model, columns, keep_integers)
        named = given if isinstance(given, dict) else {_input_name(model): given}
        described = self.describe(model)
        described.inputs = [_batch_spec(name, tensor.cpu().numpy()) for name, tensor in named.items()]
        answers = self.predict(model, columns, keep_integers=keep_integers)
        described.outputs = [_batch_spec(name, array) for name, array in answers.items()]
        return described

    def inputs(self, model: nn.Module) -> Inputs:
        """The parameters of forward(), if it needs several."""
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = [each for each in _forward_parameters(model) if each.kind in by_name]
        required = tuple(each.name for each in named if each.default is each.empty)
        if len(required) < 2:
            return Inputs()
        return Inputs(required, tuple(each.name for each in named if each.default is not each.empty))

    def fit(self, model: nn.Module, training: Training, begin: Callable[[Plan], TrainingEvents]) -> None:
        """Trains by Ignite's supervised trainer; metrics of the training are those of its own outputs."""
        arguments = {"max_epochs": 1, "shuffle": True, "drop_last": False, **training.arguments}
        model.to(self._device)
        parts = _Parts.of(model)
        convert, work = self._check_data(model, parts, training)
        order = EpochOrder(
            rows=len(training.rows),
            batch_size=training.batch_size,
            shuffle=arguments["shuffle"],
            seed=training.seed,
            steps_per_epoch=arguments.get("epoch_length"),
            drop_last=arguments["drop_last"],
        )
        if order.steps == 0:
            message = f"drop_last leaves no batch of {training.batch_size} in {len(training.rows)} rows"
            raise Failure("INVALID_FIELD", message)
        plan = Plan(arguments["max_epochs"], order.steps, training.batch_size)
        course = Course(plan, begin, training.checkpoints)
        mean_loss = _MeanLoss()
        trainer = self._trainer(model, parts, arguments, mean_loss)
        state = _State(model, parts, trainer, mean_loss, arguments.get("gradient_accumulation_steps", 1))
        trainer.on(Events.ITERATION_COMPLETED)(lambda: course.step(mean_loss.last, 1, state.take))

        @trainer.on(Events.EPOCH_COMPLETED)
        def report() -> None:
            splits = {"training": {"loss": mean_loss.take(), **_numbers(trainer.state.metrics)}}
            if training.validation is not None:
                splits["validation"] = self._evaluate(model, training.validation, {}, training.batch_size, convert)
            course.epoch(splits, state.take)

        if course.resumed is not None:
            state.put(course.resumed.state, course.position, plan)
        if course.is_over:
            return  # Ignite would begin anew.
        data = _Feed(training.rows, convert, _loader_arguments(arguments))
        with threads_for(work, self._threads), closing(data.epochs(order, course.position)) as batches:
            trainer.run(batches, max_epochs=plan.epochs, epoch_length=plan.steps)

    def evaluate(
        self, model: nn.Module, rows: Rows, arguments: Mapping[str, Any], batch_size: int, *, keep_integers: bool
    ) -> dict[str, float]:
        """The model's own metrics, and its loss, over the rows."""
        model.to(self._device)
        convert, work = self._conversion(model, _Parts.of(model), rows, batch_size, keep_integers)
        with threads_for(work, self._threads):
            return self._evaluate(model, rows, arguments, batch_size, convert)

    def scores(self, model: Any, rows: Rows, batch_size: int, *, keep_integers: bool) -> Scores | None:
        """The model's answers for all rows, if it has a single output."""
        answers = [
            self.predict(model, samples, keep_integers=keep_integers)
            for samples, _ in rows.batches(max(batch_size, 256))
        ]
        if not answers or len(answers[0]) != 1:
            return None
        outputs = np.concatenate([next(iter(answer.values())) for answer in answers])
        return Scores(outputs, logits=isinstance(model.loss_fn(), nn.BCEWithLogitsLoss))

    def predict(self, model: nn.Module, columns: Columns, *, keep_integers: bool) -> dict[str, np.ndarray]:
        """float32 outputs by name, in inference mode."""
        model.to(self._device)
        model.eval()
        with torch.inference_mode():
            try:
                answers = _call(model, self._samples(model, columns, keep_integers))
            except Exception as error:
                raise unless_theirs(error, _samples_mismatch(model, columns, error)) from error
        return _named_outputs(answers)

    def warm(self, model: nn.Module, max_rows: int, *, keep_integers: bool) -> None:
        """Runs the model once, where its inputs could be found."""
        example = _example(model)
        if example is not None:
            model.to(self._device)
            _try(model, torch.zeros((max_rows, *example.shape[1:]), device=self._device))

    def save(self, model: nn.Module, folder: Path) -> list[dict[str, str]]:
        """Writes `model.safetensors`: parameters and buffers, no code."""
        save_model(model, str(folder / "model.safetensors"))
        return [{"name": "model.safetensors", "media_type": "application/vnd.safetensors"}]

    def load_weights(self, model: nn.Module, path: Path) -> nn.Module:
        """Takes parameters and buffers of a `.safetensors` file."""
        try:
            load_model(model, str(path), strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise Failure("CHECKPOINT_CORRUPT", f"{path.name} does not hold this model's weights: {error}") from error
        return model.to(self._device)

    def export(self, model: nn.Module, job: ExportJob) -> None:
        """Writes the model in another format."""
        from frameworks.exports import torch_forms  # It takes a second, and few workers export.

        torch_forms.export(model, job, by_name=len(self.inputs(model).required) > 1)

    def _samples(self, model: nn.Module, columns: Columns, keep_integers: bool) -> Any:
        dtype = _float_type(model)
        tensors = {name: self._sample(array, dtype, keep_integers) for name, array in columns.items()}
        return next(iter(tensors.values())) if len(tensors) == 1 else tensors

    def _sample(self, array: np.ndarray, dtype: torch.dtype, keep_integers: bool) -> torch.Tensor:
        if array.dtype.kind in "ui" and keep_integers:
            return torch.from_numpy(array.astype(np.int64)).to(self._device)
        return _tensor(array).to(self._device, dtype)

    def _check_data(self, model: nn.Module, parts: _Parts, training: Training) -> tuple[Conversion, Work]:
        """Runs model and loss on the first rows, so that data which do not fit fail before the first step."""
        if len(training.rows) == 0:
            raise Failure("EMPTY_STREAM", "there are no rows to train on")
        if training.rows.labels is None:
            raise no_labels()
        return self._conversion(model, parts, training.rows, training.batch_size, training.keep_integers)

    def _conversion(
        self, model: nn.Module, parts: _Parts, rows: Rows, batch_size: int, keep_integers: bool
    ) -> tuple[Conversion, Work]:
        """How labels have to look for this model and loss, and the work of a batch: found by a try with the first."""
        samples, labels = rows.first(batch_size)
        model.eval()
        work = Work()
        with torch.no_grad():
            try:
                with work.counted(model):
                    answers = _call(model, self._samples(model, samples, keep_integers))
            except Exception as error:
                raise unless_theirs(error, _samples_mismatch(model, samples, error, rows.fields)) from error
            by_class = _learns_classes(parts.loss)
            convert = Conversion.fitting(self, model, labels, answers, keep_integers, by_class=by_class)
            if by_class and convert.classes:
                check_class_numbers(rows, convert.classes, getattr(parts.loss, "ignore_index", None))
            try:
                _, target = convert(samples, labels)
                parts.loss(answers, target)
            except Exception as error:
                raise unless_theirs(error, _labels_mismatch(labels, answers, error)) from error
        return convert, work

    def _trainer(
        self,
        model: nn.Module,
        parts: _Parts,
        arguments: Mapping[str, Any],
        mean_loss: _MeanLoss,
    ) -> Engine:
        def after_step(_: Any, y: Any, y_pred: Any, loss: torch.Tensor) -> tuple[Any, Any]:
            mean_loss.add(loss.item(), len(y))
            return _detached(y_pred), y

        trainer = create_supervised_trainer(
            model,
            parts.optimizer,
            parts.loss,
            device=self._device,
            output_transform=after_step,
            amp_mode=arguments.get("amp_mode"),
            gradient_accumulation_steps=arguments.get("gradient_accumulation_steps", 1),
            model_fn=_call,
        )

        for name, metric in parts.metrics.items():
            metric.attach(trainer, name)
        return trainer

    def _evaluate(
        self, model: nn.Module, rows: Rows, arguments: Mapping[str, Any], batch_size: int, convert: Conversion
    ) -> dict[str, float]:
        parts = _Parts.of(model)
        metrics = {"loss": Loss(parts.loss), **parts.metrics}
        evaluator = create_supervised_evaluator(model, metrics=metrics, device=self._device, model_fn=_call)
        order = EpochOrder(
            rows=len(rows),
            batch_size=batch_size,
            shuffle=arguments.get("shuffle", False),
            steps_per_epoch=arguments.get("epoch_length"),
            drop_last=arguments.get("drop_last", False),
        )
        data = _Feed(rows, convert, _loader_arguments(arguments))
        with closing(data.epochs(order)) as batches:
            evaluator.run(batches, max_epochs=1, epoch_length=order.steps)
        return _numbers(evaluator.state.metrics)


@dataclass(frozen=True)
class _Parts:
    """What a model's class provides for its training."""

    loss: Any
    optimizer: torch.optim.Optimizer
    metrics: dict[str, Metric]

    @classmethod
    def of(cls, model: Any) -> _Parts:
        """Calls the three functions and looks at what they return."""
        loss, optimizer, metrics = model.loss_fn(), model.optimizer(), model.metrics()
        right = {
            "loss_fn": callable(loss),
            "optimizer": isinstance(optimizer, torch.optim.Optimizer),
            "metrics": isinstance(metrics, Mapping) and all(isinstance(one, Metric) for one in metrics.values()),
        }
        values = {"loss_fn": loss, "optimizer": optimizer, "metrics": metrics}
        for name, is_right in right.items():
            if not is_right:
                given = type(values[name]).__name__
                raise Failure("NO_MODEL", f"`{name}` returns a {given}; it has to return {METHODS[name]}")
        return cls(loss, optimizer, {str(name): metric for name, metric in metrics.items()})


class _MeanLoss:
    """The mean loss of an epoch's rows, as they were when they were learnt from."""

    def __init__(self) -> None:
        self.sum, self.rows = 0.0, 0
        self.last = 0.0
        """The loss of the last step."""

    def add(self, loss: float, rows: int) -> None:
        """One step."""
        self.last = loss
        self.sum += loss * rows
        self.rows += rows

    def take(self) -> float:
        """The mean, to begin again."""
        mean = self.sum / max(1, self.rows)
        self.sum, self.rows = 0.0, 0
        return mean


@dataclass(frozen=True)
class _State:
    """Everything that changes while a model is trained, after any of its steps."""

    model: nn.Module
    parts: _Parts
    trainer: Engine
    mean_loss: _MeanLoss
    accumulation: int

    def take(self) -> Tree | None:
        """The state of this moment; None when weights are no numbers any more."""
        if not torch_state.has_finite_weights(self.model):
            return None
        return {
            "model": torch_state.take_model(self.model),
            "optimizer": torch_state.take_optimizer(self.parts.optimizer),
            "random": torch_state.take_random(),
            "gradients": self._takes_gradients and torch_state.take_gradients(self.model),
            "epoch": None if self._is_between_epochs else self._take_epoch(),
        }

    def put(self, state: Mapping[str, Any], position: Position, plan: Plan) -> None:
        """The state as it was, as soon as the trainer runs."""
        torch_state.put_model(self.model, state["model"])
        torch_state.put_optimizer(self.parts.optimizer, state["optimizer"])
        if state["gradients"]:
            torch_state.put_gradients(self.model, state["gradients"])
        iteration = position.epoch * plan.steps + position.step
        self.trainer.load_state_dict({"iteration": iteration, "epoch_length": plan.steps, "max_epochs": plan.epochs})
        if state["epoch"] is not None:
            # After the metrics' own handlers, which begin anew.
            self.trainer.on(Events.EPOCH_STARTED(once=position.epoch + 1))(lambda: self._put_epoch(state["epoch"]))
        # A DataLoader draws a number when it begins.
        self.trainer.on(Events.ITERATION_STARTED(once=iteration + 1))(lambda: torch_state.put_random(state["random"]))

    @property
    def _takes_gradients(self) -> bool:
        return bool(self.trainer.state.iteration % self.accumulation)

    @property
    def _is_between_epochs(self) -> bool:
        return self.mean_loss.rows == 0

    def _take_epoch(self) -> Tree:
        metrics = {name: torch_state.take_metric(metric) for name, metric in self.parts.metrics.items()}
        return {"loss": (self.mean_loss.sum, self.mean_loss.rows), "metrics": metrics}

    def _put_epoch(self, state: Mapping[str, Any]) -> None:
        self.mean_loss.sum, self.mean_loss.rows = state["loss"]
        for name, metric in self.parts.metrics.items():
            torch_state.put_metric(metric, state["metrics"][name])


@dataclass(frozen=True)
class Conversion:
    """Rows as arrays → tensors as the model and its loss take them."""

    framework: PyTorch
    model: nn.Module
    keep_integers: bool
    label_type: torch.dtype
    label_shape: tuple[int, ...]
    """Shape of one label."""
    classes: int
    """Number of outputs when labels are class numbers; otherwise 0."""

    @classmethod
    def fitting(
        cls,
        framework: PyTorch,
        model: nn.Module,
        labels: Columns | None,
        answers: Any,
        keep_integers: bool,
        *,
        by_class: bool,
    ) -> Conversion:
        """Class numbers become int64 scalars, targets of a single score float32 in the score's shape.

        by_class: the loss takes class numbers, so that scalars of any type are some.
        """
        if labels is None or len(labels) != 1:
            names = sorted(labels or {})
            raise Failure("SCHEMA_MISMATCH", f"a PyTorch model learns from one label per row, not from {names}")
        array = next(iter(labels.values()))
        shape, answer = tuple(array.shape[1:]), answers if isinstance(answers, torch.Tensor) else None
        scalar = shape in ((), (1,))
        if scalar and answer is not None and (answer.ndim == 1 or tuple(answer.shape[1:]) == (1,)):
            # Otherwise losses such as MSELoss would spread (rows,) against (rows, 1) into (rows, rows).
            return cls(framework, model, keep_integers, answer.dtype, tuple(answer.shape[1:]), 0)
        if scalar and (by_class or array.dtype.kind in "uib"):
            classes = int(answer.shape[1]) if answer is not None and answer.ndim > 1 else 0
            return cls(framework, model, keep_integers, torch.int64, (), classes)
        label_type = _float_type(model) if array.dtype.kind == "f" or not scalar else torch.int64
        return cls(framework, model, keep_integers, label_type, shape, 0)

    def __call__(self, samples: Columns, labels: Columns | None) -> tuple[Any, torch.Tensor]:
        """One batch."""
        array = next(iter((labels or {}).values()))
        target = _tensor(array).to(self.framework._device, self.label_type)
        inputs = self.framework._samples(self.model, samples, self.keep_integers)
        return inputs, target.reshape(len(array), *self.label_shape)


class _Feed:
    """Batches for an engine. As the data set of a DataLoader it gives whole batches: one gather makes one batch."""

    def __init__(self, rows: Rows, convert: Conversion, loader_arguments: Mapping[str, Any]) -> None:
        self._rows, self._convert, self._loader_arguments = rows, convert, loader_arguments

    def epochs(self, order: EpochOrder, start: Position = START) -> Generator[tuple[Any, torch.Tensor]]:
        """The batches of all epochs from `start` on, one after the other, without an end: close it."""
        if not self._loader_arguments:
            for positions in _endless(order, start):
                yield self._convert(*self._rows.take(positions))
        # Closing the generator ends the loader's processes. The garbage collector would wait for them in vain.
        for batch in self._loader(order, start):
            yield self._convert(*batch)

    def _loader(self, order: EpochOrder, start: Position) -> Any:
        return DataLoader(
            self,  # type: ignore[arg-type]
            batch_sampler=_Positions(order, start),  # type: ignore[arg-type]
            collate_fn=_as_it_is,
            **self._loader_arguments,
        )

    def __getitems__(self, positions: Any) -> tuple[Columns, Columns | None]:
        """Called by a DataLoader, perhaps in a process of its own."""
        return self._rows.take(positions)


class _Positions:
    """A batch sampler over all epochs."""

    def __init__(self, order: EpochOrder, start: Position) -> None:
        self._order, self._start = order, start

    def __iter__(self) -> Iterator[np.ndarray]:
        return _endless(self._order, self._start)


def _endless(order: EpochOrder, start: Position) -> Iterator[np.ndarray]:
    yield from order.batches(start.epoch, start.step)
    for epoch in itertools.count(start.epoch + 1):
        yield from order.batches(epoch)


def _as_it_is(batch: Any) -> Any:
    return batch


def _loader_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a DataLoader is needed for."""
    own = ("shuffle", "drop_last")
    return {name: value for name, value in arguments.items() if name in LOADER_CHECKS and name not in own}


def _is_model(value: Any) -> bool:
    return isinstance(value, nn.Module)


def _known_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [one for one in model.parameters() if not isinstance(one, nn.parameter.UninitializedParameter)]


def _float_type(model: nn.Module) -> torch.dtype:
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    # Mapped files are read-only, which from_numpy warns of; types that PyTorch hardly supports become wider ones.
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _example(model: nn.Module) -> torch.Tensor | None:
    """One row of zeros as the first layer with parameters takes it; None where that does not say the whole shape."""
    leaves = [leaf for leaf in model.modules() if not list(leaf.children())]
    first = next((leaf for leaf in leaves if any(True for _ in leaf.parameters(recurse=False))), None)
    if isinstance(first, nn.Linear) and not isinstance(first, nn.LazyLinear):
        return torch.zeros((1, first.in_features), dtype=first.weight.dtype, device=first.weight.device)
    return None


def _try(model: nn.Module, example: torch.Tensor) -> dict[str, np.ndarray] | None:
    """The model's answers to an example, or None when it does not take it. Leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _named_outputs(model(example))
    except Exception:
        return None  # Only an attempt: the person's forward() may want something else altogether.
    finally:
        model.train(was_training)


def _forward_parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []  # A compiled function may have none that Python knows.


def _input_name(model: nn.Module) -> str:
    return next((each.name for each in _forward_parameters(model)), "input")


def _batch_spec(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}


def _call(model: nn.Module, inputs: Any) -> Any:
    """Several named inputs go to forward() by name."""
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, torch.Tensor) else outputs


def _named_outputs(answers: Any) -> dict[str, np.ndarray]:
    if isinstance(answers, torch.Tensor):
        named = {"output": answers}
    elif isinstance(answers, Mapping):
        named = {str(name): tensor for name, tensor in answers.items()}
    elif isinstance(answers, list | tuple):
        named = {f"output_{number}": tensor for number, tensor in enumerate(answers)}
    else:
        raise Failure("CODE_ERROR", f"forward() returns a {type(answers).__name__}; it has to return tensors")
    return {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in named.items()}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that are one number; others, such as a confusion matrix, are no metric of an epoch."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            found[name] = float(value.item())
        elif isinstance(value, int | float | np.number):
            found[name] = float(value)
    return found


def _samples_mismatch(model: nn.Module, samples: Columns, error: Exception, fields: Sequence[Field] = ()) -> Failure:
    """`fields`: what the rows consist of."""
    return schema_mismatch("samples", shapes_of(samples, fields), f"{_taken(model, error)} ({error})"[:1000])


def _taken(model: nn.Module, error: Exception) -> str:
    """What the model takes, as far as it can be known: the shape that its first layer gives away, and who refused."""
    example = _example(model)
    known = example is not None and _try(model, example) is not None
    shape = str(tuple(example.shape[1:])) if example is not None and known else "something else"
    layer = _refusing_layer(model, error)
    return f"{shape}: its layer {layer} refuses them" if layer else shape


def _refusing_layer(model: nn.Module, error: Exception) -> str:
    """The innermost layer that the error came through, such as `net.0, Linear(in_features=4, …)`."""
    names = {id(layer): name for name, layer in model.named_modules() if name and not list(layer.children())}
    through = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers = [layer for layer in through if id(layer) in names]
    return f"{names[id(layers[-1])]}, {layers[-1]}," if layers else ""


def _learns_classes(loss: Any) -> bool:
    return isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or loss in (functional.cross_entropy, functional.nll_loss)


def _labels_mismatch(labels: Columns | None, answers: Any, error: Exception) -> Failure:
    answered = tuple(answers.shape[1:]) if isinstance(answers, torch.Tensor) else type(answers).__name__
    types = ", ".join(sorted({str(array.dtype) for array in (labels or {}).values()}))
    actual = f"{shapes_of(labels or {})} and the type {types}"
    return schema_mismatch("labels", actual, f"{answered} with this loss ({error})"[:1000])
