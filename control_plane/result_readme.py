"""The README.md in the download of a result: what it is, how to load each of its files, what it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.v1 import model_pb2
from headrace.v1.model_pb2 import TensorSpec
from headrace.v1.result_pb2 import Artifact, Result
from headrace.v1.stream_pb2 import DataFormat
from streams.offsets import format_ranges

# Longer class lists and settings say nothing more.
MOST_LABELS = 200


def readme_of(result: Result) -> str:
    """Markdown."""
    parts = [_title(result), _tensors(result), _classes(result), _files(result), _metrics(result), _lineage(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def code_of(result: Result) -> str:
    """The model's code as a module: with what the platform provides without an import."""
    return "\n\n".join(filter(None, [_names(result), result.imports.strip("\n"), result.code.strip("\n")])) + "\n"


def _title(result: Result) -> str:
    version = f"version {result.version}" if result.version else f"result {result.id}"
    trained = result.end_time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC") if result.HasField("end_time") else "not yet"
    return f"# {result.model_name}, {version}\n\nTrained with {result.framework_version}; finished {trained}."


def _tensors(result: Result) -> str:
    rows = [("input", spec) for spec in result.signature.inputs]
    rows += [("output", spec) for spec in result.signature.outputs]
    if not rows:
        return ""
    table = _table(["", "name", "type", "shape"], [(what, *_described(spec)) for what, spec in rows])
    is_free = all(spec.shape[:1] == [-1] for spec in result.signature.inputs)
    note = "\n\n`batch` is any number of rows." if is_free else ""
    return f"## What it takes and gives\n\n{table}{note}"


def _described(spec: TensorSpec) -> tuple[str, str, str]:
    lengths = [str(n) if n >= 0 else "any" if place else "batch" for place, n in enumerate(spec.shape)]
    return f"`{spec.name}`", spec.dtype, f"({', '.join(lengths)})"


def _classes(result: Result) -> str:
    labels = result.confusion_matrix.labels or [curve.label for curve in result.roc.curves]
    if not labels:
        return ""
    shown = ", ".join(f"`{label}`" for label in labels[:MOST_LABELS])
    more = f", and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    return f"Classes, in the order of the scores: {shown}{more}."


def _files(result: Result) -> str:
    parts = [f"### {artifact.name}\n\n{_how_to_load(result, artifact)}" for artifact in result.artifacts]
    listed = _table(["file", "bytes", "SHA-256"], [(a.name, a.size_bytes, f"`{a.sha256}`") for a in result.artifacts])
    rows = "arrays that are called as the inputs are" if _is_several(result) else "`rows`, an array"
    intro = f"The examples have {rows}, of numpy in the type and the shape above. `model.py` is the model's code."
    return "\n\n".join(["## Files", listed, intro, *parts])


def _how_to_load(result: Result, artifact: Artifact) -> str:
    suffix = artifact.name.removeprefix("model")
    known = _EXAMPLES.get(suffix)
    return known(result) if known is not None else f"`{artifact.media_type}`."


def _is_several(result: Result) -> bool:
    return len(result.signature.inputs) > 1


def _by_name(result: Result, value: str = "{}") -> str:
    """A dict of the inputs' arrays, which are called as the inputs are."""
    names = [spec.name for spec in result.signature.inputs]
    return "{" + ", ".join(f'"{name}": {value.format(name)}' for name in names) + "}"


def _rows(result: Result) -> str:
    return _by_name(result) if _is_several(result) else "rows"


def _tensors_of(result: Result) -> str:
    several = f"**{_by_name(result, 'torch.from_numpy({})')}"
    return several if _is_several(result) else "torch.from_numpy(rows)"


def _python(text: str) -> str:
    return f"```python\n{text.strip()}\n```"


def _keras(result: Result) -> str:
    own = "import model as code\n" if "class " in result.code else ""
    objects = ", custom_objects=vars(code)" if own else ""
    about = f"The original: architecture, weights and optimizer. Needs {result.framework_version}."
    example = f"""
import keras
{own}
model = keras.models.load_model("model.keras"{objects})
answers = model.predict({_rows(result)})
"""
    return f"{about}\n\n{_python(example)}"


