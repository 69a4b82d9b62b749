"""The whole state of a Keras training as a tree, and back: to go on as if nothing had been."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

from frameworks.tree import Tree


def take(model: keras.Model, *, within_epoch: bool) -> Tree | None:
    """The state of this moment; None when weights are no numbers any more.

    Layers' seed generators are among the model's variables, a schedule's place is the optimizer's count of steps.
    """
    weights = [np.asarray(each) for each in model.trainable_variables]
    if not all(np.isfinite(each).all() for each in weights if each.dtype.kind == "f"):
        return None
    kind, *rest = np.random.get_state(legacy=True)
    return {
        "model": _values(model.variables),
        "optimizer": _values(model.optimizer.variables),
        "metrics": _values(model.metrics_variables) if within_epoch else None,
        "python": random.getstate(),
        "numpy": (str(kind), *rest),
        "keras": _values(_global_generator()),
    }


def put_variables(model: keras.Model, state: Mapping[str, Any]) -> None:
    """Sets weights, optimizer and seed generators, which all exist. Raises ValueError when the model has others."""
    _assign(model.variables, state["model"])
    _assign(model.optimizer.variables, state["optimizer"])


def put_within_epoch(model: keras.Model, state: Mapping[str, Any]) -> None:
    """Sets what the metrics had gathered of an epoch that is not over."""
    if state["metrics"] is not None:
        _assign(model.metrics_variables, state["metrics"])


def put_random(state: Mapping[str, Any]) -> None:
    """Sets all global generators."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if state["keras"]:
        _assign(_global_generator(), state["keras"])


def _global_generator() -> list[Any]:
    """The state of the generator that serves functions without a seed; nothing while nobody has used it."""
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(each) for each in variables]


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    shapes = [[(tuple(each.shape), str(np.dtype(_dtype(each)))) for each in those] for those in (variables, values)]
    if shapes[0] != shapes[1]:
        raise ValueError("the model, its optimizer or its metrics have other variables")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _dtype(each: Any) -> str:
    return str(getattr(each.dtype, "name", each.dtype))
