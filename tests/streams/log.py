"""Writing and looking at the log, for tests."""

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import Headers, KafkaSettings, Message, log_ends, topic_ids
from streams.reader import RangeReader
from streams.writer import StreamProducer, TransactionalWriter
from tests.support import eventually

STREAM_KEY = "headrace-stream"


def write(
    kafka: KafkaSettings,
    topic: str,
    values: Iterable[bytes],
    *,
    partition: int = 0,
    stream_key: str = "",
    in_batches_of: int = 10_000,
) -> None:
    """Write the values to one partition and wait for them. A batch is the least that a consumer fetches."""
    headers: Headers | None = [(STREAM_KEY, stream_key)] if stream_key else None
    settings = {"linger.ms": 0, "batch.num.messages": in_batches_of}
    with StreamProducer(kafka, topic, headers=headers, settings=settings) as producer:
        for value in values:
            producer.send(partition, None, value)
        producer.flush()


def write_with_raw_header(kafka: KafkaSettings, topic: str, value: bytes, name: bytes) -> None:
    """A record with a header whose name is any bytes, which only C can write."""
    (path,) = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs").glob("librdkafka*")
    library, error = ctypes.CDLL(str(path)), ctypes.create_string_buffer(512)
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(config, b"bootstrap.servers", kafka.bootstrap_servers.encode(), error, 512)
    producer = ctypes.c_void_p(library.rd_kafka_new(0, config, error, ctypes.c_size_t(512)))
    topic_is, value_is, header_is, end = 1, 4, 9, 0  # of enum rd_kafka_vtype_t
    size = ctypes.c_size_t
    assert library.rd_kafka_producev(
        producer, topic_is, topic.encode(), value_is, value, size(len(value)), header_is, name, b"x", size(1), end
    ) == 0  # fmt: skip
    assert library.rd_kafka_flush(producer, 10_000) == 0
    library.rd_kafka_destroy(producer)


def write_in_transaction(
    writer: TransactionalWriter, topic: str, values: Sequence[bytes], *, commit: bool, partition: int = 0
) -> None:
    """Write the values and a marker behind them. What is aborted is in the log, too."""
    writer.begin()
    for value in values:
        writer.produce(topic, None, value, partition=partition)
    flush(writer)
    if commit:
        writer.commit()
    else:
        writer.abort()


def flush(writer: TransactionalWriter) -> None:
    """Send what is produced, so that it is in the log whatever becomes of the transaction."""
    assert writer._producer is not None
    writer._producer.flush()


def delete_before(kafka: KafkaSettings, topic: str, offset: int, partition: int = 0) -> None:
    """What retention does."""
    admin = kafka.admin()
    for deleted in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        deleted.result()


def set_config(kafka: KafkaSettings, topic: str, name: str, value: str) -> None:
    """Change one setting of a topic."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = kafka.admin()
    for changed in admin.incremental_alter_configs([change]).values():
        changed.result(10)


def little_ahead(kafka: KafkaSettings) -> KafkaSettings:
    """A client that fetches hardly more than it is asked for."""
    sizes = ("message.max.bytes", "fetch.max.bytes", "max.partition.fetch.bytes")
    queue = {"queued.max.messages.kbytes": "1", "queued.min.messages": "1"}
    return KafkaSettings(kafka.bootstrap_servers, dict.fromkeys(sizes, "2000") | queue)


def delete_topic(kafka: KafkaSettings, topic: str) -> None:
    """Return when it is gone."""
    admin = kafka.admin()
    admin.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic_ids(kafka, [topic]) == {})


def offset_range(topic: str, start: int, end: int, partition: int = 0) -> OffsetRange:
    return OffsetRange(topic=topic, partition=partition, start=start, end=end)


def read(kafka: KafkaSettings, *ranges: OffsetRange, stream_key: str = "", wait_s: float = 10.0) -> list[Message]:
    """The records of the ranges, without the check before."""
    with RangeReader(kafka, ranges, stream_key=stream_key, wait_s=wait_s) as reader:
        return [message for batch in reader.batches() for message in batch]


def seen(kafka: KafkaSettings, topic: str) -> list[bytes | None]:
    """The values that a read_committed reader sees in partition 0."""
    return values(read(kafka, offset_range(topic, 0, log_ends(kafka, topic)[0].stable)))


def offsets(messages: Iterable[Message]) -> list[int | None]:
    return [message.offset() for message in messages]


def values(messages: Iterable[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]
