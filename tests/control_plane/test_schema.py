"""Files of older versions: brought to this one, with everything that is in them."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest

from control_plane.store import Store, alias_periods, deployments, models, results, streams
from control_plane.store.schema import VERSION
from headrace.v1 import deployment_pb2
from headrace.v1.stream_catalog_pb2 import RecordStreamRequest
from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, DIALECT_HEADRACE, OffsetRange, StreamAnnouncement, StreamSource
from tests.control_plane.conftest import new_training

# What version 1 had and later ones changed.
VERSION_1 = """
DROP INDEX stream_place;
ALTER TABLE stream DROP COLUMN source_topic_id;
CREATE UNIQUE INDEX stream_source_topic_source_partition_source_offset
    ON stream (source_topic, source_partition, source_offset);
DROP TABLE control_topic;
DROP TABLE model_alias_period;
ALTER TABLE deployment DROP COLUMN from_result_id;
ALTER TABLE deployment DROP COLUMN stream_pb;
ALTER TABLE deployment DROP COLUMN refused_pb;
ALTER TABLE deployment DROP COLUMN allowed_topics;
ALTER TABLE result DROP COLUMN best_step;
ALTER TABLE result DROP COLUMN curves_pb;
DROP TABLE kafka_cluster;
PRAGMA user_version = 1;
"""


def announced(offset: int) -> RecordStreamRequest:
    announcement = StreamAnnouncement(
        message_id=f"m{offset}",
        deployment_id=offset,
        ranges=[OffsetRange(topic="data", end=10)],
        input_format=DATA_FORMAT_RAW,
    )
    source = StreamSource(topic="control", offset=offset)
    return RecordStreamRequest(source=source, dialect=DIALECT_HEADRACE, announcement=announcement)


def described(path: Path) -> dict[str, object]:
    """Tables with their columns (name, type, not null, key), and indexes with theirs."""
    with sqlite3.connect(path) as raw:
        names = raw.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        return {
            name: sorted(
                raw.execute(
                    f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{name}')"
                    if kind == "table"
                    else f"SELECT name FROM pragma_index_info('{name}')"
                )
            )
            for kind, name in names
        }


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A file of version 1 that has recorded two streams."""
    path = tmp_path / "old.db"
    with Store.open(path) as store:
        for offset in range(2):
            store.write_now(partial(streams.record, announced(offset)))
    with sqlite3.connect(path) as raw:
        raw.executescript(VERSION_1)
    return path


def test_an_older_file_becomes_what_a_new_one_is(version_1: Path, tmp_path: Path) -> None:
    Store.open(version_1).close()
    Store.open(tmp_path / "new.db").close()
    assert described(version_1) == described(tmp_path / "new.db")
    with sqlite3.connect(version_1) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_what_an_older_version_recorded_is_taken_for_the_present_topics(version_1: Path) -> None:
    with Store.open(version_1) as store:
        assert store.write_now(partial(streams.follow, "control", "id-1")) == {0: 2}
        assert not store.write_now(partial(streams.record, announced(1))).created
        assert store.write_now(partial(streams.follow, "control", "id-1")) == {0: 2}
        # Made anew: the same places are others, and the streams stay.
        assert store.write_now(partial(streams.follow, "control", "id-2")) == {}
        moved = announced(7)
        moved.source.offset = 0
        assert store.write_now(partial(streams.record, moved)).created
        assert not store.write_now(partial(streams.record, moved)).created
        assert store.read_now(partial(streams.positions, "control")) == {0: 1}
        assert len(store.read_now(partial(streams.page, before_id=None, limit=10))) == 3


def test_a_file_of_the_first_version_keeps_its_aliases_and_gets_their_history(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as store:
        (result_id,) = store.write_now(lambda: new_training("a")).result_ids
        store.write_now(partial(results.set_state, result_id, deployment_pb2.STATE_FINISHED))
        alias = store.write_now(lambda: models.set_alias(1, "champion", result_id))
    with sqlite3.connect(path) as raw:
        raw.executescript(VERSION_1)
    with Store.open(path) as store:
        assert store.read_now(lambda: models.alias(1, "champion")) == alias
        (period,) = store.read_now(lambda: alias_periods.page(1, before_id=None, limit=9))
        assert (period.result_id, period.start_time) == (result_id, alias.update_time)
        assert store.read_now(lambda: deployments.get(1)).from_result_id == 0


def test_an_upgrade_that_fails_changes_nothing(version_1: Path) -> None:
    with sqlite3.connect(version_1) as raw:
        raw.execute("CREATE TABLE control_topic (in_the_way INTEGER)")  # the last statement of the step stumbles
    before = described(version_1)
    with pytest.raises(Exception, match="control_topic"):
        Store.open(version_1)
    assert described(version_1) == before
