"""Clients, topics and the errors of Kafka."""

import gc
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from headrace.errors import HeadraceError, InvalidArgument, NotFound, Unavailable
from streams.kafka import (
    KafkaSettings,
    as_headrace_error,
    await_kafka,
    ensure_topics,
    headers_of,
    log_ends,
    partitions_of,
    topic_config,
    topic_ids,
    watermarks,
)
from tests.streams.log import offset_range, read, write, write_with_raw_header
from tests.support import eventually

Topic = Callable[..., str]
AWAY = KafkaSettings("127.0.0.1:1")


def test_topics_are_made_once_and_stay_as_they_are(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(2, retention_ms="1000000")
    ensure_topics(kafka, {name: 5, f"{name}-other": 1})
    assert partitions_of(kafka, name) == [0, 1]
    assert topic_config(kafka, name)["retention.ms"] == "1000000"
    assert partitions_of(kafka, f"{name}-other") == [0]


def test_a_log_has_ends(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic(2)
    write(kafka, name, [b"x"] * 3, partition=1)
    assert log_ends(kafka, name) == {0: (0, 0, 0), 1: (0, 3, 3)}
    assert watermarks(kafka, name) == {0: (0, 0), 1: (0, 3)}


def test_a_topic_that_is_made_anew_has_another_id(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    first = topic_ids(kafka, [name, "never-made"])
    assert set(first) == {name}
    admin = kafka.admin()
    admin.delete_topics([name])[name].result(10)
    eventually(lambda: topic_ids(kafka, [name]) == {})
    ensure_topics(kafka, {name: 1})
    assert topic_ids(kafka, [name])[name] not in ("", first[name])


def test_a_client_whose_question_failed_is_no_garbage(kafka: KafkaSettings) -> None:
    """Garbage may be collected on the client's own thread, and a client that ends there aborts the process."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        assert topic_ids(kafka, ["never-made"]) == {}
        with pytest.raises(NotFound):
            topic_config(kafka, "never-made")
        gc.collect()
        assert [one for one in gc.garbage if isinstance(one, AdminClient)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_a_header_whose_name_is_no_text_stops_nobody(kafka: KafkaSettings, topic: Topic) -> None:
    name = topic()
    write_with_raw_header(kafka, name, b"a value", b"text")
    write_with_raw_header(kafka, name, b"another", b"no \xff text")
    good, bad = read(kafka, offset_range(name, 0, 2))
    for _ in range(1000):  # also where Python has made the call a fast one
        assert headers_of(good) == [("text", b"x")]
    assert [headers_of(bad) for _ in range(3)] == [[], [], []]
    assert bad.value() == b"another"


@pytest.mark.parametrize("ask", [partitions_of, log_ends, watermarks])
def test_asking_for_a_topic_does_not_make_it(kafka: KafkaSettings, ask: Callable[[KafkaSettings, str], object]) -> None:
    for _ in range(2):
        with pytest.raises(NotFound) as caught:
            ask(kafka, "never-made")
        assert caught.value.reason_name == "UNKNOWN_TOPIC"


@pytest.mark.parametrize("name", ["sp ace", "", "..", "x" * 250])
def test_a_wrong_name_is_refused(kafka: KafkaSettings, name: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        ensure_topics(kafka, {name: 1})
    assert caught.value.reason_name == "INVALID_FIELD"


def test_a_cluster_that_is_away_is_named() -> None:
    with pytest.raises(Unavailable) as caught:
        await_kafka(AWAY, timeout_s=0.2)
    assert caught.value.reason_name == "KAFKA_UNAVAILABLE"
    assert caught.value.metadata["bootstrap_servers"] == "127.0.0.1:1"


@pytest.mark.parametrize("code", ["UNKNOWN_LEADER_EPOCH", "FENCED_LEADER_EPOCH", "OFFSET_NOT_AVAILABLE"])
def test_what_a_broker_says_that_has_just_come_back_passes(code: str) -> None:
    error = as_headrace_error(KafkaError(getattr(KafkaError, code)), AWAY)
    assert isinstance(error, Unavailable)


@pytest.mark.parametrize("client", ["consumer", "producer", "admin"])
def test_an_option_that_is_not_known_is_named(client: str) -> None:
    with pytest.raises(InvalidArgument, match=r"no\.such\.option"):
        getattr(KafkaSettings("127.0.0.1:1", {"no.such.option": "1"}), client)()
