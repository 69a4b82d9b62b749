"""The names in an ONNX file: its outputs are called as predictions call them, and its first dimension is `batch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from frameworks.exports.job import TensorSpec


def name_tensors(path: Path, outputs: Sequence[TensorSpec]) -> None:
    """Renames what the converter gave names of its own."""
    model = onnx.load(path)
    graph = model.graph
    if len(outputs) == len(graph.output):
        names = {given.name: wanted.name for given, wanted in zip(graph.output, outputs, strict=True)}
        taken = {value for node in graph.node for value in (*node.input, *node.output)} | {i.name for i in graph.input}
        _rename(graph, {given: name for given, name in names.items() if name not in taken})
    for value in (*graph.input, *graph.output):
        _name_batch(value)
    onnx.save(model, path)


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = names.get(value.name, value.name)


def _name_batch(value: Any) -> None:
    dimensions = value.type.tensor_type.shape.dim
    if dimensions and not dimensions[0].HasField("dim_value"):
        dimensions[0].dim_param = "batch"
