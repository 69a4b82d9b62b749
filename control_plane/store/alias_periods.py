"""The history of aliases: where each pointed, since when and until when."""

from __future__ import annotations

from control_plane.store.lookups import row_of
from control_plane.store.rows import alias_period_message
from control_plane.store.tables import AliasPeriodRow, ModelRow, ResultRow
from headrace.v1 import model_pb2


def begin(result: ResultRow, alias: str, now_us: int) -> None:
    """The alias of the result's model points to it from now on, and no longer to another."""
    end(result.model_id, alias, now_us)
    AliasPeriodRow.create(
        model_id=result.model_id, name=alias, result_id=result.id, version=result.version, start_time=now_us
    )


def end(model_id: int, alias: str, now_us: int, *, deleted: bool = False) -> None:
    """It points nowhere from now on."""
    present = (AliasPeriodRow.name == alias) & AliasPeriodRow.end_time.is_null()
    changed = AliasPeriodRow.update(end_time=now_us, deleted=deleted)
    changed.where(AliasPeriodRow.model_id == model_id, present).execute()


def page(model_id: int, *, before_id: int | None, limit: int, alias: str = "") -> list[model_pb2.ModelAliasPeriod]:
    """Newest first, those with an id below `before_id`."""
    row_of(ModelRow, model_id)
    query = AliasPeriodRow.select().where(AliasPeriodRow.model_id == model_id)
    if before_id is not None:
        query = query.where(AliasPeriodRow.id < before_id)
    if alias:
        query = query.where(AliasPeriodRow.name == alias)
    return [alias_period_message(row) for row in query.order_by(AliasPeriodRow.id.desc()).limit(limit)]
