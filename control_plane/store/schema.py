"""Creates the tables, and refuses files that this version cannot understand.

The version lives in SQLite's `user_version`, which changes in the same transaction as the tables. A new file gets the
tables as they are now; an older one is brought here by the steps in `UPGRADES`, which are never edited once released.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from control_plane.store.connections import database
from control_plane.store.tables import TABLES, AliasPeriodRow, KafkaClusterRow
from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2

# "HDRC": tells our files from other SQLite databases.
APPLICATION_ID = 0x48445243


def _tell_control_topics_apart() -> None:
    """2: a control topic that was made anew has other messages at the same offsets."""
    _run("ALTER TABLE stream ADD COLUMN source_topic_id VARCHAR(255) NOT NULL DEFAULT ''")
    _run("DROP INDEX stream_source_topic_source_partition_source_offset")
    _run("CREATE UNIQUE INDEX stream_place ON stream (source_topic, source_topic_id, source_partition, source_offset)")
    _run("CREATE TABLE control_topic (topic VARCHAR(255) NOT NULL PRIMARY KEY, topic_id VARCHAR(255) NOT NULL)")


def _keep_periods_of_aliases() -> None:
    """3: the history of aliases begins where they point now."""
    database.create_tables([AliasPeriodRow])
    _run(
        "INSERT INTO model_alias_period (model_id, name, result_id, version, start_time, deleted) "
        "SELECT a.model_id, a.name, a.result_id, r.version, a.update_time, 0 "
        "FROM model_alias a JOIN result r ON r.id = a.result_id"
    )


def _keep_what_is_trained_again() -> None:
    """4: a deployment that trains a result again has its own copy of the stream."""
    _run("ALTER TABLE deployment ADD COLUMN from_result_id INTEGER")
    _run("ALTER TABLE deployment ADD COLUMN stream_pb BLOB NOT NULL DEFAULT x''")


def _keep_refused_announcements() -> None:
    """5: a deployment that waits for its stream shows the last announcement for it that was refused."""
    _run("ALTER TABLE deployment ADD COLUMN refused_pb BLOB")


def _keep_where_attempts_began() -> None:
    """6: attempts go on where a checkpoint is."""
    _run("ALTER TABLE result ADD COLUMN best_step INTEGER NOT NULL DEFAULT 0")


def _keep_curves() -> None:
    """7: ROC curves and residuals."""
    _run("ALTER TABLE result ADD COLUMN curves_pb BLOB NOT NULL DEFAULT x''")


def _keep_allowed_topics() -> None:
    """8: a deployment may take streams of some topics only."""
    _run("ALTER TABLE deployment ADD COLUMN allowed_topics TEXT NOT NULL DEFAULT ''")


def _name_kafka_clusters() -> None:
    """9: inferences may read and write other Kafka clusters than the platform's."""
    database.create_tables([KafkaClusterRow])


def _run(statement: str) -> None:
    database.execute_sql(statement)  # type: ignore[no-untyped-call]


# From version 1 to 2, from 2 to 3, and so on.
UPGRADES: tuple[Callable[[], None], ...] = (
    _tell_control_topics_apart,
    _keep_periods_of_aliases,
    _keep_what_is_trained_again,
    _keep_refused_announcements,
    _keep_where_attempts_began,
    _keep_curves,
    _keep_allowed_topics,
    _name_kafka_clusters,
)

VERSION = 1 + len(UPGRADES)


def migrate(path: Path) -> None:
    """Bring the file to this version, each step in its own transaction; FailedPrecondition for a newer one."""
    _check_owner(path)
    while (found := int(database.pragma("user_version"))) < VERSION:
        with database.atomic("IMMEDIATE"):
            database.pragma("user_version", _step_from(found))
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


def _step_from(version: int) -> int:
    """One step, and the version that it leads to."""
    if version == 0:
        database.create_tables(TABLES, safe=False)
        return VERSION
    UPGRADES[version - 1]()
    return version + 1


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
