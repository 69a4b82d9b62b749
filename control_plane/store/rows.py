"""Rows as v1 messages and back. The only module that knows both.

Functions called `*_message` take a row (and what stands beside it in other tables); the columns' defaults and the
messages' defaults agree: "" and 0 are "not set", NULL is "none".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from control_plane.store.clock import now_us
from control_plane.store.states import SILENT_US
from control_plane.store.tables import (
    AliasPeriodRow,
    AliasRow,
    ArtifactRow,
    ConfigurationRow,
    DeploymentRow,
    EventRow,
    InferenceRow,
    KafkaClusterRow,
    ModelRow,
    ReplicaRow,
    ResultRow,
    StreamRow,
)
from headrace.v1 import (
    configuration_pb2,
    deployment_pb2,
    inference_pb2,
    model_pb2,
    result_collector_pb2,
    result_pb2,
    stream_pb2,
)

M = TypeVar("M", bound=Message)

MICROS = 1_000_000


def timestamp(time_us: int | None) -> timestamp_pb2.Timestamp | None:
    """None stays None, which leaves a message's field unset."""
    if time_us is None:
        return None
    return timestamp_pb2.Timestamp(seconds=time_us // MICROS, nanos=time_us % MICROS * 1000)


def time_us(time: timestamp_pb2.Timestamp) -> int:
    return time.seconds * MICROS + time.nanos // 1000


def parse(kind: type[M], data: bytes | None) -> M:
    """The message of a `_pb` column; empty where the column is."""
    message = kind()
    message.ParseFromString(bytes(data or b""))
    return message


def parse_error(data: bytes | None) -> status_pb2.Status | None:
    return None if data is None else parse(status_pb2.Status, data)


def error_bytes(error: status_pb2.Status | None) -> bytes | None:
    return None if error is None else error.SerializeToString()


def etag(row: ModelRow | ConfigurationRow | InferenceRow) -> str:
    """Changes with every edit; opaque to clients."""
    return f"r{row.revision}"


def model_message(row: ModelRow, *, full: bool) -> model_pb2.Model:
    signature = parse(model_pb2.Signature, row.signature_pb)
    if not full:
        signature.summary = ""
    return model_pb2.Model(
        id=row.id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        name=row.name,
        description=row.description,
        framework=cast(model_pb2.Framework, row.framework),
        imports=row.imports if full else "",
        code=row.code if full else "",
        upper_model_id=row.upper_model_id or 0,
        signature=signature if row.signature_pb else None,
        code_sha256=row.code_sha256,
        etag=etag(row),
    )


def alias_message(row: AliasRow, version: int) -> model_pb2.ModelAlias:
    """`version` is the result's."""
    return model_pb2.ModelAlias(
        model_id=row.model_id,
        alias=row.name,
        result_id=row.result_id,
        version=version,
        update_time=timestamp(row.update_time),
    )


def alias_period_message(row: AliasPeriodRow) -> model_pb2.ModelAliasPeriod:
    return model_pb2.ModelAliasPeriod(
        id=row.id,
        model_id=row.model_id,
        alias=row.name,
        result_id=row.result_id,
        version=row.version,
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        deleted=row.deleted,
    )


def configuration_message(row: ConfigurationRow, model_ids: Iterable[int]) -> configuration_pb2.Configuration:
    return configuration_pb2.Configuration(
        id=row.id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        name=row.name,
        description=row.description,
        model_ids=model_ids,
        etag=etag(row),
    )


def topic_names(text: str) -> list[str]:
    """Of a column of them, joined by commas."""
    return [name for name in text.split(",") if name]


def deployment_message(row: DeploymentRow, result_ids: Iterable[int]) -> deployment_pb2.Deployment:
    return deployment_pb2.Deployment(
        id=row.id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        configuration_id=row.configuration_id,
        description=row.description,
        settings=parse(deployment_pb2.TrainingSettings, row.settings_pb),
        stream_id=row.stream_id or 0,
        resources=parse(deployment_pb2.Resources, row.resources_pb) if row.resources_pb else None,
        kafka_cluster=row.kafka_cluster,
        state=cast(deployment_pb2.State, row.state),
        error=parse_error(row.error_pb),
        result_ids=result_ids,
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        from_result_id=row.from_result_id or 0,
        allowed_topics=topic_names(row.allowed_topics),
        refused_announcement=None if row.refused_pb is None else parse(stream_pb2.RefusedAnnouncement, row.refused_pb),
    )


def artifact_message(row: ArtifactRow) -> result_pb2.Artifact:
    return result_pb2.Artifact(name=row.name, media_type=row.media_type, size_bytes=row.size_bytes, sha256=row.sha256)


def result_message(
    row: ResultRow, artifacts: Iterable[ArtifactRow], aliases: Iterable[str], *, full: bool
) -> result_pb2.Result:
    """`full` adds the code, the confusion matrix and the curves."""
    outcome = parse(result_collector_pb2.Outcome, row.outcome_pb)
    message = result_pb2.Result(
        id=row.id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        deployment_id=row.deployment_id,
        model_id=row.model_id,
        model_name=row.model_name,
        framework=cast(model_pb2.Framework, row.framework),
        imports=row.imports if full else "",
        code=row.code if full else "",
        code_sha256=row.code_sha256,
        version=row.version,
        attempt=row.attempt,
        state=cast(deployment_pb2.State, row.state),
        error=parse_error(row.error_pb),
        progress=parse(result_pb2.Progress, row.progress_pb) if row.progress_pb else None,
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        artifacts=(artifact_message(artifact) for artifact in artifacts),
        aliases=aliases,
        framework_version=outcome.framework_version,
        sandbox_level=outcome.sandbox_level,
        decode_error_count=outcome.decode_error_count,
    )
    for name in ("metrics", "training_time", "reading_time", "stream", "settings", "split_sizes", "signature"):
        if outcome.HasField(name):
            getattr(message, name).CopyFrom(getattr(outcome, name))
    if full and row.confusion_matrix_pb:
        message.confusion_matrix.CopyFrom(parse(result_pb2.ConfusionMatrix, row.confusion_matrix_pb))
    if full and row.curves_pb:
        curves = parse(result_collector_pb2.Outcome, row.curves_pb)
        for name in ("roc", "residuals"):
            if curves.HasField(name):
                getattr(message, name).CopyFrom(getattr(curves, name))
    return message


def event_message(row: EventRow) -> result_pb2.ResultEvent:
    event = parse(result_pb2.ResultEvent, row.kind_pb)
    number_event(event, sequence=row.id, result_id=row.result_id, attempt=row.attempt, time_us=row.time)
    return event


def number_event(event: result_pb2.ResultEvent, *, sequence: int, result_id: int, attempt: int, time_us: int) -> None:
    """Add to an event's kind what stands in columns."""
    event.sequence = sequence
    event.result_id = result_id
    event.attempt = attempt
    event.time.seconds, event.time.nanos = time_us // MICROS, time_us % MICROS * 1000


def stream_message(row: StreamRow) -> stream_pb2.Stream:
    """Without availability, which Kafka knows, and without the range string, which `streams` writes."""
    said = parse(stream_pb2.StreamAnnouncement, row.announcement_pb)
    return stream_pb2.Stream(
        id=row.id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        deployment_id=row.deployment_id,
        ranges=said.ranges,
        unsupervised_ranges=said.unsupervised_ranges,
        input_format=said.input_format,
        input_config=said.input_config,
        validation_rate=said.validation_rate,
        test_rate=said.test_rate,
        record_count=said.record_count,
        description=said.description,
        restrictions=said.restrictions,
        incremental=said.incremental,
        open_topics=said.open_topics,
        unsupervised_open_topics=said.unsupervised_open_topics,
        stream_key=said.stream_key,
        topic_ids=said.topic_ids,
        message_id=row.message_id,
        dialect=cast(stream_pb2.Dialect, row.dialect),
        source=stream_pb2.StreamSource(
            topic=row.source_topic,
            partition=row.source_partition,
            offset=row.source_offset,
            time=timestamp(row.source_time),
        ),
    )


def inference_message(
    row: InferenceRow, replicas: Sequence[ReplicaRow], model_name: str, model_version: int
) -> inference_pb2.Inference:
    message = parse(inference_pb2.Inference, row.inference_pb)
    message.MergeFrom(
        inference_pb2.Inference(
            id=row.id,
            create_time=timestamp(row.create_time),
            update_time=timestamp(row.update_time),
            name=row.name,
            result_id=row.result_id,
            state=cast(inference_pb2.InferenceState, row.state),
            error=parse_error(row.error_pb),
            replica_states=(replica_message(replica) for replica in replicas),
            etag=etag(row),
            model_name=model_name,
            model_version=model_version,
        )
    )
    message.model_id = row.model_id or 0
    message.alias = row.alias_name
    message.replicas = row.replicas
    return message


def kafka_cluster_message(row: KafkaClusterRow) -> deployment_pb2.KafkaCluster:
    message = parse(deployment_pb2.KafkaCluster, row.cluster_pb)
    message.id, message.name = row.id, row.name
    message.create_time.CopyFrom(timestamp(row.create_time) or timestamp_pb2.Timestamp())
    return message


def replica_message(row: ReplicaRow) -> inference_pb2.ReplicaState:
    message = parse(inference_pb2.ReplicaState, row.state_pb)
    message.slot = row.slot
    message.state = cast(inference_pb2.InferenceState, row.state)
    message.restart_count = row.restart_count
    message.live = row.report_time is not None and now_us() - row.report_time <= SILENT_US
    message.ready &= message.live
    if row.report_time is not None:
        message.report_time.CopyFrom(timestamp(row.report_time) or timestamp_pb2.Timestamp())
    return message
