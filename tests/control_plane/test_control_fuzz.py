"""Thousands of control messages, most of them wrong in some way, through a real broker, a logger and a catalog."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from control_plane import store
from headrace.errors import InvalidArgument
from logger import recorder
from logger.recorder import Recorder
from streams import control
from streams.kafka import Headers, KafkaSettings, headers_of
from streams.writer import BatchProducer
from tests.control_plane.recording import Control, Recording, recording, source_of
from tests.control_plane.test_control_messages import legacy, ours

BATCH = 100


# What becomes of the message with a number: the number is its own, so that few are alike by chance.
Recipe = Callable[[int], Control]


def cut(value: bytes, start: int, length: int) -> bytes:
    return value[: start % (len(value) + 1)] + value[start % (len(value) + 1) + length :]


def insert(value: bytes, start: int, more: bytes) -> bytes:
    at = start % (len(value) + 1)
    return value[:at] + more + value[at:]


def overwrite(value: bytes, start: int, more: bytes) -> bytes:
    return insert(cut(value, start, len(more)), start, more)


def with_field(value: bytes, name: str, content: object) -> bytes:
    return json.dumps({**json.loads(value), name: content}).encode()


def changed(make: Recipe, change: Callable[[bytes], bytes]) -> Recipe:
    """The message with other bytes."""

    def recipe(number: int) -> Control:
        one = make(number)
        return replace(one, value=change(one.value or b""))

    return recipe


def again(make: Recipe) -> Recipe:
    """The message before, if that was made alike: a duplicate."""
    return lambda number: make(number - 1)


places = st.integers(0, 2**16)
few_bytes = st.binary(min_size=1, max_size=6)
valid: st.SearchStrategy[Recipe] = st.sampled_from([ours, legacy])
values: st.SearchStrategy[object] = st.sampled_from(
    [None, "", 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), [], {}, True, "t:0:5:1", "t:0:0:9,t:0:3:4",
     "t:0:0", "t", "..", "a b", "\ud800", {"a": {"b": [None]}}, "RAW", "AVRO", "raw", "0.1", "x" * 3000]
)  # fmt: skip
fields = st.sampled_from(
    ["topic", "unsupervised_topic", "input_format", "input_config", "description", "dataset_restrictions",
     "validation_rate", "test_rate", "total_msg", "incremental", "added"]
)  # fmt: skip
header_sets: st.SearchStrategy[Headers] = st.sampled_from([
    [], [("headrace-message", b"headrace.v1.StreamAnnouncement")], [("headrace-message", b"headrace.v2.Other")],
    [("headrace-message", None)], [("headrace-message", b"\xff")], [("traceparent", b"00-1"), ("traceparent", None)],
])  # fmt: skip
keys = st.none() | st.binary(max_size=9)
raw = st.builds(
    lambda key, value, headers: lambda number: Control(key, value, headers),
    keys,
    st.none() | st.binary(max_size=40),
    header_sets,
)
cut_out = st.builds(lambda make, at, n: changed(make, lambda v: cut(v, at, n)), valid, places, st.integers(1, 50))
inserted = st.builds(lambda make, at, more: changed(make, lambda v: insert(v, at, more)), valid, places, few_bytes)
overwritten = st.builds(
    lambda make, at, more: changed(make, lambda v: overwrite(v, at, more)), valid, places, few_bytes
)
other_field = st.builds(lambda name, new: changed(legacy, lambda v: with_field(v, name, new)), fields, values)
other_envelope = st.builds(
    lambda make, key, headers: lambda number: replace(make(number), key=key, headers=headers), valid, keys, header_sets
)
recipes = valid | valid.map(again) | cut_out | inserted | overwritten | other_field | other_envelope | raw


def send_fuzzed(world: Recording, count: int) -> list[Control]:
    """Write `count` messages while the logger records; what was written, by offset."""
    sent: list[Control] = []

    with BatchProducer(world.kafka) as producer:

        @settings(
            max_examples=-(-count // BATCH),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(recipes, min_size=BATCH, max_size=BATCH))
        def send(batch: list[Recipe]) -> None:
            for make in batch:
                one = make(len(sent) + 2)
                sent.append(one)
                producer.produce(world.topic, one.key, one.value, one.headers, partition=0)

        send()
        producer.flush()
    return sent


def understood(messages: list[Control]) -> tuple[dict[str, int], dict[int, bytes]]:
    """The id of each announcement and the offset of its first message; of the others, by offset, the reason.

    The same id for another deployment is refused.
    """
    announced: dict[str, int] = {}
    deployments: dict[str, int] = {}
    refused: dict[int, bytes] = {}
    for offset, one in enumerate(messages):
        try:
            announcement, _ = control.decode(one.key, one.headers, one.value)
            announced.setdefault(announcement.message_id, offset)
            first = deployments.setdefault(announcement.message_id, announcement.deployment_id)
            if first != announcement.deployment_id:
                refused[offset] = b"INVALID_FIELD"
        except InvalidArgument as error:
            refused[offset] = error.reason_name.encode()
    return announced, refused


def recorded(world: Recording, count: int) -> list[Control]:
    """Fuzzed messages, when the logger has dealt with all of them."""
    with world.logger() as logger:
        sent = send_fuzzed(world, count)
        world.await_all(timeout_s=1800)
        assert logger.ready
    assert len(sent) >= count
    return sent


def check(world: Recording, sent: list[Control]) -> None:
    """Each is recorded once or refused once."""
    announced, refused = understood(sent)
    assert len(announced) > len(sent) / 10
    assert len(refused) > len(sent) / 10
    assert {stream.message_id: stream.source.offset for stream in world.streams()} == announced
    letters = world.dead_letters()
    assert [source_of(letter) for letter in letters] == sorted(refused)
    for letter in letters:
        original = sent[source_of(letter)]
        assert (letter.key() or None, letter.value()) == (original.key or None, original.value)
        assert dict(headers_of(letter))["headrace-error"] == refused[source_of(letter)]


def records_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Every message is a stream of its own, whatever its id."""
    patch.setattr(store.streams, "_recorded_before", lambda *_: None)
    patch.setattr(store.streams, "_message_id", lambda request: f"{request.source.offset}")


def forgets_dead_letters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "_refuse", lambda *_: None)


def drops_the_reason(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recorder, "ERROR_HEADER", "no-reason")


def passes_over_what_kafka_ml_sends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(control, "_decode_legacy", lambda *_: control._decode_ours("", None))


@pytest.mark.parametrize(
    "plant", [records_duplicates, forgets_dead_letters, drops_the_reason, passes_over_what_kafka_ml_sends]
)
def test_a_planted_bug_is_caught(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with recording(kafka, topic(), tmp_path) as world, pytest.MonkeyPatch.context() as patch:
        plant(patch)
        sent = recorded(world, 200)
        patch.undo()
        with pytest.raises((AssertionError, KeyError)):
            check(world, sent)


def test_of_fuzzed_messages_each_is_recorded_once_or_refused_once(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path
) -> None:
    with recording(kafka, topic(), tmp_path) as world:
        check(world, recorded(world, 2_000))


@pytest.mark.chaos
def test_of_a_hundred_thousand_fuzzed_messages_each_is_recorded_once_or_refused_once(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path
) -> None:
    with recording(kafka, topic(), tmp_path) as world:
        check(world, recorded(world, 100_000))
