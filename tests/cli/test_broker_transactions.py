"""A broker that is killed between the decision to commit and its markers writes them when it comes back.

Else the transaction hangs for ever, decided and yet open: readers with read_committed see nothing behind it, and a
group whose offsets are in it is not told them (docs/adr/0014-the-embedded-kafka-is-4-2.md).
"""

import struct
from pathlib import Path

from confluent_kafka import Message, TopicPartition

from cli.broker import Broker
from headrace.errors import Unavailable
from streams.kafka import KafkaSettings, ensure_topics, log_ends
from tests.support import eventually

PARTITIONS = 100
ROUNDS = 2
# What a broker logs that forgets them: at every start, though the transaction hangs only after some.
FORGOTTEN = "likely deleted already"
STATES = "__transaction_state"
COMPLETE_COMMIT = 4
BATCH_OVERHEAD, ATTRIBUTES_AT, IS_CONTROL = 12, 21, 1 << 5


def test_what_was_decided_before_a_kill_is_marked_after_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path, port=0, stop_with_parent=True)
    with broker:
        kafka = KafkaSettings(broker.bootstrap_servers)
        ensure_topics(kafka, {"answers": PARTITIONS})
        for _ in range(ROUNDS):
            commit_one_each(kafka, "answers")
            decided = eventually(lambda: completed(kafka))
            broker.kill()
            take_back(tmp_path / "kafka" / "data", decided)

            broker.start()
            broker.wait_ready()
            eventually(lambda: is_settled(kafka, "answers"), timeout_s=20)
    assert FORGOTTEN not in broker.log_path.read_text()


def commit_one_each(kafka: KafkaSettings, topic: str) -> None:
    """A record to each partition, in one transaction."""
    producer = kafka.producer({"transactional.id": "decided"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(PARTITIONS):
        producer.produce(topic, b"answer", partition=number)
    producer.commit_transaction(30)


def completed(kafka: KafkaSettings) -> str:
    """The partition of the coordinator's log where the end of the transaction is the last word; "": not yet."""
    with kafka.consumer({"isolation.level": "read_uncommitted", "enable.partition.eof": True}) as consumer:
        consumer.assign([TopicPartition(STATES, number, 0) for number in log_ends(kafka, STATES)])
        last: Message | None = None
        open_partitions = len(consumer.assignment())
        while open_partitions:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is None:
                last = message
            else:
                open_partitions -= 1
    # Version, producer's id and epoch, time-out, and then the state.
    if last is None or (last.value() or b"")[16] != COMPLETE_COMMIT:
        return ""
    return f"{STATES}-{last.partition()}"


def take_back(data: Path, decided: str) -> None:
    """As if the broker had been killed a moment earlier: decided, and none of the partitions knows."""
    cut_last_batch(data / decided)
    for number in range(PARTITIONS):
        assert cut_last_batch(data / f"answers-{number}") & IS_CONTROL


def cut_last_batch(partition: Path) -> int:
    """Its attributes."""
    (log,) = partition.glob("*.log")
    content = log.read_bytes()
    start, end = 0, 0
    while end < len(content):
        start = end
        (length,) = struct.unpack_from(">i", content, start + 8)
        end = start + BATCH_OVERHEAD + length
    with log.open("r+b") as file:
        file.truncate(start)
    (attributes,) = struct.unpack_from(">h", content, start + ATTRIBUTES_AT)
    return int(attributes)


def is_settled(kafka: KafkaSettings, topic: str) -> bool:
    try:
        return all(end.stable == end.high for end in log_ends(kafka, topic).values())
    except Unavailable:  # it has just come back
        return False
