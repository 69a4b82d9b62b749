"""The pictures of a result, as PNGs; or why there is none."""

from __future__ import annotations

from control_plane.confusion_picture import confusion_png
from control_plane.curve_pictures import residuals_png, roc_png
from control_plane.store import states
from headrace.errors import FailedPrecondition
from headrace.v1 import deployment_pb2, error_pb2, result_pb2


def draw_confusion(result: result_pb2.Result) -> bytes:
    """Blocks for some tenths of a second, as all of these do. Raises WRONG_STATE without a matrix."""
    matrix = result.confusion_matrix
    if not matrix.labels:
        raise _no_confusion_matrix(result)
    title = _title(result, "confusion matrix", "test" if result.split_sizes.test else "validation")
    return confusion_png(title, matrix.labels, matrix.counts)


def draw_roc(result: result_pb2.Result) -> bytes:
    """Raises WRONG_STATE without curves."""
    if not result.roc.curves:
        raise _no_curves(result, "ROC curve", "a classifier")
    return roc_png(_title(result, "ROC", result.roc.split), result.roc)


def draw_residuals(result: result_pb2.Result) -> bytes:
    """Raises WRONG_STATE without residuals."""
    if not result.residuals.outputs:
        raise _no_curves(result, "residuals", "a regression")
    return residuals_png(_title(result, "residuals", result.residuals.split), result.residuals)


def _no_confusion_matrix(result: result_pb2.Result) -> FailedPrecondition:
    if not result.settings.confusion_matrix:
        why = "it was not asked to count one: train with settings.confusion_matrix (--confusion-matrix)"
    elif not states.is_final(result.state):
        why = f"it is {states.state_name(result.state)}, and one is counted when it evaluates"
    elif result.state != deployment_pb2.STATE_FINISHED:
        why = f"it is {states.state_name(result.state)}"
    else:
        why = "one is counted of a classifier, where the stream's test_rate or validation_rate keeps records for it"
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE,
        f"the result {result.id} has no confusion matrix; {why}",
        resource="result",
        id=result.id,
        state=states.state_name(result.state),
        confusion_matrix=result.settings.confusion_matrix,
    )


def _no_curves(result: result_pb2.Result, what: str, kind: str) -> FailedPrecondition:
    if not states.is_final(result.state):
        why = f"it is {states.state_name(result.state)}, and answers are judged when it evaluates"
    else:
        why = f"there is one of {kind} with one label per row, where the stream's test_rate keeps records for it"
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE,
        f"the result {result.id} has no {what}; {why}",
        resource="result",
        id=result.id,
        state=states.state_name(result.state),
    )


def _title(result: result_pb2.Result, what: str, split: str) -> str:
    version = f", version {result.version}" if result.version else f" (result {result.id})"
    return f"{result.model_name}{version}: {what} on the {split} split"
