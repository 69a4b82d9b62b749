"""A group member that loses no record and commits none unfenced. On a real broker."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest

from headrace.errors import Aborted, FailedPrecondition, HeadraceError, NotFound, Unavailable
from streams.committed import committed_offsets
from streams.group import GroupMetadata, GroupReader
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of
from streams.topic_watch import TopicWatch
from streams.writer import StreamProducer, TransactionAbortable, TransactionalWriter, TransactionFenced
from tests.streams.log import delete_before, delete_topic, seen, values, write
from tests.support import eventually

Topic = Callable[..., str]

# A process that joins as slot 0, reads all and is killed.
OWNER = """
import sys, threading
from streams.group import GroupReader
from streams.kafka import KafkaSettings
servers, group, topic = sys.argv[1:]
with GroupReader(KafkaSettings(servers), group_id=group, topic=topic, slot="0") as reader:
    count = 0
    while count < 5:
        count += len(reader.consume(5, 0.2))
    print(count, flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def members(kafka: KafkaSettings, group: str) -> Iterator[Callable[..., GroupReader]]:
    """Makes members of one group that are closed at the end."""
    with ExitStack() as stack:

        def make(topic: str, slot: str = "0", **settings: object) -> GroupReader:
            return stack.enter_context(GroupReader(kafka, group_id=group, topic=topic, slot=slot, **settings))  # type: ignore[arg-type]

        yield make


def consume(reader: GroupReader, count: int) -> list[Message]:
    """That many records, however many calls it takes."""
    messages: list[Message] = []

    def enough() -> bool:
        messages.extend(reader.consume(count - len(messages), 0.2))
        return len(messages) >= count

    eventually(enough, timeout_s=20, every_s=0)
    return messages


def positions(messages: list[Message]) -> dict[int, int]:
    return {message.partition() or 0: (message.offset() or 0) + 1 for message in messages}


def commit(writer: TransactionalWriter, topic: str, messages: list[Message], metadata: GroupMetadata) -> None:
    writer.send_offsets(topic, positions(messages), metadata)
    writer.commit()


def answer(reader: GroupReader, writer: TransactionalWriter, target: str) -> None:
    """One turn of an inference: whatever is there is copied and committed, or read again."""
    messages = reader.consume(7, 0.05)
    if not messages:
        return
    writer.begin()
    for message in messages:
        writer.produce(target, None, message.value(), headers_of(message))
    try:
        commit(writer, reader.topic, messages, reader.metadata)
    except TransactionAbortable:
        writer.abort()
        reader.rewind()


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_a_member_reads_on_where_it_committed(
    kafka: KafkaSettings, topic: Topic, group: str, members: Callable[..., GroupReader]
) -> None:
    name = topic()
    write(kafka, name, numbers(10))
    reader = members(name)
    messages = consume(reader, 6)
    assert values(messages) == numbers(6)
    assert reader.metadata.is_member
    assert reader.metadata.group_id == group
    assert reader.committed() == {0: None}
    reader.commit(positions(messages))
    assert reader.committed() == {0: 6}
    assert reader.lag() == {0: 4}
    reader.close()
    assert values(consume(members(name), 4)) == numbers(10)[6:]


def test_a_group_begins_where_it_is_told_and_later_where_it_committed(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name = topic(2)
    write(kafka, name, numbers(10))
    write(kafka, name, numbers(3), partition=1)
    reader = members(name, start_offsets={0: 8})
    messages = consume(reader, 5)
    assert sorted(values(messages)) == sorted([b"8", b"9", *numbers(3)])  # type: ignore[type-var]
    reader.commit({0: 9})
    reader.close()
    again = consume(members(name, start_offsets={0: 0, 1: 2}), 2)
    assert {(m.partition(), m.value()) for m in again} == {(0, b"9"), (1, b"2")}


def test_offsets_in_a_transaction_that_does_not_end_are_told_as_that(
    kafka: KafkaSettings, topic: Topic, group: str
) -> None:
    """Kafka answers, and everything else works: nobody should look for what is wrong with the network."""
    name = topic(2)
    write(kafka, name, numbers(3))
    hasty = replace(kafka, longest_wait_s=1.0)
    with (
        GroupReader(hasty, group_id=group, topic=name) as reader,
        TransactionalWriter(kafka, f"tx-{name}") as writer,
    ):
        messages = consume(reader, 3)
        writer.begin()
        writer.send_offsets(name, positions(messages), reader.metadata)
        with pytest.raises(Unavailable) as caught:
            reader.rewind()
        assert caught.value.reason_name == "TRANSACTION_UNDECIDED"
        assert caught.value.metadata["group"] == group
        with pytest.raises(Unavailable, match="was not ended"):
            committed_offsets(hasty, group, name, timeout_s=1.0)
        writer.commit()
        reader.rewind()
        assert reader.committed() == {0: 3, 1: None}


def test_records_of_an_aborted_batch_are_read_again(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name, target = topic(), topic()
    write(kafka, name, numbers(5))
    reader = members(name)
    with TransactionalWriter(kafka, f"tx-{name}") as writer:
        for outcome in ("abort", "commit"):
            messages = consume(reader, 5)
            writer.begin()
            for message in messages:
                writer.produce(target, None, message.value())
            writer.send_offsets(name, positions(messages), reader.metadata)
            if outcome == "abort":
                writer.abort()
                assert reader.committed() == {0: None}
                reader.rewind()
            else:
                writer.commit()
                assert reader.committed() == {0: 5}
    assert seen(kafka, target) == numbers(5)


def test_the_lag_behind_a_transaction_marker_is_zero(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name = topic()
    with TransactionalWriter(kafka, f"lag-{name}") as writer:
        writer.begin()
        writer.produce(name, None, b"question")
        writer.commit()
    reader = members(name)
    consume(reader, 1)

    def caught_up() -> bool:
        assert reader.consume(10, 0.1) == []
        return reader.lag() == {0: 0}

    eventually(caught_up)


def test_a_position_that_retention_deleted_stops_the_reader(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name = topic()
    write(kafka, name, numbers(10))
    reader = members(name)
    reader.commit(positions(consume(reader, 2)))
    reader.close()
    delete_before(kafka, name, 5)
    late = members(name)
    with pytest.raises(FailedPrecondition) as caught:
        consume(late, 1)
    assert caught.value.reason_name == "OFFSET_EXPIRED"
    facts = caught.value.metadata
    assert (facts["topic"], facts["partition"], facts["offset"], facts["low"]) == (name, "0", "2", "5")


def test_a_topic_that_is_not_there_is_named(members: Callable[..., GroupReader]) -> None:
    with pytest.raises(NotFound) as caught:
        consume(members("nowhere"), 1)
    assert caught.value.reason_name == "UNKNOWN_TOPIC"


def test_paused_partitions_keep_their_member_and_lose_nothing(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name = topic()
    write(kafka, name, numbers(10))
    reader = members(name)
    first = consume(reader, 1)
    reader.pause()
    for _ in range(20):
        reader.keep_alive()
    assert reader.assigned == {0}
    reader.resume()
    assert values(first + consume(reader, 9)) == numbers(10)


def test_a_second_process_of_a_slot_takes_over_and_fences_the_first(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name, target = topic(), topic()
    write(kafka, name, numbers(5))
    zombie = members(name)
    with TransactionalWriter(kafka, f"tx-{name}") as old_writer:
        messages = consume(zombie, 5)
        old_writer.begin()
        old_writer.produce(target, None, b"of the zombie")

        successor = members(name)
        with TransactionalWriter(kafka, f"tx-{name}") as writer:
            again = consume(successor, 5)
            assert values(again) == numbers(5)
            with pytest.raises((TransactionFenced, TransactionAbortable)):
                commit(old_writer, name, messages, zombie.metadata)
            with pytest.raises(Aborted) as caught:
                consume(zombie, 1)
            assert caught.value.reason_name == "FENCED"

            writer.begin()
            writer.produce(target, None, b"of the successor")
            commit(writer, name, again, successor.metadata)
    assert seen(kafka, target) == [b"of the successor"]


def test_a_commit_of_a_generation_that_is_over_is_refused(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    name = topic(2)
    write(kafka, name, numbers(4))
    first = members(name, "0")
    stale = (consume(first, 4), first.metadata)
    second = members(name, "1")

    def shared() -> bool:
        first.consume(1, 0.05)
        second.consume(1, 0.05)
        return len(first.assigned) == len(second.assigned) == 1

    eventually(shared, timeout_s=20)
    with TransactionalWriter(kafka, f"tx-{name}") as writer:
        writer.begin()
        with pytest.raises(TransactionAbortable):
            commit(writer, name, *stale)


@pytest.mark.parametrize("slots", [("0", "1"), ("", "")])
def test_a_member_closes_while_partitions_are_asked_back(
    topic: Topic, members: Callable[..., GroupReader], slots: tuple[str, str]
) -> None:
    """As where a replica ends by an error while its group rebalances: nothing may hide that error."""
    name = topic(2)
    calls: list[Sequence[int]] = []
    first = members(name, slots[0], on_revoke=calls.append, on_lost=calls.append)
    eventually(lambda: first.consume(1, 0.1) == [] and first.assigned == {0, 1})
    second = members(name, slots[1])
    eventually(lambda: second.consume(1, 0.1) == [] and second.metadata.generation > first.metadata.generation)
    first.close()
    assert calls == []
    assert first.assigned == frozenset()


def test_metadata_of_no_member_never_commits(kafka: KafkaSettings, topic: Topic, group: str) -> None:
    nobody = GroupMetadata.parse(b"CGMDv2:\xff\xff\xff\xff" + group.encode() + b"\0\0\0")
    assert not nobody.is_member
    assert not GroupMetadata.parse(b"CGMDv2:\x05\0\0\0" + group.encode() + b"\0\0\0").is_member
    with TransactionalWriter(kafka, f"tx-{group}") as writer:
        writer.begin()
        with pytest.raises(TransactionAbortable) as caught:
            writer.send_offsets("anything", {0: 1}, nobody)
        assert caught.value.metadata["group"] == group


def assert_sorted_in_each_partition(answers: list[int]) -> None:
    for partition in range(4):
        of_partition = [number for number in answers if number % 4 == partition]
        assert of_partition == sorted(of_partition)


def test_a_rebalance_loses_and_doubles_no_record(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    """Four partitions, a second member that comes while data flows and leaves again."""
    name, target, rows = topic(4), topic(), 400
    with StreamProducer(kafka, name, settings={"enable.idempotence": False}) as producer:
        for number in range(rows):
            producer.send(number % 4, None, b"%d" % number)
        producer.flush()
    events: list[tuple[str, str]] = []

    def watch(slot: str) -> dict[str, Callable[[object], None]]:
        def note(event: str, partitions: object) -> None:
            events.append((slot, event))

        return {f"on_{event}": partial(note, event) for event in ("assign", "revoke", "lost")}

    with ExitStack() as stack:
        first = members(name, "0", **watch("0"))
        first_writer = stack.enter_context(TransactionalWriter(kafka, f"{name}-0"))
        second_writer = stack.enter_context(TransactionalWriter(kafka, f"{name}-1"))
        for _ in range(5):
            answer(first, first_writer, target)
        second = members(name, "1", **watch("1"))

        def both_have_work() -> bool:
            answer(first, first_writer, target)
            answer(second, second_writer, target)
            return len(second.assigned) == 2

        eventually(both_have_work, timeout_s=20, every_s=0)
        assert first.assigned.isdisjoint(second.assigned)
        second.leave()

        def done() -> bool:
            answer(first, first_writer, target)
            return len(first.assigned) == 4 and sum(first.lag().values()) == 0 and len(seen(kafka, target)) >= rows

        eventually(done, timeout_s=20, every_s=0)
    answers = [int(value or -1) for value in seen(kafka, target)]
    assert sorted(answers) == list(range(rows))
    assert_sorted_in_each_partition(answers)
    assert ("0", "revoke") in events
    assert ("1", "revoke") in events
    assert "lost" not in {event for _, event in events}


def test_a_slot_that_died_gets_its_partitions_back_at_once(
    kafka: KafkaSettings, topic: Topic, group: str, members: Callable[..., GroupReader]
) -> None:
    name = topic(2)
    write(kafka, name, numbers(5))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, kafka.bootstrap_servers, group, name], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"5\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert values(consume(members(name), 5)) == numbers(5)


def ends_with(reader: GroupReader) -> HeadraceError:
    """What the reader raises sooner or later."""
    raised: list[HeadraceError] = []

    def ended() -> bool:
        try:
            reader.consume(10, 0.1)
        except HeadraceError as error:
            raised.append(error)
        return bool(raised)

    eventually(ended, timeout_s=20, every_s=0)
    return raised[0]


def test_a_topic_that_is_made_anew_while_it_is_read_is_told(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    source = topic()
    write(kafka, source, [b"old"] * 5)
    reader = members(source)
    with TopicWatch(kafka, source, reader.fail, every_s=3.0):  # not to look twice while there is none
        consume(reader, 5)
        reader.pause()  # A fetch in between would find its position behind the end.
        delete_topic(kafka, source)
        ensure_topics(kafka, {source: 1})
        write(kafka, source, [b"new"] * 5)  # as long as the old log: its records stand before the position
        reader.resume()
        assert ends_with(reader).reason_name == "TOPIC_RECREATED"


def test_a_topic_that_is_deleted_while_it_is_read_is_told(
    kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]
) -> None:
    source = topic()
    write(kafka, source, [b"old"])
    reader = members(source)
    with TopicWatch(kafka, source, reader.fail, every_s=0.1):
        consume(reader, 1)
        delete_topic(kafka, source)
        assert ends_with(reader).reason_name == "UNKNOWN_TOPIC"


def test_a_topic_that_stays_is_read_on(kafka: KafkaSettings, topic: Topic, members: Callable[..., GroupReader]) -> None:
    source = topic()
    reader = members(source)
    looks: list[HeadraceError] = []
    with TopicWatch(kafka, source, looks.append, every_s=0.05):
        for _ in range(3):
            write(kafka, source, [b"more"] * 5)
            consume(reader, 5)
    assert not looks
