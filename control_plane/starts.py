"""Where an inference begins: resolved once, when it is created."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.store import inferences, states
from headrace.errors import FailedPrecondition, FieldViolation, InvalidArgument
from headrace.v1 import error_pb2, inference_pb2
from headrace.v1.inference_pb2 import Inference
from streams.answers import inference_group
from streams.committed import committed_offsets
from streams.kafka import KafkaSettings, offsets_at, topic_id, watermarks
from streams.topic_watch import recreated


def bad_start(wish: Inference) -> Iterable[FieldViolation]:
    """What is wrong with it by itself."""
    if wish.start == inference_pb2.START_POSITION_TIME and not wish.HasField("start_time"):
        yield FieldViolation("inference.start_time", "must be set for the start TIME")
    if wish.start == inference_pb2.START_POSITION_INFERENCE and not wish.start_inference_id:
        yield FieldViolation("inference.start_inference_id", "must be set for the start INFERENCE")
    if wish.start_inference_id and wish.start not in (
        inference_pb2.START_POSITION_UNSPECIFIED,
        inference_pb2.START_POSITION_INFERENCE,
    ):
        yield FieldViolation("inference.start_inference_id", "must be left out for another start than INFERENCE")


def complete_start(wish: Inference) -> None:
    """Fill in the default, and look at the inference that went before.

    A query: raises NotFound, FailedPrecondition (WRONG_STATE) while it runs, InvalidArgument for one of another input.
    """
    if not wish.start_inference_id:
        wish.start = wish.start or inference_pb2.START_POSITION_COMMITTED
        return
    wish.start = inference_pb2.START_POSITION_INFERENCE
    before = inferences.get(wish.start_inference_id)
    _check_same_input(wish, before)
    if before.state not in states.FINAL_INFERENCE_STATES:
        state = states.inference_state_name(before.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the inference {before.id} ({before.name}) is {state}: stop it, then another can go on where it stopped",
            resource="inference",
            id=before.id,
            state=state,
        )


def resolve_start(kafka: KafkaSettings, wish: Inference, before: Inference | None) -> None:
    """Fill in which log it begins in, and where: what is written from now on is answered whenever a replica is up.

    before: the one that it goes on after.

    The log first: one that is made anew in between is not the one that the offsets are held to. Raises NotFound
    (UNKNOWN_TOPIC), FailedPrecondition (TOPIC_RECREATED) where the inference that went before read another one.
    """
    wish.input_topic_id = topic_id(kafka, wish.input_topic)
    if before is None:
        wish.start_offsets.update(_start_offsets(kafka, wish))
        return
    if before.input_topic_id not in ("", wish.input_topic_id):
        raise recreated(wish.input_topic, before.input_topic_id, wish.input_topic_id)
    wish.start_offsets.update(before.start_offsets)
    wish.start_offsets.update(committed_offsets(kafka, inference_group(before), wish.input_topic))


def _start_offsets(kafka: KafkaSettings, wish: Inference) -> dict[int, int]:
    if wish.start == inference_pb2.START_POSITION_EARLIEST:
        return {}
    if wish.start == inference_pb2.START_POSITION_TIME:
        return offsets_at(kafka, wish.input_topic, wish.start_time.ToMilliseconds())
    return {number: high for number, (_, high) in watermarks(kafka, wish.input_topic).items()}


def _check_same_input(wish: Inference, before: Inference) -> None:
    """Offsets say nothing about another topic."""
    if (wish.input_topic, wish.input_kafka_cluster) == (before.input_topic, before.input_kafka_cluster):
        return
    cluster = f" on the Kafka cluster {before.input_kafka_cluster}" if before.input_kafka_cluster else ""
    reads = f"{before.id} ({before.name}) reads {before.input_topic}{cluster}"
    rule = f"must be of an inference with the same input; {reads}"
    violation = FieldViolation("inference.start_inference_id", rule)
    raise InvalidArgument(
        error_pb2.REASON_INVALID_FIELD, f"{violation.field} {rule}", fields=[violation], field=violation.field
    )
