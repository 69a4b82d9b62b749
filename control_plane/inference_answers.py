"""How an inference's answers are encoded: by the outputs of the model that it serves."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.store import models
from control_plane.validation import refuse
from headrace.errors import FieldViolation, InvalidArgument, NotFound
from headrace.v1 import error_pb2
from headrace.v1.inference_pb2 import Inference
from headrace.v1.result_pb2 import Result
from streams.outputs import JSON_FORMATS, Shape, output_config

MAX_LABELS = 10_000
MAX_LABEL_LENGTH = 200


def complete_answers(inference: Inference, result: Result) -> None:
    """A query: fill in what readers need. Raises InvalidArgument where the format or the labels do not fit."""
    shapes = _outputs_of(result)
    refuse([*_bad_labels(inference, shapes)])
    inference.output_config.clear()
    inference.output_config.update(_config(inference, shapes))


def check_same_answers(inference: Inference, result: Result) -> None:
    """A query. Raises InvalidArgument where another result would answer in another form: readers would not know."""
    shapes = _outputs_of(result)
    refuse([*_bad_labels(inference, shapes)])
    if _config(inference, shapes) != dict(inference.output_config):
        rule = "must have the same outputs as the model before it: readers decode by output_config"
        fields = [FieldViolation("inference.result_id", rule)]
        raise InvalidArgument(
            error_pb2.REASON_SCHEMA_MISMATCH,
            f"the result {result.id} {rule}; create another inference with another output topic",
            fields=fields,
            result=result.id,
        )


def _config(inference: Inference, shapes: dict[str, Shape]) -> dict[str, str]:
    try:
        return output_config(inference.output_format, shapes)
    except InvalidArgument as error:
        fields = [FieldViolation("inference.output_format", error.message)]
        raise InvalidArgument(error.reason, error.message, fields=fields, outputs=", ".join(shapes)) from error


def _outputs_of(result: Result) -> dict[str, Shape]:
    """Output to the shape of a row; empty where it is not known: the model was edited since, or does not declare it."""
    try:
        model = models.get(result.model_id)
    except NotFound:
        return {}
    if model.code_sha256 != result.code_sha256:
        return {}
    return {output.name: tuple(output.shape[1:]) for output in model.signature.outputs}


def _bad_labels(inference: Inference, shapes: dict[str, Shape]) -> Iterable[FieldViolation]:
    if not inference.HasField("labels"):
        return
    names = inference.labels.names
    if inference.output_format not in JSON_FORMATS:
        yield FieldViolation("inference.labels", "must be left out where output_format is not JSON")
    if len(names) > MAX_LABELS or any(not name or len(name) > MAX_LABEL_LENGTH for name in names):
        rule = f"must be at most {MAX_LABELS} names of 1 to {MAX_LABEL_LENGTH} characters"
        yield FieldViolation("inference.labels.names", rule)
    shape = list(shapes.values())[-1] if shapes else (-1,)
    if len(shape) != 1 or shape[0] in (0, 1):
        rule = f"must be left out: the model's last output is no vector of scores, but has the shape {list(shape)}"
        yield FieldViolation("inference.labels", rule)
    elif names and shape[0] > 0 and len(names) != shape[0]:
        yield FieldViolation("inference.labels.names", f"must be {shape[0]}, one per class, not {len(names)}")
