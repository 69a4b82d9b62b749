"""Queries of models and their aliases."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.store import alias_periods, changes, inferences
from control_plane.store.changes import Kind
from control_plane.store.clock import now_us
from control_plane.store.lookups import check_etag, check_name_free, in_use, row_of
from control_plane.store.rows import alias_message, model_message
from control_plane.store.states import state_name
from control_plane.store.tables import AliasRow, MemberRow, ModelRow, ResultRow
from headrace.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from headrace.v1 import deployment_pb2, error_pb2, model_pb2


def create(model: model_pb2.Model) -> model_pb2.Model:
    """Store a validated model: signature and code_sha256 are set, id, times and etag are given here."""
    check_new(model)
    now = now_us()
    row = ModelRow.create(create_time=now, update_time=now, **_columns(model))
    changes.note(Kind.MODEL, row.id)
    return model_message(row, full=True)


def check_new(model: model_pb2.Model) -> None:
    """Whether a model could be stored: its name is free, and the model of the next tier exists."""
    check_name_free(ModelRow, model.name)
    if model.upper_model_id:
        row_of(ModelRow, model.upper_model_id)


def get(id: int, *, full: bool = True) -> model_pb2.Model:
    return model_message(row_of(ModelRow, id), full=full)


def page(
    *, before_id: int | None, limit: int, full: bool = False, framework: int = 0, name: str = ""
) -> list[model_pb2.Model]:
    """Newest first, those with an id below `before_id`."""
    query = ModelRow.select().order_by(ModelRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(ModelRow.id < before_id)
    if framework:
        query = query.where(ModelRow.framework == framework)
    if name:
        query = query.where(ModelRow.name == name)
    return [model_message(row, full=full) for row in query]


def update(model: model_pb2.Model, if_etag: str) -> model_pb2.Model:
    """Replace what people edit; Aborted when the row's etag is no longer `if_etag`."""
    row = row_of(ModelRow, model.id)
    check_etag(row, if_etag)
    check_name_free(ModelRow, model.name, row.id)
    if model.upper_model_id:
        _check_no_circle(row.id, model.upper_model_id)
    if model.framework != row.framework and has_results(row.id):
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the model {row.id} has results, so its framework cannot change; create another model",
            resource="model",
            id=row.id,
        )
    for column, value in _columns(model).items():
        setattr(row, column, value)
    row.revision += 1
    row.update_time = now_us()
    row.save()
    changes.note(Kind.MODEL, row.id)
    return model_message(row, full=True)


def delete(id: int) -> None:
    """Delete a model that no configuration, result or sub-model uses."""
    row = row_of(ModelRow, id)
    members = MemberRow.select().where(MemberRow.model_id == id)
    if configurations := [member.configuration_id for member in members]:
        raise in_use("model", id, "configuration", configurations)
    if results := [result.id for result in ResultRow.select(ResultRow.id).where(ResultRow.model_id == id)]:
        raise in_use("model", id, "result", results)
    if lower := [model.id for model in ModelRow.select(ModelRow.id).where(ModelRow.upper_model_id == id)]:
        raise in_use("model", id, "model", lower)
    row.delete_instance()
    changes.note(Kind.MODEL, id)


def has_results(id: int) -> bool:
    return bool(ResultRow.select(ResultRow.id).where(ResultRow.model_id == id).exists())


def set_alias(
    model_id: int, alias: str, result_id: int = 0, *, version: int = 0, expected_result_id: int | None = None
) -> model_pb2.ModelAlias:
    """Point an alias at a finished result of the model, wherever it pointed before; the result or its version is given.
    Inferences that serve it follow.

    `expected_result_id`: Aborted unless the alias points there now (0: unless there is no such alias).
    """
    row_of(ModelRow, model_id)
    result = row_of(ResultRow, result_id) if result_id else _of_version(model_id, version)
    _check_takes_alias(model_id, result)
    present = AliasRow.get_or_none(AliasRow.model_id == model_id, AliasRow.name == alias)
    _check_expected(model_id, alias, present, expected_result_id)
    if present is not None and present.result_id == result.id:
        return alias_message(present, result.version)
    now = now_us()
    AliasRow.insert(model_id=model_id, name=alias, result_id=result.id, update_time=now).on_conflict(
        conflict_target=[AliasRow.model_id, AliasRow.name],
        update={AliasRow.result_id: result.id, AliasRow.update_time: now},
    ).execute()
    alias_periods.begin(result, alias, now)
    inferences.follow_alias(model_id, alias, result.id)
    changes.note(Kind.MODEL, model_id)
    return alias_message(_alias_row(model_id, alias), result.version)


