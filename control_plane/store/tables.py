"""The tables. Rows stay inside `store`; everybody else sees protobuf messages.

Times are microseconds since 1970 UTC. Columns that end in `_pb` hold a serialized v1 message in which nothing is
queried. Ids are AUTOINCREMENT: never given twice, because control messages in Kafka outlive deleted rows.
"""

from __future__ import annotations

from typing import Any

from peewee import (
    SQL,
    AutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    IntegerField,
    Model,
    NodeList,
    TextField,
)

from control_plane.store.connections import database


class RowId(AutoField):
    """INTEGER PRIMARY KEY AUTOINCREMENT."""

    def ddl(self, ctx: Any) -> Any:
        return NodeList((super().ddl(ctx), SQL("AUTOINCREMENT")))


def _references(table: str, on_delete: str = "RESTRICT") -> list[Any]:
    return [SQL(f"REFERENCES {table}(id) ON DELETE {on_delete}")]


class Table(Model):
    class Meta:
        database = database
        legacy_table_names = False


class ModelRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    revision = IntegerField(default=1)
    name = CharField(unique=True)
    description = TextField(default="")
    framework = IntegerField()
    imports = TextField(default="")
    code = TextField()
    upper_model_id = IntegerField(null=True, constraints=_references("model"), index=True)
    signature_pb = BlobField(default=b"")
    code_sha256 = CharField()
    # The newest version given to a result: versions are not given twice, even when their result is deleted.
    last_version = IntegerField(default=0)

    class Meta:
        table_name = "model"


class ConfigurationRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    revision = IntegerField(default=1)
    name = CharField(unique=True)
    description = TextField(default="")

    class Meta:
        table_name = "configuration"


class MemberRow(Table):
    """A model of a configuration, at its place."""

    configuration_id = IntegerField(constraints=_references("configuration", "CASCADE"))
    position = IntegerField()
    model_id = IntegerField(constraints=_references("model"), index=True)

    class Meta:
        table_name = "configuration_member"
        primary_key = CompositeKey("configuration_id", "position")
        indexes = ((("configuration_id", "model_id"), True),)


class StreamRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    # Unique per announcement; the legacy dialect has none: its place in the log stands for it.
    message_id = CharField(unique=True)
    # No reference: a stream may come before its deployment exists.
    deployment_id = BigIntegerField(index=True)
    announcement_pb = BlobField()
    dialect = IntegerField()
    source_topic = CharField()
    # Kafka's id of the control topic: made anew, it has other messages at the same offsets. Empty: not known yet.
    source_topic_id = CharField(default="")
    source_partition = IntegerField()
    source_offset = BigIntegerField()
    source_time = BigIntegerField(null=True)

    class Meta:
        table_name = "stream"


StreamRow.add_index(
    StreamRow.source_topic,
    StreamRow.source_topic_id,
    StreamRow.source_partition,
    StreamRow.source_offset,
    unique=True,
    name="stream_place",
)


class ControlTopicRow(Table):
    """The control topic whose messages are being recorded, by the id that Kafka gave it."""

    topic = CharField(primary_key=True)
    topic_id = CharField()

    class Meta:
        table_name = "control_topic"


class ControlPositionRow(Table):
    """How far a partition of the present control topic is recorded."""

    topic = CharField()
    partition = IntegerField()
    next_offset = BigIntegerField()

    class Meta:
        table_name = "control_position"
        primary_key = CompositeKey("topic", "partition")


class DeploymentRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    configuration_id = IntegerField(constraints=_references("configuration"), index=True)
    description = TextField(default="")
    settings_pb = BlobField(default=b"")
    stream_id = IntegerField(null=True, constraints=_references("stream", "SET NULL"), index=True)
    resources_pb = BlobField(default=b"")
    kafka_cluster = CharField(default="")
    # Follows from the states of the results, in the transaction that changes one of them.
    state = IntegerField(index=True)
    error_pb = BlobField(null=True)
    start_time = BigIntegerField(null=True)
    end_time = BigIntegerField(null=True)
    # The result that it trains again, and v1.Stream: what that was trained on, whatever became of the record.
    from_result_id = IntegerField(null=True)
    stream_pb = BlobField(default=b"")
    # v1.RefusedAnnouncement: the last one for it, while it has no stream.
    refused_pb = BlobField(null=True)
    # Topics joined by commas, which their names do not have. Empty: any.
    allowed_topics = TextField(default="")

    class Meta:
        table_name = "deployment"


class ResultRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    deployment_id = IntegerField(constraints=_references("deployment", "CASCADE"), index=True)
    model_id = IntegerField(constraints=_references("model"), index=True)
    # The model as it was when the training was created: the weights fit no other code.
    model_name = CharField()
    framework = IntegerField()
    imports = TextField(default="")
    code = TextField(default="")
    code_sha256 = CharField()
    version = IntegerField(default=0)
    state = IntegerField(index=True)
    error_pb = BlobField(null=True)
    attempt = IntegerField(default=0)
    # Every event of this attempt up to here is stored.
    acked_seq = BigIntegerField(default=0)
    progress_pb = BlobField(default=b"")
    # v1.Outcome: what became known about the training, without the confusion matrix and what is in `curves_pb`: they
    # are heavy.
    outcome_pb = BlobField(default=b"")
    confusion_matrix_pb = BlobField(default=b"")
    # v1.Outcome: only ROC curves and residuals.
    curves_pb = BlobField(default=b"")
    start_time = BigIntegerField(null=True)
    end_time = BigIntegerField(null=True)
    # The reconciler's memory of attempts that ended without an end of the training.
    failure_count = IntegerField(default=0)
    failure_pb = BlobField(null=True)
    retry_time = BigIntegerField(null=True)
    # The highest epoch that any attempt reached: reaching a higher one is progress and resets `failure_count`.
    best_epoch = IntegerField(default=0)
    # The step, over all epochs, at which any attempt began: beginning at a later one is progress too.
    best_step = BigIntegerField(default=0)

    class Meta:
        table_name = "result"
        indexes = ((("model_id", "version"), False),)


class EventRow(Table):
    """What watchers of results see; its id is the sequence number."""

    id = RowId()
    result_id = IntegerField(constraints=_references("result", "CASCADE"))
    attempt = IntegerField()
    time = BigIntegerField()
    # v1.ResultEvent with only its `kind` set.
    kind_pb = BlobField()
    # Set on epochs: the table holds each number of a result once.
    epoch = IntegerField(null=True)
    # Set on progress, of which only the latest is kept.
    is_progress = BooleanField(default=False)

    class Meta:
        table_name = "result_event"
        indexes = ((("result_id", "epoch"), True), (("result_id", "id"), False))


class ArtifactRow(Table):
    id = RowId()
    result_id = IntegerField(constraints=_references("result", "CASCADE"))
    name = CharField()
    media_type = CharField(default="")
    size_bytes = BigIntegerField()
    sha256 = CharField(index=True)
    create_time = BigIntegerField()

    class Meta:
        table_name = "artifact"
        indexes = ((("result_id", "name"), True),)


class AliasRow(Table):
    model_id = IntegerField(constraints=_references("model", "CASCADE"))
    # `alias` is a method of peewee's.
    name = CharField()
    result_id = IntegerField(constraints=_references("result"), index=True)
    update_time = BigIntegerField()

    class Meta:
        table_name = "model_alias"
        primary_key = CompositeKey("model_id", "name")


class AliasPeriodRow(Table):
    """A time in which an alias pointed to one result; it outlives the alias and the result."""

    id = RowId()
    model_id = IntegerField(constraints=_references("model", "CASCADE"))
    name = CharField()
    result_id = IntegerField()
    version = IntegerField()
    start_time = BigIntegerField()
    end_time = BigIntegerField(null=True)
    # It ended because the alias was deleted.
    deleted = BooleanField(default=False)

    class Meta:
        table_name = "model_alias_period"
        indexes = ((("model_id", "name"), False),)


class InferenceRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    update_time = BigIntegerField()
    revision = IntegerField(default=1)
    name = CharField(unique=True)
    # The result that is served now; with an alias, what it pointed to when last resolved.
    result_id = IntegerField(constraints=_references("result"), index=True)
    model_id = IntegerField(null=True, constraints=_references("model"), index=True)
    alias_name = CharField(default="")
    replicas = IntegerField()
    # v1.Inference: the wish with every default filled in. The columns above are taken from here on reading.
    inference_pb = BlobField()
    state = IntegerField(index=True)
    error_pb = BlobField(null=True)

    class Meta:
        table_name = "inference"


class ReplicaRow(Table):
    inference_id = IntegerField(constraints=_references("inference", "CASCADE"))
    slot = IntegerField()
    # The running number of its process, from 1; 0 before the first.
    attempt = IntegerField(default=0)
    # v1.ReplicaState as last reported or observed.
    state_pb = BlobField(default=b"")
    state = IntegerField(default=1)
    restart_count = IntegerField(default=0)
    # Failures in a row, and when the next attempt may start.
    failure_count = IntegerField(default=0)
    retry_time = BigIntegerField(null=True)
    report_time = BigIntegerField(null=True)
    # When its present process was started.
    start_time = BigIntegerField(null=True)

    class Meta:
        table_name = "replica"
        primary_key = CompositeKey("inference_id", "slot")


class KafkaClusterRow(Table):
    id = RowId()
    create_time = BigIntegerField()
    name = CharField(unique=True)
    # v1.KafkaCluster: its servers and options, with references to secrets in place of these.
    cluster_pb = BlobField()

    class Meta:
        table_name = "kafka_cluster"


class AnswerRow(Table):
    """The answer that a request_id got, for a day."""

    request_id = CharField(primary_key=True)
    method = CharField()
    request_sha256 = CharField()
    answer_pb = BlobField()
    create_time = BigIntegerField(index=True)

    class Meta:
        table_name = "request_answer"


TABLES: tuple[type[Table], ...] = (
    ModelRow,
    ConfigurationRow,
    MemberRow,
    StreamRow,
    ControlTopicRow,
    ControlPositionRow,
    DeploymentRow,
    ResultRow,
    EventRow,
    ArtifactRow,
    AliasRow,
    AliasPeriodRow,
    InferenceRow,
    ReplicaRow,
    KafkaClusterRow,
    AnswerRow,
)