def _saved_model(result: Result) -> str:
    about = "TensorFlow's own format, for which Keras is not needed. Keep the loaded object for as long as you call it."
    example = f"""
import zipfile

import tensorflow as tf

zipfile.ZipFile("model.savedmodel.zip").extractall("model.savedmodel")
model = tf.saved_model.load("model.savedmodel")
answers = model.serve({_rows(result)})
"""
    return f"{about}\n\n{_python(example)}"


def _tflite(file: str, about: str) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        given = _by_name(result) if _is_several(result) else "{name: rows for name in run.get_input_details()}"
        example = f"""
from ai_edge_litert.interpreter import Interpreter

run = Interpreter("{file}").get_signature_runner()
answers = run(**{given})  # by the output's name
"""
        return f"{about} Needs the package `ai-edge-litert` and nothing of TensorFlow.\n\n{_python(example)}"

    return text


def _onnx(result: Result) -> str:
    given = _by_name(result) if _is_several(result) else f'{{"{_first_input(result)}": rows}}'
    example = f"""
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
answers = session.run(None, {given})  # one array per output
"""
    return f"For every runtime of ONNX; with the package `onnxruntime`:\n\n{_python(example)}"


def _first_input(result: Result) -> str:
    return next((spec.name for spec in result.signature.inputs), "input")


def _safetensors(result: Result) -> str:
    about = "The original: parameters and buffers by name (the `state_dict`), no code; that is in `model.py`."
    example = f"""
import torch
from safetensors.torch import load_model

from model import model

load_model(model, "model.safetensors")
model.eval()
with torch.inference_mode():
    answers = model({_tensors_of(result)})
"""
    return f"{about}\n\n{_python(example)}"


def _exported_program(result: Result) -> str:
    about = f"A program of `torch.export`, which needs no code of the model. Made with {result.framework_version}."
    example = f"""
import torch

model = torch.export.load("model.pt2").module()
with torch.inference_mode():
    answers = model({_tensors_of(result)})
"""
    return f"{about}\n\n{_python(example)}"


def _checkpoint(_: Result) -> str:
    return (
        "The newest checkpoint before the loss was no number any more: weights, optimizer, random states, place. "
        "`docs/training.md` of Headrace says how to read it."
    )


_EXAMPLES: Mapping[str, Callable[[Result], str]] = {
    ".keras": _keras,
    ".savedmodel.zip": _saved_model,
    ".tflite": _tflite("model.tflite", "For phones and small devices."),
    ".int8.tflite": _tflite(
        "model.int8.tflite",
        "Weights and activations of eight bits, calibrated on records that the model learned from; it takes and gives "
        "float32, and answers nearly as the original.",
    ),
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".pt2": _exported_program,
    "last_finite.checkpoint": _checkpoint,
}


def _metrics(result: Result) -> str:
    rows = [
        (split, name, f"{value:.6g}")
        for split in ("training", "validation", "test")
        if split in result.metrics.splits
        for name, value in sorted(result.metrics.splits[split].values.items())
    ]
    return f"## Metrics\n\n{_table(['split', 'metric', 'value'], rows)}" if rows else ""


def _lineage(result: Result) -> str:
    sizes, stream = result.split_sizes, result.stream
    facts = {
        "result": f"{result.id} (training {result.deployment_id}, attempt {result.attempt})",
        "records": ", ".join(f"`{one}`" for one in format_ranges(stream.ranges).split(",")),
        "rows": f"{sizes.training} for training, {sizes.validation} for validation, {sizes.test} for the test",
        "format": f"`{DataFormat.Name(stream.input_format)}` `{json.dumps(dict(sorted(stream.input_config.items())))}`",
        "seed": result.settings.seed,
        "settings": f"`{_json(result.settings)}`",
        "code": f"SHA-256 `{result.code_sha256}`",
        "framework": result.framework_version,
    }
    return "\n\n".join(
        [
            "## What it was made of",
            _table(["", ""], list(facts.items())),
            f"Train it again on the same records: `headrace train --from-result {result.id}`",
        ]
    )


def _json(message: Message) -> str:
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True))


def _names(result: Result) -> str:
    if result.framework == model_pb2.FRAMEWORK_PYTORCH:
        return (
            "import ignite\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\n"
            "from ignite.metrics import Accuracy, Loss\nfrom torch import nn, optim"
        )
    return "import keras\nimport numpy as np\nimport tensorflow as tf\nfrom keras import layers"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