def alias(model_id: int, alias: str) -> model_pb2.ModelAlias:
    return _alias_messages([_alias_row(model_id, alias)])[0]


def alias_page(model_id: int, *, after: str, limit: int) -> list[model_pb2.ModelAlias]:
    """By name, those behind `after`."""
    row_of(ModelRow, model_id)
    query = AliasRow.select().where(AliasRow.model_id == model_id, AliasRow.name > after)
    return _alias_messages(list(query.order_by(AliasRow.name).limit(limit)))


def delete_alias(model_id: int, alias: str, expected_result_id: int | None = None) -> None:
    """`expected_result_id`: Aborted unless it points there now."""
    row = _alias_row(model_id, alias)
    _check_expected(model_id, alias, row, expected_result_id)
    row.delete_instance()
    alias_periods.end(model_id, alias, now_us(), deleted=True)
    changes.note(Kind.MODEL, model_id)


def _of_version(model_id: int, version: int) -> ResultRow:
    row: ResultRow | None = ResultRow.get_or_none(ResultRow.model_id == model_id, ResultRow.version == version)
    if row is None or version < 1:
        raise NotFound(
            error_pb2.REASON_RESOURCE_NOT_FOUND,
            f"the model {model_id} has no version {version} (any more)",
            resource="result",
            model_id=model_id,
            version=version,
        )
    return row


def _check_takes_alias(model_id: int, result: ResultRow) -> None:
    if result.model_id != model_id:
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FIELD,
            f"the result {result.id} is one of the model {result.model_id}, not of the model {model_id}",
            resource="result",
            id=result.id,
            model_id=result.model_id,
        )
    if result.state != deployment_pb2.STATE_FINISHED:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {result.id} is {state_name(result.state)}; an alias points to a finished one",
            resource="result",
            id=result.id,
            state=state_name(result.state),
        )


def _check_expected(model_id: int, alias: str, present: AliasRow | None, expected_result_id: int | None) -> None:
    found = 0 if present is None else present.result_id
    if expected_result_id is None or expected_result_id == found:
        return
    points = f"points to the result {found}" if found else "does not exist"
    expected = f"not to {expected_result_id}" if expected_result_id else "and was expected not to exist"
    raise Aborted(
        error_pb2.REASON_STALE_ETAG,
        f"the alias {alias!r} of the model {model_id} {points}, {expected}: it was moved by somebody else; "
        "look again and repeat the change",
        resource="model_alias",
        model_id=model_id,
        alias=alias,
        result_id=found,
    )


def _alias_messages(rows: Sequence[AliasRow]) -> list[model_pb2.ModelAlias]:
    ids = [row.result_id for row in rows]
    versions = {
        row.id: row.version for row in ResultRow.select(ResultRow.id, ResultRow.version).where(ResultRow.id.in_(ids))
    }
    return [alias_message(row, versions[row.result_id]) for row in rows]


def _alias_row(model_id: int, alias: str) -> AliasRow:
    row: AliasRow | None = AliasRow.get_or_none(AliasRow.model_id == model_id, AliasRow.name == alias)
    if row is None:
        row_of(ModelRow, model_id)
        raise NotFound(
            error_pb2.REASON_RESOURCE_NOT_FOUND,
            f"the model {model_id} has no alias {alias!r}",
            resource="model_alias",
            model_id=model_id,
            alias=alias,
        )
    return row


def _check_no_circle(id: int, upper_id: int) -> None:
    seen = [id]
    step: int | None = upper_id
    while step:
        if step in seen:
            raise InvalidArgument(
                error_pb2.REASON_INVALID_FIELD,
                f"the model {upper_id} is below the model {id} already; tiers cannot form a circle",
                upper_model_id=upper_id,
            )
        seen.append(step)
        step = row_of(ModelRow, step).upper_model_id


def _columns(model: model_pb2.Model) -> dict[str, object]:
    return {
        "name": model.name,
        "description": model.description,
        "framework": model.framework,
        "imports": model.imports,
        "code": model.code,
        "upper_model_id": model.upper_model_id or None,
        "signature_pb": model.signature.SerializeToString(),
        "code_sha256": model.code_sha256,
    }
