"""Rows become batches of tensors, in the order of a training."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from frameworks.arguments import boolean, number, whole
from frameworks.checkpoints import START, Position
from frameworks.failure import Failure
from frameworks.fields import Columns
from frameworks.rows import EpochOrder, Rows
from frameworks.torch_modules import float_type

LOADER_CHECKS = {
    "shuffle": boolean,
    "drop_last": boolean,
    "num_workers": whole(0),
    "pin_memory": boolean,
    "timeout": number(0),
    "prefetch_factor": whole(1, optional=True),
    "persistent_workers": boolean,
}


def tensors_of(model: nn.Module, columns: Columns, device: torch.device, *, keep_integers: bool) -> Any:
    """As forward() takes them: one tensor, or several by name; in the model's type, but for integers that are kept."""
    dtype = float_type(model)
    tensors = {name: _typed(array, dtype, device, keep_integers) for name, array in columns.items()}
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def _typed(array: np.ndarray, dtype: torch.dtype, device: torch.device, keep_integers: bool) -> torch.Tensor:
    if array.dtype.kind in "ui" and keep_integers:
        return torch.from_numpy(array.astype(np.int64)).to(device)
    return _tensor(array).to(device, dtype)


def _tensor(array: np.ndarray) -> torch.Tensor:
    # Mapped files are read-only, which from_numpy warns of; types that PyTorch hardly supports become wider ones.
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@dataclass(frozen=True)
class Conversion:
    """Rows as arrays → tensors as the model and its loss take them."""

    model: nn.Module
    device: torch.device
    keep_integers: bool
    label_type: torch.dtype
    label_shape: tuple[int, ...]
    """Shape of one label."""
    classes: int
    """Number of outputs when labels are class numbers; otherwise 0."""

    @classmethod
    def fitting(
        cls,
        model: nn.Module,
        device: torch.device,
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
            return cls(model, device, keep_integers, answer.dtype, tuple(answer.shape[1:]), 0)
        if scalar and (by_class or array.dtype.kind in "uib"):
            classes = int(answer.shape[1]) if answer is not None and answer.ndim > 1 else 0
            return cls(model, device, keep_integers, torch.int64, (), classes)
        label_type = float_type(model) if array.dtype.kind == "f" or not scalar else torch.int64
        return cls(model, device, keep_integers, label_type, shape, 0)

    def __call__(self, samples: Columns, labels: Columns | None) -> tuple[Any, torch.Tensor]:
        """One batch."""
        array = next(iter((labels or {}).values()))
        target = _tensor(array).to(self.device, self.label_type)
        inputs = tensors_of(self.model, samples, self.device, keep_integers=self.keep_integers)
        return inputs, target.reshape(len(array), *self.label_shape)


class Feed:
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


def loader_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a DataLoader is needed for."""
    own = ("shuffle", "drop_last")
    return {name: value for name, value in arguments.items() if name in LOADER_CHECKS and name not in own}
