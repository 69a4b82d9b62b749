"""What every resource's queries share: finding a row by its id, and checking that it is the one that was read."""

from __future__ import annotations

from typing import TypeVar

from control_plane.store.rows import etag
from control_plane.store.tables import (
    ConfigurationRow,
    DeploymentRow,
    InferenceRow,
    KafkaClusterRow,
    ModelRow,
    ResultRow,
    StreamRow,
)
from headrace.errors import Aborted, AlreadyExists, FailedPrecondition, FieldViolation, NotFound
from headrace.v1 import error_pb2

R = TypeVar("R", ModelRow, ConfigurationRow, DeploymentRow, ResultRow, StreamRow, InferenceRow, KafkaClusterRow)
Named = type[ModelRow] | type[ConfigurationRow] | type[InferenceRow] | type[KafkaClusterRow]


def row_of(table: type[R], id: int) -> R:
    """The row; NotFound names the resource and the id."""
    row: R | None = table.get_or_none(table.id == id)
    if row is None:
        raise not_found(table._meta.table_name, id)
    return row


def not_found(resource: str, id: int) -> NotFound:
    return NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, f"no {resource} has the id {id}", resource=resource, id=id)


def not_named(resource: str, name: str) -> NotFound:
    what = f"no {resource} is called {name!r}"
    return NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, what, resource=resource, name=name)


def check_etag(row: ModelRow | ConfigurationRow | InferenceRow, given: str) -> None:
    """An empty etag is accepted; one that is not the row's raises Aborted."""
    if given and given != etag(row):
        raise Aborted(
            error_pb2.REASON_STALE_ETAG,
            f"the {row._meta.table_name} {row.id} was changed by somebody else (its etag is {etag(row)}, not {given}); "
            "read it again and repeat the change",
            resource=row._meta.table_name,
            id=row.id,
            etag=etag(row),
        )


def check_name_free(table: Named, name: str, own_id: int = 0) -> None:
    """Raises AlreadyExists when another row has the name."""
    resource = table._meta.table_name
    other = table.get_or_none(table.name == name)
    if other is not None and other.id != own_id:
        raise AlreadyExists(
            error_pb2.REASON_NAME_TAKEN,
            f"the name {name!r} is taken by the {resource} {other.id}; choose another",
            fields=[FieldViolation(f"{resource}.name", "is taken")],
            resource=resource,
            name=name,
            id=other.id,
        )


def in_use(resource: str, id: int, by: str, ids: list[int]) -> FailedPrecondition:
    """The error of deleting what others use; at most ten of them are named."""
    named = ", ".join(str(user) for user in ids[:10]) + (", …" if len(ids) > 10 else "")
    plural = by if len(ids) == 1 else f"{by}s"
    return FailedPrecondition(
        error_pb2.REASON_RESOURCE_IN_USE,
        f"the {resource} {id} is used by the {plural} {named}; delete {'that' if len(ids) == 1 else 'those'} first",
        resource=resource,
        id=id,
        used_by=by,
        used_by_ids=named,
    )
