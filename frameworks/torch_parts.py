"""What is beside a module while it is trained: loss, optimizer and metrics, and the state of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import nn

from frameworks import torch_state
from frameworks.checkpoints import Position
from frameworks.failure import Failure
from frameworks.framework import Plan
from frameworks.tree import Tree

METHODS = {
    "loss_fn": "a loss such as nn.CrossEntropyLoss()",
    "optimizer": "an optimizer such as torch.optim.Adam(self.parameters())",
    "metrics": 'metrics by name, such as {"accuracy": Accuracy()}',
}


@dataclass(frozen=True)
class Parts:
    """What a model's class provides for its training."""

    loss: Any
    optimizer: torch.optim.Optimizer
    metrics: dict[str, Metric]

    @classmethod
    def of(cls, model: Any) -> Parts:
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


class MeanLoss:
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
class TrainingState:
    """Everything that changes while a model is trained, after any of its steps."""

    model: nn.Module
    parts: Parts
    trainer: Engine
    mean_loss: MeanLoss
    accumulation: int
    schedulers: int
    """That optimizer() made."""

    def take(self) -> Tree | None:
        """The state of this moment; None when weights are no numbers any more."""
        if not torch_state.has_finite_weights(self.model):
            return None
        return {
            "model": torch_state.take_model(self.model),
            "optimizer": torch_state.take_optimizer(self.parts.optimizer, self.schedulers),
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
