"""A PyTorch model as an exported program and as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from frameworks.exports.job import ExportJob, need, writer_of

# A batch of one would be taken for a batch of one always.
EXAMPLE_ROWS = 2


def export(model: nn.Module, job: ExportJob, *, by_name: bool) -> None:
    """Writes the model in the job's format; `by_name`: forward() takes its inputs by name."""
    write: Callable[[torch.export.ExportedProgram, ExportJob], None] = writer_of(job, _WRITERS)
    with job.converting():
        write(_program(model.cpu().eval(), job, by_name), job)


def _program(model: nn.Module, job: ExportJob, by_name: bool) -> torch.export.ExportedProgram:
    """The model for any number of rows."""
    rows = torch.export.Dim("batch")
    examples = {spec.name: torch.from_numpy(spec.zeros(EXAMPLE_ROWS)) for spec in job.inputs}
    if by_name:
        return torch.export.export(model, (), kwargs=examples, dynamic_shapes={name: {0: rows} for name in examples})
    return torch.export.export(model, tuple(examples.values()), dynamic_shapes=tuple({0: rows} for _ in examples))


def _write_program(program: torch.export.ExportedProgram, job: ExportJob) -> None:
    torch.export.save(program, job.path)


def _write_onnx(program: torch.export.ExportedProgram, job: ExportJob) -> None:
    need("onnx", "onnxscript")
    names: Mapping[str, Any] = {
        "input_names": [spec.name for spec in job.inputs],
        "output_names": [spec.name for spec in job.outputs] or None,
    }
    converted = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert converted is not None  # It is None only where a file is given.
    converted.save(job.path, external_data=False)


_WRITERS: Mapping[str, Callable[[torch.export.ExportedProgram, ExportJob], None]] = {
    "exported_program": _write_program,
    "onnx": _write_onnx,
}
