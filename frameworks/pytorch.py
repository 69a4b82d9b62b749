"""PyTorch, trained by Ignite."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import ignite
import numpy as np
import torch
import torch.nn.functional as functional
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils.data import DataLoader

from frameworks.arguments import Known, one_of, parameters_of, whole
from frameworks.choice import choose_model
from frameworks.code import unless_theirs
from frameworks.course import Course
from frameworks.exports.job import ExportJob
from frameworks.failure import Failure, no_labels
from frameworks.fields import Columns, Inputs
from frameworks.framework import Described, Plan, Scores, Training
from frameworks.framework import Events as TrainingEvents
from frameworks.rows import EpochOrder, Rows, check_class_numbers
from frameworks.torch_batches import LOADER_CHECKS, Conversion, Feed, loader_arguments, tensors_of
from frameworks.torch_modules import (
    batch_spec,
    call,
    example_of,
    forward_parameters,
    input_name,
    labels_mismatch,
    named_outputs,
    samples_mismatch,
    try_out,
)
from frameworks.torch_parts import METHODS, MeanLoss, Parts, TrainingState
from frameworks.torch_state import notice_schedulers, schedulers_of
from frameworks.work import Work, threads_for

FIT_CHECKS = {
    "max_epochs": whole(1),
    "epoch_length": whole(1, optional=True),
    "amp_mode": one_of(None, "amp"),
    "gradient_accumulation_steps": whole(1),
    **LOADER_CHECKS,
}
EVALUATE_CHECKS = {"epoch_length": whole(1, optional=True), **LOADER_CHECKS}


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
        notice_schedulers()

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
        Parts.of(model)

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
        example = None if described.inputs else example_of(model)
        answers = None if example is None else try_out(model, example)
        if example is not None and answers is not None:
            described.inputs = [{"name": input_name(model), "dtype": "float32", "shape": [-1, *example.shape[1:]]}]
            described.outputs = [
                {"name": name, "dtype": "float32", "shape": [-1, *array.shape[1:]]} for name, array in answers.items()
            ]
        return described

    def describe_fed(self, model: nn.Module, columns: Columns, *, keep_integers: bool, declares: bool) -> Described:
        """Inputs and outputs as the rows have them: a module declares neither."""
        given = tensors_of(model, columns, self._device, keep_integers=keep_integers)
        named = given if isinstance(given, dict) else {input_name(model): given}
        described = self.describe(model)
        described.inputs = [batch_spec(name, tensor.cpu().numpy()) for name, tensor in named.items()]
        answers = self.predict(model, columns, keep_integers=keep_integers)
        described.outputs = [batch_spec(name, array) for name, array in answers.items()]
        return described

    def inputs(self, model: nn.Module) -> Inputs:
        """The parameters of forward(), if it needs several."""
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = [each for each in forward_parameters(model) if each.kind in by_name]
        required = tuple(each.name for each in named if each.default is each.empty)
        if len(required) < 2:
            return Inputs()
        return Inputs(required, tuple(each.name for each in named if each.default is not each.empty))

    def fit(self, model: nn.Module, training: Training, begin: Callable[[Plan], TrainingEvents]) -> None:
        """Trains by Ignite's supervised trainer; metrics of the training are those of its own outputs."""
        arguments = {"max_epochs": 1, "shuffle": True, "drop_last": False, **training.arguments}
        model.to(self._device)
        parts = Parts.of(model)
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
        mean_loss = MeanLoss()
        trainer = self._trainer(model, parts, arguments, mean_loss)
        accumulation, schedulers = arguments.get("gradient_accumulation_steps", 1), len(schedulers_of(parts.optimizer))
        state = TrainingState(model, parts, trainer, mean_loss, accumulation, schedulers)
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
        data = Feed(training.rows, convert, loader_arguments(arguments))
        with threads_for(work, self._threads), closing(data.epochs(order, course.position)) as batches:
            trainer.run(batches, max_epochs=plan.epochs, epoch_length=plan.steps)

    def evaluate(
        self, model: nn.Module, rows: Rows, arguments: Mapping[str, Any], batch_size: int, *, keep_integers: bool
    ) -> dict[str, float]:
        """The model's own metrics, and its loss, over the rows."""
        model.to(self._device)
        convert, work = self._conversion(model, Parts.of(model), rows, batch_size, keep_integers)
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
                answers = call(model, tensors_of(model, columns, self._device, keep_integers=keep_integers))
            except Exception as error:
                raise unless_theirs(error, samples_mismatch(model, columns, error)) from error
        return named_outputs(answers)

    def warm(self, model: nn.Module, max_rows: int, *, keep_integers: bool) -> None:
        """Runs the model once, where its inputs could be found."""
        example = example_of(model)
        if example is not None:
            model.to(self._device)
            try_out(model, torch.zeros((max_rows, *example.shape[1:]), device=self._device))

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

    def _check_data(self, model: nn.Module, parts: Parts, training: Training) -> tuple[Conversion, Work]:
        """Runs model and loss on the first rows, so that data which do not fit fail before the first step."""
        if len(training.rows) == 0:
            raise Failure("EMPTY_STREAM", "there are no rows to train on")
        if training.rows.labels is None:
            raise no_labels()
        return self._conversion(model, parts, training.rows, training.batch_size, training.keep_integers)

    def _conversion(
        self, model: nn.Module, parts: Parts, rows: Rows, batch_size: int, keep_integers: bool
    ) -> tuple[Conversion, Work]:
        """How labels have to look for this model and loss, and the work of a batch: found by a try with the first."""
        samples, labels = rows.first(batch_size)
        model.eval()
        work = Work()
        with torch.no_grad():
            try:
                with work.counted(model):
                    answers = call(model, tensors_of(model, samples, self._device, keep_integers=keep_integers))
            except Exception as error:
                raise unless_theirs(error, samples_mismatch(model, samples, error, rows.fields)) from error
            by_class = _learns_classes(parts.loss)
            convert = Conversion.fitting(model, self._device, labels, answers, keep_integers, by_class=by_class)
            if by_class and convert.classes:
                check_class_numbers(rows, convert.classes, getattr(parts.loss, "ignore_index", None))
            try:
                _, target = convert(samples, labels)
                parts.loss(answers, target)
            except Exception as error:
                raise unless_theirs(error, labels_mismatch(labels, answers, error)) from error
        return convert, work

    def _trainer(
        self,
        model: nn.Module,
        parts: Parts,
        arguments: Mapping[str, Any],
        mean_loss: MeanLoss,
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
            model_fn=call,
        )

        for name, metric in parts.metrics.items():
            metric.attach(trainer, name)
        return trainer

    def _evaluate(
        self, model: Any, rows: Rows, arguments: Mapping[str, Any], batch_size: int, convert: Conversion
    ) -> dict[str, float]:
        # Not optimizer(): another schedule would take the place of the one that it has left in the model.
        metrics = {"loss": Loss(model.loss_fn()), **model.metrics()}
        evaluator = create_supervised_evaluator(model, metrics=metrics, device=self._device, model_fn=call)
        order = EpochOrder(
            rows=len(rows),
            batch_size=batch_size,
            shuffle=arguments.get("shuffle", False),
            steps_per_epoch=arguments.get("epoch_length"),
            drop_last=arguments.get("drop_last", False),
        )
        data = Feed(rows, convert, loader_arguments(arguments))
        with closing(data.epochs(order)) as batches:
            evaluator.run(batches, max_epochs=1, epoch_length=order.steps)
        return _numbers(evaluator.state.metrics)


def _is_model(value: Any) -> bool:
    return isinstance(value, nn.Module)


def _known_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [one for one in model.parameters() if not isinstance(one, nn.parameter.UninitializedParameter)]


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, torch.Tensor) else outputs


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that are one number; others, such as a confusion matrix, are no metric of an epoch."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            found[name] = float(value.item())
        elif isinstance(value, int | float | np.number):
            found[name] = float(value)
    return found


def _learns_classes(loss: Any) -> bool:
    return isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or loss in (functional.cross_entropy, functional.nll_loss)
