"""What a worker found out, as results hold it."""

import logging

from headrace.chunks import sha256_of
from headrace.errors import ResourceExhausted
from headrace.v1 import error_pb2
from headrace.v1.result_pb2 import Artifact, ConfusionMatrix, Metrics, SplitMetrics
from sandbox.session import Evaluation, SavedFile

log = logging.getLogger(__name__)

# What a collector takes in one epoch is more; but a message has at most 4 MiB.
MAX_METRICS = 5_000
MAX_METRIC_NAME = 512
MAX_CONFUSION_COUNTS = 250_000


def split_metrics(metrics: dict[str, dict[str, float]]) -> SplitMetrics:
    """By split and name. Raises ResourceExhausted (OUTPUT_LIMIT) for more than a message may hold."""
    names = [name for values in metrics.values() for name in values]
    if len(names) > MAX_METRICS or any(len(name) > MAX_METRIC_NAME for name in names):
        raise ResourceExhausted(
            error_pb2.REASON_OUTPUT_LIMIT,
            f"the model reports {len(names)} metrics; at most {MAX_METRICS} are kept, with names of at most "
            f"{MAX_METRIC_NAME} characters",
            limit=MAX_METRICS,
            name_limit=MAX_METRIC_NAME,
        )
    return SplitMetrics(splits={split: Metrics(values=values) for split, values in metrics.items()})


def counted(evaluation: Evaluation) -> ConfusionMatrix | None:
    """The confusion matrix of a classifier, unless it has too many classes for a message."""
    if evaluation.confusion is None:
        return None
    if evaluation.confusion.counts.size > MAX_CONFUSION_COUNTS:
        log.warning("the confusion matrix has too many classes", extra={"classes": len(evaluation.confusion.labels)})
        return None
    return ConfusionMatrix(labels=evaluation.confusion.labels, counts=evaluation.confusion.counts.ravel().tolist())


def artifact_of(file: SavedFile) -> Artifact:
    """A file of the model, by its digest."""
    return Artifact(
        name=file.name,
        media_type=file.media_type,
        size_bytes=file.path.stat().st_size,
        sha256=sha256_of(file.path),
    )
