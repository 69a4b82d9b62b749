"""What a consumer group has committed, and why Kafka may not tell it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.errors import Unavailable
from headrace.v1 import error_pb2
from streams.kafka import REQUEST_TIMEOUT_S, KafkaSettings, kafka_errors, partitions_of

# Who has not answered for long either answers another question soon, or is away.
SECOND_WAIT_S = 3.0


def committed_offsets(
    kafka: KafkaSettings, group: str, topic: str, timeout_s: float = REQUEST_TIMEOUT_S
) -> dict[int, int]:
    """Where a group goes on, of the partitions where it has committed. Raises NotFound (UNKNOWN_TOPIC), Unavailable."""
    partitions = [TopicPartition(topic, number) for number in partitions_of(kafka, topic, timeout_s)]
    consumer = kafka.consumer({"group.id": group})
    try:
        found = committed_soon(consumer, kafka, group, partitions, timeout_s)
    finally:
        consumer.close()
    return {one.partition: one.offset for one in found if one.offset >= 0}


def committed_soon(
    consumer: Consumer, kafka: KafkaSettings, group: str, partitions: list[TopicPartition], timeout_s: float
) -> list[TopicPartition]:
    """As `committed`, patiently: a group that is new has no coordinator for a moment."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return committed(consumer, kafka, group, partitions, timeout_s)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def committed(
    consumer: Consumer, kafka: KafkaSettings, group: str, partitions: list[TopicPartition], timeout_s: float
) -> list[TopicPartition]:
    """What its group has committed; a transaction that is being decided is waited for.

    Raises Unavailable: TRANSACTION_UNDECIDED where Kafka answers, but such a transaction lasts; KAFKA_UNAVAILABLE.
    """
    timeout_s = kafka.wait_s(timeout_s)
    with kafka_errors(kafka, group=group, topic=", ".join({one.topic for one in partitions})):
        try:
            found = consumer.committed(partitions, timeout_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT and _is_told_unstable(kafka, group, partitions):
                raise _undecided(kafka, group, partitions, timeout_s) from error
            raise
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
    return found


def _is_told_unstable(kafka: KafkaSettings, group: str, partitions: list[TopicPartition]) -> bool:
    """Whether Kafka tells the offsets to who does not mind that a transaction may change them.

    Not asked by an admin client: one whose question for a group was not answered aborts the process when Kafka is back
    (librdkafka 2.16, an assertion in `rd_kafka_enq_once_del_source_return`).
    """
    consumer = kafka.consumer({"group.id": group, "isolation.level": "read_uncommitted"})
    try:
        return all(one.error is None for one in consumer.committed(partitions, kafka.wait_s(SECOND_WAIT_S)))
    except KafkaException:
        return False
    finally:
        consumer.close()


def _undecided(kafka: KafkaSettings, group: str, partitions: Sequence[TopicPartition], timeout_s: float) -> Unavailable:
    names = ", ".join(f"{one.topic}/{one.partition}" for one in partitions)
    return Unavailable(
        error_pb2.REASON_TRANSACTION_UNDECIDED,
        f"the group {group!r} has offsets of {names} in a transaction that was not ended within {timeout_s:g} s; "
        "one whose producer is gone is ended by Kafka after its time-out (30 s for an inference), one that hangs only "
        "by somebody: kafka-transactions.sh find-hanging, then abort",
        group=group, partitions=names, bootstrap_servers=kafka.bootstrap_servers,
    )  # fmt: skip
