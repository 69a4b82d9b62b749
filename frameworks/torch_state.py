"""The whole state of a PyTorch training as a tree, and back: to go on as if nothing had been."""

from __future__ import annotations

import functools
import random
import types
import weakref
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from frameworks.tree import Tree, UnsavableError

# What a metric is made with and does not change.
CALLABLES = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type)
FIXED = (*CALLABLES, torch.device, torch.dtype, nn.Module, Engine, Enum)
CONTAINERS = (list, tuple, dict)

# In the order in which they were made.
_schedulers: list[weakref.ref[Any]] = []


def notice_schedulers() -> None:
    """From now on every scheduler is known to `schedulers_of`, wherever the person's code keeps it."""

    def noticed(cls: Any, *_: Any, **__: Any) -> Any:
        made = object.__new__(cls)
        _schedulers[:] = [one for one in _schedulers if one() is not None]
        _schedulers.append(weakref.ref(made))
        return made

    for kind in (LRScheduler, ReduceLROnPlateau):
        kind.__new__ = noticed  # type: ignore[method-assign]


def schedulers_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Those that change this optimizer, in the order in which they were made."""
    alive = [scheduler for one in _schedulers if (scheduler := one()) is not None]
    return [scheduler for scheduler in alive if getattr(scheduler, "optimizer", None) is optimizer]


def take_random() -> Tree:
    """The states of all global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    kind, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(kind), *rest),
        "torch": packed(torch.get_rng_state()),
        "cuda": packed(cuda),
    }


def put_random(state: Mapping[str, Any]) -> None:
    """Sets all global generators."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(unpacked(state["torch"]))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(unpacked(state["cuda"]))


def take_model(model: nn.Module) -> Tree:
    """Parameters, buffers (also those that are not saved with a model), and what modules add of their own."""
    return {
        "tensors": packed(dict(_tensors(model))),
        "extra": packed({name: each for name, each in model.state_dict().items() if name.endswith("_extra_state")}),
        "modes": {name: module.training for name, module in model.named_modules()},
    }


def put_model(model: nn.Module, state: Mapping[str, Any]) -> None:
    """In place: optimizers refer to the parameters. Raises ValueError when the model has others."""
    tensors, own = unpacked(state["tensors"]), dict(_tensors(model))
    shapes = [{name: (each.shape, each.dtype) for name, each in those.items()} for those in (tensors, own)]
    if shapes[0] != shapes[1]:
        raise ValueError("the model has other parameters or buffers")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    if state["extra"]:
        model.load_state_dict(unpacked(state["extra"]), strict=False)
    for name, module in model.named_modules():
        module.training = state["modes"].get(name, module.training)


def take_gradients(model: nn.Module) -> Tree:
    """Gradients that are not used up yet."""
    return packed({name: each.grad for name, each in model.named_parameters() if each.grad is not None})


def put_gradients(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Sets the gradients."""
    gradients = unpacked(state)
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)


def take_optimizer(optimizer: torch.optim.Optimizer, made: int) -> Tree:
    """The optimizer and its schedulers. Raises UnsavableError unless they are those that were `made` with it: of others
    a resumed training would not have any to put their state in.
    """
    schedulers = [packed(one.state_dict()) for one in schedulers_of(optimizer)]
    if len(schedulers) != made:
        raise UnsavableError(f"{len(schedulers)} schedulers, and optimizer() makes {made}; let it make and keep all")
    return {"optimizer": packed(optimizer.state_dict()), "schedulers": schedulers}


def put_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Sets the optimizer and its schedulers."""
    optimizer.load_state_dict(unpacked(state["optimizer"]))
    for scheduler, each in zip(schedulers_of(optimizer), state["schedulers"], strict=True):
        scheduler.load_state_dict(unpacked(each))


def take_metric(metric: Metric) -> Tree:
    """All that a metric has gathered. Raises UnsavableError for what cannot be written down."""
    return {name: _taken(value, name) for name, value in vars(metric).items() if not _is_fixed(value)}


def put_metric(metric: Metric, state: Mapping[str, Any]) -> None:
    """Sets what a metric of the same kind has gathered."""
    for name, value in state.items():
        if isinstance(value, dict) and "metric" in value:
            put_metric(vars(metric)[name], value["metric"])
        elif isinstance(value, dict) and "metrics" in value:
            for one, each in zip(vars(metric)[name], value["metrics"], strict=True):
                if each is not None:
                    put_metric(one, each)
        else:
            vars(metric)[name] = unpacked(value["value"])


def _taken(value: Any, name: str) -> Tree:
    if isinstance(value, Metric):
        return {"metric": take_metric(value)}
    if isinstance(value, list | tuple) and any(isinstance(each, Metric) for each in value):
        return {"metrics": [take_metric(each) if isinstance(each, Metric) else None for each in value]}
    try:
        return {"value": packed(value)}
    except UnsavableError as error:
        raise UnsavableError(f"{error} in {name} of a metric") from error


def _is_fixed(value: Any) -> bool:
    if isinstance(value, CONTAINERS) and value:
        items = value.values() if isinstance(value, dict) else value
        return all(_is_fixed(item) for item in items)
    return isinstance(value, FIXED)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def packed(value: Any) -> Tree:
    """The same with every tensor as its bytes: numpy lacks some of the types. Raises UnsavableError."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        return {"tensor": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "bytes": raw}
    if isinstance(value, Mapping):
        return {"items": [(packed(key), packed(each)) for key, each in value.items()]}
    if type(value) in CONTAINERS:
        return type(value)(packed(each) for each in value)
    if value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic):
        return value
    raise UnsavableError(f"a {type(value).__module__}.{type(value).__qualname__}")


def unpacked(value: Tree) -> Any:
    """What `packed` was given."""
    if isinstance(value, dict) and "tensor" in value:
        raw = torch.from_numpy(np.array(value["bytes"]))
        dtype: torch.dtype = getattr(torch, value["tensor"])
        # An empty tensor of bytes has no other view.
        tensor = raw.view(dtype) if len(raw) else torch.empty(0, dtype=dtype)
        return tensor.reshape(value["shape"])
    if isinstance(value, dict):
        return {unpacked(key): unpacked(each) for key, each in value["items"]}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value)(unpacked(each) for each in value)  # type: ignore[call-arg]
    return value


def has_finite_weights(model: nn.Module) -> bool:
    """Whether every parameter is all numbers."""
    return all(bool(torch.isfinite(each).all()) for each in model.parameters() if each.is_floating_point())
