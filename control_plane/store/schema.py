"""Creates the tables, and refuses files that this version cannot understand.

The version lives in SQLite's `user_version`, which changes in the same transaction as the tables. A step is a function
in `STEPS`; it is never edited once released.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from control_plane.store.connections import database
from control_plane.store.tables import TABLES, AliasPeriodRow
from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2

# "HDRC": tells our files from other SQLite databases.
APPLICATION_ID = 0x48445243


def _create_tables() -> None:
    database.create_tables(TABLES, safe=False)


def _keep_periods_of_aliases() -> None:
    """A file that was made before has the aliases without their history: it begins where they point now."""
    if database.table_exists("model_alias_period"):
        return
    database.create_tables([AliasPeriodRow])
    _execute(
        "INSERT INTO model_alias_period (model_id, name, result_id, version, start_time, deleted) "
        "SELECT a.model_id, a.name, a.result_id, r.version, a.update_time, 0 "
        "FROM model_alias a JOIN result r ON r.id = a.result_id"
    )


def _keep_what_is_trained_again() -> None:
    if "from_result_id" not in {column.name for column in database.get_columns("deployment")}:
        _execute("ALTER TABLE deployment ADD COLUMN from_result_id INTEGER")
        _execute("ALTER TABLE deployment ADD COLUMN stream_pb BLOB NOT NULL DEFAULT x''")


def _execute(statement: str) -> None:
    database.execute_sql(statement)  # type: ignore[no-untyped-call]


# The first step makes the tables as they are now, so each other one looks whether there is something left to do.
STEPS: tuple[Callable[[], None], ...] = (_create_tables, _keep_periods_of_aliases, _keep_what_is_trained_again)

VERSION = len(STEPS)


def migrate(path: Path) -> None:
    """Bring the file to this version, each step in its own transaction; FailedPrecondition for a newer one."""
    _check_owner(path)
    while (found := int(database.pragma("user_version"))) < VERSION:
        with database.atomic("IMMEDIATE"):
            STEPS[found]()
            database.pragma("user_version", found + 1)
            database.pragma("application_id", APPLICATION_ID)
    if found > VERSION:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the database {path} has version {found}, this program understands versions up to {VERSION}: "
            "it was written by a newer Headrace; install that one again or choose another HEADRACE_DATABASE",
            resource="database",
            path=path,
            version=found,
            supported_version=VERSION,
        )


def _check_owner(path: Path) -> None:
    owner = int(database.pragma("application_id"))
    is_empty = not database.get_tables()
    if owner != APPLICATION_ID and not is_empty:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"{path} is a SQLite database of another program; choose another HEADRACE_DATABASE",
            resource="database",
            path=path,
        )
