"""What a training may ask for, and what it gets where it asks for nothing."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from headrace.errors import FieldViolation, not_yet
from headrace.v1 import code_executor_pb2, deployment_pb2, model_pb2
from headrace.v1.deployment_pb2 import Deployment, FrameworkArguments, Resources, TrainingSettings
from headrace.v1.stream_pb2 import Stream
from streams.control import topics_of
from streams.offsets import is_topic_name

DEFAULT_BATCH_SIZE = 32
MAX_BATCH_SIZE = 1_000_000
DEFAULT_CHECKPOINT_S = 60
MAX_ARGUMENTS = 4096
MAX_DESCRIPTION = 4096

SETTINGS = "deployment.settings"

_INSTEAD = {
    "incremental": "use the mode single, and announce a stream with an end",
    "distributed": "use the mode single with the whole model",
    "semi_supervised": "use the mode single on the labelled records",
    "federated": "use the mode single on one stream",
}


def refuse_later_features(deployment: Deployment) -> None:
    """Raise Unimplemented (NOT_YET) for what the contract has and this version has not."""
    mode = deployment.settings.WhichOneof("mode") or "single"
    if mode != "single":
        raise not_yet(f"the training mode {mode}", _INSTEAD[mode])
    if deployment.kafka_cluster:
        raise not_yet("a Kafka cluster by name", "leave kafka_cluster empty: the platform's own is used")
    refuse_later_resources(deployment.resources)


def refuse_later_resources(resources: Resources) -> None:
    if resources.cpu_count:
        raise not_yet("a limit of processors", "leave cpu_count 0, and limit the trainings at once instead")
    if resources.gpu_count:
        raise not_yet("a number of GPUs", "leave gpu_count 0: a process sees every GPU of its machine")


def completed(settings: TrainingSettings) -> TrainingSettings:
    """A copy with every default filled in and a seed chosen."""
    full = TrainingSettings()
    full.CopyFrom(settings)
    full.batch_size = full.batch_size or DEFAULT_BATCH_SIZE
    full.seed = full.seed or secrets.randbelow(2**32 - 1) + 1
    full.split = full.split or deployment_pb2.SPLIT_SHUFFLED
    full.count_mismatch = full.count_mismatch or deployment_pb2.COUNT_MISMATCH_FAIL
    if not full.HasField("checkpoint_interval"):
        full.checkpoint_interval.seconds = DEFAULT_CHECKPOINT_S
    full.single.SetInParent()
    return full


def bad_settings(settings: TrainingSettings) -> Iterable[FieldViolation]:
    """Everything that is wrong whatever the models are."""
    if not 0 <= settings.batch_size <= MAX_BATCH_SIZE:
        rule = f"must be 1 to {MAX_BATCH_SIZE} (0: {DEFAULT_BATCH_SIZE}), not {settings.batch_size}"
        yield FieldViolation(f"{SETTINGS}.batch_size", rule)
    if settings.split not in deployment_pb2.Split.values():
        yield FieldViolation(f"{SETTINGS}.split", "must be SPLIT_SHUFFLED or SPLIT_ORDERED")
    if settings.count_mismatch not in deployment_pb2.CountMismatch.values():
        rule = "must be COUNT_MISMATCH_FAIL or COUNT_MISMATCH_ACCEPT"
        yield FieldViolation(f"{SETTINGS}.count_mismatch", rule)
    if math.isnan(settings.decode_error_limit) or not 0 <= settings.decode_error_limit <= 1:
        rule = f"must be between 0 and 1, not {settings.decode_error_limit}"
        yield FieldViolation(f"{SETTINGS}.decode_error_limit", rule)
    for name in ("checkpoint_interval", "deadline"):
        if settings.HasField(name) and seconds(getattr(settings, name)) <= 0:
            yield FieldViolation(f"{SETTINGS}.{name}", "must be longer than 0 s; leave it out for the default")
    for framework in ("tensorflow", "pytorch"):
        for name in ("fit_args", "evaluate_args"):
            if (length := len(getattr(getattr(settings, framework), name))) > MAX_ARGUMENTS:
                rule = f"has {length} characters, at most {MAX_ARGUMENTS} are taken"
                yield FieldViolation(f"{SETTINGS}.{framework}.{name}", rule)


def bad_beside_result(wish: Deployment) -> Iterable[FieldViolation]:
    """What says something that the result to train again says already."""
    for name in ("configuration_id", "settings", "stream_id", "allowed_topics"):
        is_given = wish.HasField("settings") if name == "settings" else bool(getattr(wish, name))
        if is_given:
            rule = "must be left out: deployment.from_result_id says what to train, how and on what"
            yield FieldViolation(f"deployment.{name}", rule)


def bad_resources(field: str, resources: Resources) -> Iterable[FieldViolation]:
    for name in ("cpu_count", "memory_bytes", "gpu_count"):
        value = getattr(resources, name)
        if not value >= 0:
            yield FieldViolation(f"{field}.{name}", f"must not be negative, not {value}")


def bad_topics(wish: Deployment, stream: Stream | None) -> Iterable[FieldViolation]:
    """Names that no topic has, and a stream of other topics."""
    for index, topic in enumerate(wish.allowed_topics):
        if not is_topic_name(topic):
            yield FieldViolation(f"deployment.allowed_topics[{index}]", f"{topic[:100]!r} is no name of a topic")
    others = topics_of(stream) - set(wish.allowed_topics) if stream is not None and wish.allowed_topics else set()
    for topic in sorted(others):
        yield FieldViolation("deployment.allowed_topics", f"leaves out {topic}, which the stream is of")


def bad_description(field: str, description: str) -> Iterable[FieldViolation]:
    if len(description) > MAX_DESCRIPTION:
        yield FieldViolation(field, f"has {len(description)} characters, at most {MAX_DESCRIPTION} are taken")


def arguments_of(settings: TrainingSettings) -> Mapping[model_pb2.Framework, FrameworkArguments]:
    return {
        model_pb2.FRAMEWORK_TENSORFLOW: settings.tensorflow,
        model_pb2.FRAMEWORK_PYTORCH: settings.pytorch,
    }


def bad_arguments(
    framework: model_pb2.Framework, answer: code_executor_pb2.ValidateSettingsResponse
) -> Iterable[FieldViolation]:
    """What the executor says of arguments, with those that it knows where one is unknown."""
    name = "tensorflow" if framework == model_pb2.FRAMEWORK_TENSORFLOW else "pytorch"
    for found in answer.diagnostics:
        file = found.file or "fit_args"
        known = answer.known_evaluate_args if file == "evaluate_args" else answer.known_fit_args
        listed = "" if not known or known[0] in found.message else f" (known are {', '.join(known)})"
        yield FieldViolation(f"{SETTINGS}.{name}.{file}", f"{found.message}{listed}")


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
