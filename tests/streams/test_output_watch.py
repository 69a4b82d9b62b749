"""Records that are committed and hidden behind a transaction that does not end; topics that are gone."""

from collections.abc import Callable

from headrace.errors import HeadraceError
from streams.kafka import KafkaSettings, ensure_topics
from streams.output_watch import OutputWatch
from streams.writer import TransactionalWriter
from tests.streams.log import delete_topic, write
from tests.support import eventually

Topic = Callable[..., str]


def test_a_transaction_that_does_not_end_is_told_and_that_it_has_ended(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(3)
    told: list[HeadraceError | None] = []
    write(kafka, name, [b"before"] * 4, partition=2)
    with (
        TransactionalWriter(kafka, f"tx-{name}") as writer,
        OutputWatch(kafka, name, told.append, patience_s=0.5),
    ):
        writer.begin()
        writer.produce(name, None, b"open", partition=2)
        writer.client.flush(10)
        write(kafka, name, [b"hidden"] * 5, partition=2)
        write(kafka, name, [b"seen"] * 5, partition=1)
        (error,) = eventually(lambda: list(told))
        assert error is not None
        assert error.reason_name == "TRANSACTION_UNDECIDED"
        assert error.metadata["partitions"] == "2"
        assert "partition 2 from offset 4" in error.message
        writer.commit()
        assert eventually(lambda: told[1:]) == [None]


def test_a_topic_that_is_gone_is_told_and_that_it_is_back(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    told: list[HeadraceError | None] = []
    with OutputWatch(kafka, name, told.append, patience_s=0.5):
        delete_topic(kafka, name)
        (error,) = eventually(lambda: list(told))
        assert error is not None
        assert error.reason_name == "UNKNOWN_TOPIC"
        ensure_topics(kafka, {name: 1})
        assert eventually(lambda: told[1:]) == [None]


def test_transactions_that_follow_one_another_are_no_matter(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    told: list[HeadraceError | None] = []
    looks = 0

    def look_and_commit() -> bool:
        nonlocal looks
        looks += 1
        writer.produce(name, None, b"x")
        writer.client.flush(10)
        writer.commit()
        writer.begin()
        return looks == 20

    with (
        TransactionalWriter(kafka, f"tx-{name}") as writer,
        OutputWatch(kafka, name, told.append, patience_s=0.5),
    ):
        writer.begin()
        eventually(look_and_commit)
        assert told == []
