"""What a module takes and gives, as far as it can be known: it declares neither."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from frameworks.failure import Failure, schema_mismatch
from frameworks.fields import Columns, Field
from frameworks.rows import shapes_of


def float_type(model: nn.Module) -> torch.dtype:
    """The type of its first parameter that is no integer; float32 where there is none."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def example_of(model: nn.Module) -> torch.Tensor | None:
    """One row of zeros as the first layer with parameters takes it; None where that does not say the whole shape."""
    leaves = [leaf for leaf in model.modules() if not list(leaf.children())]
    first = next((leaf for leaf in leaves if any(True for _ in leaf.parameters(recurse=False))), None)
    if isinstance(first, nn.Linear) and not isinstance(first, nn.LazyLinear):
        return torch.zeros((1, first.in_features), dtype=first.weight.dtype, device=first.weight.device)
    return None


def try_out(model: nn.Module, example: torch.Tensor) -> dict[str, np.ndarray] | None:
    """The model's answers to an example, or None when it does not take it. Leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return named_outputs(model(example))
    except Exception:
        return None  # Only an attempt: the person's forward() may want something else altogether.
    finally:
        model.train(was_training)


def forward_parameters(model: nn.Module) -> list[inspect.Parameter]:
    """Those of forward(), in order, without self."""
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []  # A compiled function may have none that Python knows.


def input_name(model: nn.Module) -> str:
    """What forward() calls its first input."""
    return next((each.name for each in forward_parameters(model)), "input")


def batch_spec(name: str, array: np.ndarray) -> dict[str, Any]:
    """A batch of any number of rows like these."""
    return {"name": name, "dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}


def call(model: nn.Module, inputs: Any) -> Any:
    """Several named inputs go to forward() by name."""
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def named_outputs(answers: Any) -> dict[str, np.ndarray]:
    """float32 arrays, of one tensor, of several in order, or by name. Raises Failure (CODE_ERROR) for anything else."""
    if isinstance(answers, torch.Tensor):
        named = {"output": answers}
    elif isinstance(answers, Mapping):
        named = {str(name): tensor for name, tensor in answers.items()}
    elif isinstance(answers, list | tuple):
        named = {f"output_{number}": tensor for number, tensor in enumerate(answers)}
    else:
        raise Failure("CODE_ERROR", f"forward() returns a {type(answers).__name__}; it has to return tensors")
    return {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in named.items()}


def samples_mismatch(model: nn.Module, samples: Columns, error: Exception, fields: Sequence[Field] = ()) -> Failure:
    """`fields`: what the rows consist of."""
    return schema_mismatch("samples", shapes_of(samples, fields), f"{_taken(model, error)} ({error})"[:1000])


def _taken(model: nn.Module, error: Exception) -> str:
    """What the model takes, as far as it can be known: the shape that its first layer gives away, and who refused."""
    example = example_of(model)
    known = example is not None and try_out(model, example) is not None
    shape = str(tuple(example.shape[1:])) if example is not None and known else "something else"
    layer = _refusing_layer(model, error)
    return f"{shape}: its layer {layer} refuses them" if layer else shape


def _refusing_layer(model: nn.Module, error: Exception) -> str:
    """The innermost layer that the error came through, such as `net.0, Linear(in_features=4, …)`."""
    names = {id(layer): name for name, layer in model.named_modules() if name and not list(layer.children())}
    through = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers = [layer for layer in through if id(layer) in names]
    return f"{names[id(layers[-1])]}, {layers[-1]}," if layers else ""


def labels_mismatch(labels: Columns | None, answers: Any, error: Exception) -> Failure:
    """Labels that the loss does not take beside these answers."""
    answered = tuple(answers.shape[1:]) if isinstance(answers, torch.Tensor) else type(answers).__name__
    types = ", ".join(sorted({str(array.dtype) for array in (labels or {}).values()}))
    actual = f"{shapes_of(labels or {})} and the type {types}"
    return schema_mismatch("labels", actual, f"{answered} with this loss ({error})"[:1000])
