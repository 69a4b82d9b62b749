"""Queries of configurations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from control_plane.store import changes
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.lookups import check_etag, check_name_free, in_use, row_of
from control_plane.store.rows import configuration_message
from control_plane.store.tables import ConfigurationRow, DeploymentRow, MemberRow, ModelRow
from headrace.errors import FieldViolation, NotFound
from headrace.v1 import configuration_pb2, error_pb2


def create(configuration: configuration_pb2.Configuration) -> configuration_pb2.Configuration:
    check_name_free(ConfigurationRow, configuration.name)
    _check_models_exist(configuration.model_ids)
    now = now_us()
    row = ConfigurationRow.create(
        create_time=now, update_time=now, name=configuration.name, description=configuration.description
    )
    _replace_members(row.id, configuration.model_ids)
    changes.note(Kind.CONFIGURATION, row.id)
    return configuration_message(row, configuration.model_ids)


def get(id: int) -> configuration_pb2.Configuration:
    row = row_of(ConfigurationRow, id)
    return configuration_message(row, _members([id])[id])


def page(
    *, before_id: int | None, limit: int, model_id: int = 0, name: str = ""
) -> list[configuration_pb2.Configuration]:
    """Newest first, those with an id below `before_id`."""
    query = ConfigurationRow.select().order_by(ConfigurationRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(ConfigurationRow.id < before_id)
    if model_id:
        query = query.where(ConfigurationRow.id.in_(_with_model(model_id)))
    if name:
        query = query.where(ConfigurationRow.name == name)
    rows = list(query)
    members = _members([row.id for row in rows])
    return [configuration_message(row, members[row.id]) for row in rows]


def update(configuration: configuration_pb2.Configuration, if_etag: str) -> configuration_pb2.Configuration:
    """Replace what people edit; Aborted when the row's etag is no longer `if_etag`."""
    row = row_of(ConfigurationRow, configuration.id)
    check_etag(row, if_etag)
    check_name_free(ConfigurationRow, configuration.name, row.id)
    _check_models_exist(configuration.model_ids)
    row.name = configuration.name
    row.description = configuration.description
    row.revision += 1
    row.update_time = now_us()
    row.save()
    _replace_members(row.id, configuration.model_ids)
    changes.note(Kind.CONFIGURATION, row.id)
    return configuration_message(row, configuration.model_ids)


def delete(id: int) -> None:
    """Delete a configuration that no deployment uses."""
    row = row_of(ConfigurationRow, id)
    deployments = DeploymentRow.select(DeploymentRow.id).where(DeploymentRow.configuration_id == id)
    if ids := [deployment.id for deployment in deployments]:
        raise in_use("configuration", id, "deployment", ids)
    row.delete_instance()
    changes.note(Kind.CONFIGURATION, id)


def _with_model(model_id: int) -> list[int]:
    members = MemberRow.select(MemberRow.configuration_id).where(MemberRow.model_id == model_id)
    return [member.configuration_id for member in members]


def _members(ids: Sequence[int]) -> dict[int, list[int]]:
    """Configuration id to its model ids in order."""
    found: dict[int, list[int]] = defaultdict(list)
    query = MemberRow.select().where(MemberRow.configuration_id.in_(ids)).order_by(MemberRow.position)
    for member in query:
        found[member.configuration_id].append(member.model_id)
    return found


def _replace_members(id: int, model_ids: Iterable[int]) -> None:
    MemberRow.delete().where(MemberRow.configuration_id == id).execute()
    for position, model_id in enumerate(model_ids):
        MemberRow.create(configuration_id=id, position=position, model_id=model_id)


def _check_models_exist(model_ids: Iterable[int]) -> None:
    wanted = list(model_ids)
    known = {row.id for row in ModelRow.select(ModelRow.id).where(ModelRow.id.in_(wanted))}
    missing = [wish for wish in wanted if wish not in known]
    if missing:
        named = ", ".join(str(wish) for wish in missing)
        raise NotFound(
            error_pb2.REASON_RESOURCE_NOT_FOUND,
            f"no model has the id {named}",
            fields=[
                FieldViolation(f"configuration.model_ids[{wanted.index(wish)}]", f"no model has the id {wish}")
                for wish in missing
            ],
            resource="model",
            id=named,
        )
