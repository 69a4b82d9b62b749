"""What an inference may ask for, and what it gets where it asks for nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from control_plane.inference_answers import complete_answers
from control_plane.starts import bad_start, complete_start
from control_plane.store import models, results, states
from control_plane.training_checks import bad_resources, refuse_later_resources, seconds
from control_plane.validation import bad_name
from headrace.errors import FailedPrecondition, FieldViolation, HeadraceError, InvalidArgument, not_yet
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2, result_pb2, stream_pb2
from headrace.v1.inference_pb2 import Inference
from streams.answers import dead_letter_topic
from streams.codecs import codec_for

MAX_REPLICAS = 100
MAX_BATCH_ROWS = 100_000
MAX_WAIT_S = 60.0
NAME_LENGTH = 63

# Kafka takes 249 characters, of which the dead letters' topic needs some.
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,235}")

# What may change while data flow.
CHANGEABLE = frozenset({"name", "replicas", "result_id", "model_id", "alias", "batch", "on_error"})


def refuse_later_features(inference: Inference) -> None:
    """Raise Unimplemented (NOT_YET) for what the contract has and this version has not."""
    if inference.limit or inference.upper_topic or inference.upper_kafka_cluster:
        raise not_yet("an upper topic", "serve the whole model, and leave limit, upper_topic and its cluster empty")
    refuse_later_resources(inference.resources)


def bad_fields(inference: Inference) -> Iterable[FieldViolation]:
    """Everything that is wrong whatever the result is."""
    if inference.name:
        yield from bad_name("inference.name", inference.name)
    yield from _bad_topics(inference)
    yield from _bad_choices(inference)
    yield from bad_start(inference)
    yield from bad_resources("inference.resources", inference.resources)
    if not 0 <= inference.replicas <= MAX_REPLICAS:
        yield FieldViolation("inference.replicas", f"must be 1 to {MAX_REPLICAS}, not {inference.replicas}")
    if not 0 <= inference.batch.max_rows <= MAX_BATCH_ROWS:
        rule = f"must be 1 to {MAX_BATCH_ROWS} (0: adapts to the lag), not {inference.batch.max_rows}"
        yield FieldViolation("inference.batch.max_rows", rule)
    if not 0 <= seconds(inference.batch.max_wait) <= MAX_WAIT_S:
        yield FieldViolation("inference.batch.max_wait", f"must be between 0 and {MAX_WAIT_S:g} s")


def bad_source(inference: Inference) -> Iterable[FieldViolation]:
    """What is wrong with how the request says what to serve."""
    if inference.alias or inference.model_id:
        if not (inference.alias and inference.model_id):
            yield FieldViolation("inference.alias", "needs inference.model_id beside it, and that needs it")
        if inference.result_id:
            yield FieldViolation("inference.result_id", "must be left out where model_id and alias say what to serve")
    elif inference.result_id <= 0:
        yield FieldViolation("inference.result_id", "must be the id of a finished result; or set model_id and alias")


def find_result(inference: Inference) -> result_pb2.Result:
    """A query: the finished result to serve. Raises NotFound, or FailedPrecondition when it is not finished."""
    result_id = inference.result_id
    if inference.alias:
        result_id = models.alias(inference.model_id, inference.alias).result_id
    result = results.get(result_id, full=False)
    if result.state != deployment_pb2.STATE_FINISHED:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {result_id} is {states.state_name(result.state)}; only a finished one can be served",
            resource="result",
            id=result_id,
            state=states.state_name(result.state),
        )
    return result


def refuse_other_rows(inference: Inference, served_id: int, result: result_pb2.Result) -> None:
    """A query: raises FailedPrecondition (SCHEMA_MISMATCH) for a result that was trained on rows of another size than
    the ones that are answered now.

    Only where all sizes are known, and the model takes no inputs of any size; the replicas try it out in any case.
    """
    answered = _row_size(inference.input_format, dict(inference.input_config))
    if answered is None or _row_size_of(results.get(served_id, full=False)) != answered:
        return
    trained = _row_size_of(result)
    if trained in (None, answered) or _takes_any_size(result):
        return
    raise FailedPrecondition(
        error_pb2.REASON_SCHEMA_MISMATCH,
        f"the result {result.id} was trained on rows of {trained} numbers, and the records of"
        f" {inference.input_topic} have {answered}; serve a result of such rows, or create another inference",
        result=result.id,
        trained=trained,
        answered=answered,
    )


def _row_size_of(result: result_pb2.Result) -> int | None:
    return _row_size(result.stream.input_format, dict(result.stream.input_config))


def _row_size(input_format: int, config: dict[str, str]) -> int | None:
    """How many numbers a row has; None where that is not known."""
    try:
        spec = codec_for(input_format, config).sample_spec
    except InvalidArgument:
        return None
    return math.prod(spec.shape) if spec.is_known else None


def _takes_any_size(result: result_pb2.Result) -> bool:
    """Whether the model declares an input with a free length. The code of the registry may be another by now."""
    model = models.get(result.model_id)
    is_same = model.code_sha256 == result.code_sha256
    return is_same and any(-1 in declared.shape[1:] for declared in model.signature.inputs)


def complete(inference: Inference, result: result_pb2.Result) -> None:
    """Fill in what the result knows and every default. Raises InvalidArgument when records cannot be decoded so."""
    inference.result_id = result.id
    inference.replicas = inference.replicas or 1
    inference.guarantee = inference.guarantee or _best_guarantee(inference)
    complete_start(inference)
    inference.on_error = inference.on_error or inference_pb2.ERROR_POLICY_DEAD_LETTER
    inference.output_format = inference.output_format or stream_pb2.DATA_FORMAT_JSON
    inference.input_format = inference.input_format or result.stream.input_format
    if not inference.input_config and inference.input_format == result.stream.input_format:
        inference.input_config.update(result.stream.input_config)
    _check_format(inference)
    complete_answers(inference, result)


def _best_guarantee(inference: Inference) -> inference_pb2.Guarantee:
    if inference.input_kafka_cluster != inference.output_kafka_cluster:
        return inference_pb2.GUARANTEE_AT_LEAST_ONCE
    return inference_pb2.GUARANTEE_EXACTLY_ONCE


def default_name(result: result_pb2.Result, taken: Iterable[str]) -> str:
    """`digits-keras-v3`, and with `-2`, `-3`, … where that is taken."""
    used = set(taken)
    number = 1
    while True:
        ending = f"-v{result.version}" + (f"-{number}" if number > 1 else "")
        name = result.model_name[: NAME_LENGTH - len(ending)] + ending
        if name not in used:
            return name
        number += 1


def _bad_topics(inference: Inference) -> Iterable[FieldViolation]:
    for name in ("input_topic", "output_topic"):
        topic = getattr(inference, name)
        if not TOPIC.fullmatch(topic) or topic in (".", ".."):
            rule = f"must be a topic's name, 1 to 235 of letters, digits, ., _ and -, not {topic[:80]!r}"
            yield FieldViolation(f"inference.{name}", rule)
    is_apart = inference.input_kafka_cluster != inference.output_kafka_cluster
    taken = () if is_apart else (inference.input_topic, dead_letter_topic(inference.input_topic))
    if inference.output_topic and inference.output_topic in taken:
        rule = "must be another topic than that of the questions and that of their dead letters"
        yield FieldViolation("inference.output_topic", rule)


def reserved_topics(inference: Inference, control_topic: str) -> Iterable[FieldViolation]:
    """Topics that are Kafka's own or the platform's: questions and answers there would do harm."""
    for name in ("input_topic", "output_topic"):
        topic = getattr(inference, name)
        if topic.startswith("__"):
            rule = f"must not be a topic of Kafka's own (their names begin with two underscores), not {topic[:80]!r}"
            yield FieldViolation(f"inference.{name}", rule)
        elif topic in (control_topic, dead_letter_topic(control_topic)):
            rule = f"must not be the topic of the control messages or that of their dead letters, not {topic[:80]!r}"
            yield FieldViolation(f"inference.{name}", rule)


def _bad_choices(inference: Inference) -> Iterable[FieldViolation]:
    choices = {
        "input_format": stream_pb2.DataFormat,
        "output_format": stream_pb2.DataFormat,
        "guarantee": inference_pb2.Guarantee,
        "start": inference_pb2.StartPosition,
        "on_error": inference_pb2.ErrorPolicy,
    }
    for name, choice in choices.items():
        value = getattr(inference, name)
        if value not in choice.values():
            known = ", ".join(label for label, number in choice.items() if number)
            yield FieldViolation(f"inference.{name}", f"must be one of {known}, not {value}")
    is_apart = inference.input_kafka_cluster != inference.output_kafka_cluster
    if is_apart and inference.guarantee == inference_pb2.GUARANTEE_EXACTLY_ONCE:
        rule = "must be AT_LEAST_ONCE or left out: no transaction spans two Kafka clusters"
        yield FieldViolation("inference.guarantee", rule)


def _check_format(inference: Inference) -> None:
    if not inference.input_format:
        rule = "must be set: the result does not say how the records that it was trained on are encoded"
        violation = FieldViolation("inference.input_format", rule)
        message = f"inference.input_format {rule}"
        raise InvalidArgument(error_pb2.REASON_INVALID_FORMAT, message, fields=[violation], field=violation.field)
    try:
        codec_for(inference.input_format, dict(inference.input_config))
    except InvalidArgument as error:
        raise _in_inference(error) from error


def _in_inference(error: HeadraceError) -> InvalidArgument:
    """The codec's error, with its fields named as they are in the request."""
    fields = [FieldViolation(f"inference.{bad.field}", bad.description) for bad in error.fields]
    found = InvalidArgument(error.reason, error.message, fields=fields)
    found.metadata = error.metadata
    return found
