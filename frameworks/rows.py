"""Rows of a spooled data set: which ones, in which order, and how they come into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from frameworks.failure import Failure
from frameworks.fields import Columns, Field, Inputs, by_input, feeding, shown

# How many bytes of rows are copied at a time when a data set is loaded.
LOAD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Rows:
    """Samples and labels by name ("" for the only one), and the rows of them that count."""

    samples: Columns
    labels: Columns | None
    index: np.ndarray
    """int64: positions in the arrays."""
    fields: tuple[Field, ...] = ()
    """What a row of the only samples consists of, where the records have named fields."""
    chosen: tuple[Field, ...] = ()
    """The fields that are taken, each as samples of its name. None: the samples as they are."""

    @classmethod
    def open(
        cls, samples: Any, labels: Any, rows: str | None, in_memory_bytes: int, fields: Sequence[Field] = ()
    ) -> Rows:
        """Maps the .npy files read-only, and loads the chosen rows when they take at most `in_memory_bytes`.

        `samples` and `labels` are paths, or paths by name.
        """
        sample_arrays, label_arrays = _map_files(samples), None if labels is None else _map_files(labels)
        count = _common_length({**sample_arrays, **{f"label {k}": v for k, v in (label_arrays or {}).items()}})
        index = np.arange(count) if rows is None else _load_index(Path(rows), count)
        opened = cls(sample_arrays, label_arrays, index, tuple(fields))
        return opened.loaded() if opened.size_bytes <= in_memory_bytes else opened

    def __len__(self) -> int:
        return len(self.index)

    @property
    def size_bytes(self) -> int:
        """Size of the chosen rows."""
        arrays = [*self.samples.values(), *(self.labels or {}).values()]
        return sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays) * len(self)

    def feeding(self, inputs: Inputs) -> Rows:
        """The same rows as a model with these inputs takes them. Raises SCHEMA_MISMATCH when it does not."""
        return replace(self, chosen=feeding(inputs, self.samples, self.fields))

    def take(self, positions: np.ndarray) -> tuple[Columns, Columns | None]:
        """Copies of samples and labels at some positions among the chosen rows, in that order."""
        places = self.index[positions]
        samples = by_input({name: array[places] for name, array in self.samples.items()}, self.chosen)
        return samples, None if self.labels is None else {name: array[places] for name, array in self.labels.items()}

    def first(self, count: int) -> tuple[Columns, Columns | None]:
        """The first rows; no rows tell their types and shapes."""
        return self.take(np.arange(min(count, len(self))))

    def evenly(self, count: int) -> Rows:
        """At most so many of the rows, from all over them."""
        if len(self) <= count:
            return self
        return replace(self, index=self.index[np.linspace(0, len(self) - 1, count).astype(np.int64)])

    def loaded(self) -> Rows:
        """The same rows as arrays in memory, in the order of `index`."""
        samples = {name: _load(array, self.index) for name, array in self.samples.items()}
        labels = (
            None if self.labels is None else {name: _load(array, self.index) for name, array in self.labels.items()}
        )
        return replace(self, samples=samples, labels=labels, index=np.arange(len(self)))

    def batches(self, batch_size: int) -> Iterator[tuple[Columns, Columns | None]]:
        """All rows once, in order."""
        for start in range(0, len(self), batch_size):
            yield self.take(np.arange(start, min(start + batch_size, len(self))))


def _map_files(paths: Any) -> dict[str, np.ndarray]:
    by_name = paths if isinstance(paths, dict) else {"": paths}
    return {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in by_name.items()}


def _common_length(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise Failure("SCHEMA_MISMATCH", f"samples and labels have different numbers of rows: {lengths}")
    return next(iter(lengths.values()))


def _load_index(path: Path, count: int) -> np.ndarray:
    index = np.asarray(np.load(path, allow_pickle=False), dtype=np.int64)
    if index.ndim != 1 or (len(index) and (index.min() < 0 or index.max() >= count)):
        raise Failure("INVALID_FIELD", f"the rows in {path.name} are not rows of the {count} that there are")
    return index


def _load(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of a mapped file, read front to back: a file colder than memory is read once, not once per row."""
    loaded = np.empty((len(index), *array.shape[1:]), array.dtype)
    order = np.argsort(index, kind="stable")
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    step = max(1, LOAD_BYTES // row_bytes)
    for start in range(0, len(index), step):
        part = order[start : start + step]
        loaded[part] = array[index[part]]
    return loaded


@dataclass(frozen=True)
class EpochOrder:
    """Which row comes when: a function of seed, epoch and step alone, so that a training can go on anywhere.

    Without `steps_per_epoch` an epoch is one pass over the rows. With it an epoch is that many full batches, taken from
    passes one after the other for as long as the training goes on: the data repeat, and no epoch ends early.
    """

    rows: int
    batch_size: int
    shuffle: bool | str = True
    """With `batch`, batches change places and the rows inside them do not."""
    seed: int = 0
    steps_per_epoch: int | None = None
    drop_last: bool = False

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        if self.steps_per_epoch:
            return self.steps_per_epoch
        full, rest = divmod(self.rows, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def positions(self, epoch: int) -> np.ndarray:
        """The rows of an epoch (from 0) in order: step s takes `[s × batch_size : (s + 1) × batch_size]`."""
        if not self.steps_per_epoch:
            return self._pass(epoch)[: self.steps * self.batch_size]
        start = epoch * self.steps_per_epoch * self.batch_size
        stop = start + self.steps_per_epoch * self.batch_size
        passes = [self._pass(number) for number in range(start // self.rows, -(-stop // self.rows))]
        offset = start // self.rows * self.rows
        return np.concatenate(passes)[start - offset : stop - offset]

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """The positions of an epoch, step by step, from `first_step` (from 0) on."""
        positions = self.positions(epoch)
        for start in range(first_step * self.batch_size, len(positions), self.batch_size):
            yield positions[start : start + self.batch_size]

    def chunks(self, epochs: int, steps: int, first_epoch: int = 0, first_step: int = 0) -> Iterator[np.ndarray]:
        """The positions of all epochs, up to `steps` whole batches at a time; a short batch comes alone.

        They begin at a step of an epoch, both from 0.
        """
        gathered: list[np.ndarray] = []
        for epoch in range(first_epoch, epochs):
            for batch in self.batches(epoch, first_step if epoch == first_epoch else 0):
                short = len(batch) < self.batch_size
                if gathered and (short or len(gathered) == steps):
                    yield np.concatenate(gathered)
                    gathered = []
                if short:
                    yield batch
                else:
                    gathered.append(batch)
        if gathered:
            yield np.concatenate(gathered)

    def _pass(self, number: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.rows)
        return _shuffled(self.rows, self.batch_size if self.shuffle == "batch" else 1, self.seed, number)


@lru_cache(maxsize=2)  # Short epochs take many pieces of one long pass.
def _shuffled(rows: int, chunk: int, seed: int, number: int) -> np.ndarray:
    """A permutation of all rows in which chunks stay whole; the last chunk may be short."""
    generator = np.random.default_rng([seed, number])
    if chunk == 1:
        return generator.permutation(rows)
    starts = generator.permutation(-(-rows // chunk)) * chunk
    return np.concatenate([np.arange(start, min(start + chunk, rows)) for start in starts])


def shapes_of(columns: Columns, fields: Sequence[Field] = ()) -> str:
    """The shape of one row, with the fields that it consists of, or shapes by name: for messages."""
    shapes = {name: tuple(array.shape[1:]) for name, array in columns.items()}
    if set(shapes) != {""}:
        return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    of_fields = f" of the fields {shown(field.name for field in fields)}" if fields else ""
    return f"{shapes['']}{of_fields}"


def check_class_numbers(rows: Rows, class_count: int, ignored: int | None = None) -> None:
    """Refuses labels that are no class numbers, or ones that the model has no output for.

    ignored: one that the loss leaves out.
    """
    for array in (rows.labels or {}).values():
        chosen = array[rows.index]
        if ignored is not None:
            chosen = chosen[chosen != ignored]
        _check_whole(chosen, class_count)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= class_count):
            message = (
                f"the stream's labels go from {chosen.min()} to {chosen.max()}, but the model's {class_count} outputs "
                f"stand for the classes 0 to {class_count - 1}"
            )
            raise Failure("SCHEMA_MISMATCH", message, lowest=chosen.min(), highest=chosen.max(), classes=class_count)


def _check_whole(labels: np.ndarray, class_count: int) -> None:
    """NaN is no whole number either."""
    fractional = labels[labels != np.floor(labels)] if labels.dtype.kind == "f" else labels[:0]
    if fractional.size:
        value = fractional.flat[0]
        message = (
            f"the stream's labels are {labels.dtype} numbers such as {value}, but the model's loss takes whole "
            f"numbers: the classes 0 to {class_count - 1}"
        )
        raise Failure("SCHEMA_MISMATCH", message, type=labels.dtype, value=value, classes=class_count)
