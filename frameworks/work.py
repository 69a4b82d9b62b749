"""How much work a PyTorch model makes, and how many threads that is worth.

Threads that do not spin while they wait (see sandbox/process.py) take longer to wake up than a small operator takes.
With a perceptron of 100,000 parameters on two cores, training steps of 32 rows take 1.2 ms on one thread and 2.0 ms on
two; steps of 256 rows take the same on either, and of 1,024 less than half on two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Multiplications of a forward pass; that perceptron makes them for 200 rows.
ONE_THREAD_WORK = 20_000_000


class Work:
    """About how many multiplications a model's forward() makes inside `counted`; rather more than fewer."""

    def __init__(self) -> None:
        self.total = 0.0

    @contextmanager
    def counted(self, model: nn.Module) -> Iterator[None]:
        """A block that calls the model."""
        layers = list(model.modules())
        if any(_is_compiled(layer) for layer in layers):
            self.total = math.inf
            yield
            return
        hooks = [layer.register_forward_hook(self._add) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, layer: nn.Module, _: Any, output: Any) -> None:
        """A layer uses each of its own parameters once for each position of its output."""
        own = sum(one.numel() for one in layer.parameters(recurse=False))
        self.total += own * _positions(output) if own else 0


@contextmanager
def threads_for(work: Work, default: int) -> Iterator[None]:
    """A block with one thread where the work is not worth more; a number that the person's code has set stays.

    This depends on the model and its batches alone, never on a clock: the number of threads may show in the last digits
    of a result, and two trainings have to give the same.
    """
    threads = torch.get_num_threads()
    if threads == default and work.total < ONE_THREAD_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_compiled(layer: nn.Module) -> bool:
    """Whether hooks cannot see into it, or would become part of it."""
    return isinstance(layer, torch.jit.ScriptModule) or type(layer).__name__ == "OptimizedModule"


def _positions(output: Any) -> float:
    """Of `(rows, features)`, `(rows, steps, features)`, `(rows, channels, …)`: elements by features or channels."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    if not isinstance(first, torch.Tensor):
        return math.inf
    return first.numel() / max(1, min(first.shape[1:], default=1))
