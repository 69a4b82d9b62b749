"""What a sink announces is in the log, and only that. On a real broker."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.v1.stream_pb2 import StreamAnnouncement
from sinks import RawSink
from streams.kafka import KafkaSettings, ensure_topics, partitions_of, topic_ids
from streams.offsets import count_offsets
from streams.spool import spool_stream
from tests.sinks.announced import announced
from tests.streams.log import write
from tests.support import eventually

Topic = Callable[..., str]
SendFirst = Callable[[RawSink], None]


@pytest.fixture
def make(kafka: KafkaSettings, control: str) -> Callable[..., RawSink]:
    def make_sink(name: str, deployment_id: int = 7, **settings: Any) -> RawSink:
        return RawSink(kafka.bootstrap_servers, name, deployment_id, control_topic=control, **settings)

    return make_sink


def test_arrays_come_back_as_they_were_sent(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    images = np.random.default_rng(1).integers(0, 255, (10_000, 8, 8)).astype(np.uint8)
    labels = np.arange(10_000) % 10
    with make(f"{control}-data", partitions=3, validation_rate=0.2, test_rate=0.1, description="digits") as sink:
        sink.send_batch(images[:9_999], labels[:9_999])
        sink.send(images[9_999], labels[9_999])
    (announcement,) = announced(kafka, control)
    assert announcement == sink.announcement
    assert (announcement.deployment_id, announcement.record_count) == (7, 10_000)
    assert (announcement.validation_rate, announcement.test_rate) == (0.2, 0.1)
    assert dict(announcement.input_config) == {
        "data_type": "uint8", "data_reshape": "8 8", "label_type": "int64", "label_reshape": "",
    }  # fmt: skip
    assert count_offsets(announcement.ranges) == 10_000
    assert max(one.end for one in announcement.ranges) - min(one.end for one in announcement.ranges) <= 1

    spool = spool_stream(announcement, kafka, tmp_path)
    order = np.argsort(spool.read("offsets").astype(np.int64) * 3 + spool.read("partitions"))
    np.testing.assert_array_equal(spool.read("samples")[order], images)
    np.testing.assert_array_equal(spool.read("labels")[order].ravel(), labels)


def test_two_sinks_in_one_partition_announce_their_own(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    name = f"{control}-shared"
    with make(name) as first, make(name) as second:
        for number in range(20):
            first.send(np.float32(number), 0)
            first.flush()  # so that they really interleave
            second.send(np.float32(-number - 1), 1)
            second.flush()
    of_second, of_first = announced(kafka, control)
    for announcement, label in ((of_first, 0), (of_second, 1)):
        assert count_offsets(announcement.ranges) == 20
        assert announcement.record_count == 20
        spool = spool_stream(announcement, kafka, tmp_path / str(label))
        assert Counter(spool.read("labels").ravel().tolist()) == {label: 20}


def test_records_of_a_stranger_among_ours_are_in_no_range(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    name = f"{control}-shared"
    with make(name, partitions=2) as sink:
        for number in range(5):
            sink.send_batch(np.full(10, number), np.zeros(10))
            sink.flush()
            write(kafka, name, [np.int64(-1).tobytes()], partition=number % 2)
    (announcement,) = announced(kafka, control)
    assert announcement.stream_key == ""
    spool = spool_stream(announcement, kafka, tmp_path)
    assert Counter(spool.read("samples").ravel().tolist()) == dict.fromkeys(range(5), 10)


def test_a_block_that_ends_by_an_exception_announces_nothing(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink]
) -> None:
    with pytest.raises(ZeroDivisionError), make(f"{control}-data") as sink:  # noqa: PT012
        sink.send(1.0, 1)
        raise ZeroDivisionError
    assert announced(kafka, control) == []
    with pytest.raises(FailedPrecondition):
        sink.send(1.0, 1)


def test_a_sink_that_sent_nothing_announces_nothing(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink]
) -> None:
    sink = make(f"{control}-data")
    with pytest.raises(FailedPrecondition) as caught:
        sink.close()
    assert caught.value.reason_name == "EMPTY_STREAM"
    assert announced(kafka, control) == []


def test_closing_twice_announces_once(kafka: KafkaSettings, control: str, make: Callable[..., RawSink]) -> None:
    with make(f"{control}-data") as sink:
        sink.send([1.0, 2.0], 1)
        sink.close()
    assert len(announced(kafka, control)) == 1
    assert sink.sent == 1


def test_texts_are_sent_as_such_and_as_wide_as_the_first_ones(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    with make(f"{control}-data", data_type="string", label_type="string") as sink:
        sink.send_batch(["brief", "ü" * 40], np.array(["cat", "dog"]))
        sink.send(b"bytes", "eel")
    assert sink.announcement.input_config["data_reshape"] == "80"
    spool = spool_stream(sink.announcement, kafka, tmp_path)
    assert [text.decode() for text in spool.read("samples").tolist()] == ["brief", "ü" * 40, "bytes"]
    assert spool.read("labels").tolist() == [b"cat", b"dog", b"eel"]


def test_plain_numbers_become_what_was_asked_for(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    with make(f"{control}-data", data_type="float", label_type="uint8", data_reshape="2 -1") as sink:
        sink.send([1, 2, 3, 4], 5)
        sink.send([0.5, 1.5, 2.5, 3.5], 250)
    config = dict(sink.announcement.input_config)
    assert (config["data_type"], config["data_reshape"], config["label_type"]) == ("float32", "2 2", "uint8")
    spool = spool_stream(sink.announcement, kafka, tmp_path)
    assert spool.read("samples").tolist() == [[[1, 2], [3, 4]], [[0.5, 1.5], [2.5, 3.5]]]
    assert spool.read("labels").tolist() == [[5], [250]]


def test_samples_may_have_no_labels(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    with make(f"{control}-data") as sink:
        sink.send_batch(np.zeros((5, 3)))
    assert spool_stream(sink.announcement, kafka, tmp_path).labels is None


def test_the_records_go_to_all_partitions_of_a_topic_that_is_there(
    kafka: KafkaSettings, topic: Topic, make: Callable[..., RawSink]
) -> None:
    name = topic(4)
    with make(name) as sink:
        sink.send_batch(np.zeros(8), np.zeros(8))
    assert [one.end for one in sink.announcement.ranges] == [2, 2, 2, 2]
    assert partitions_of(kafka, name) == [0, 1, 2, 3]


def test_samples_without_labels_go_beside_the_labelled_ones(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], tmp_path: Path
) -> None:
    with make(f"{control}-data", partitions=2, unsupervised_topic=f"{control}-more") as sink:
        sink.send_unsupervised_batch(np.full((5, 3), 9))
        sink.send_batch(np.zeros((4, 3), int), np.arange(4))
        sink.send_unsupervised([9, 9, 9])
    (announcement,) = announced(kafka, control)
    assert announcement.record_count == count_offsets(announcement.ranges) == 4
    assert {one.topic for one in announcement.unsupervised_ranges} == {f"{control}-more"}
    assert count_offsets(announcement.unsupervised_ranges) == 6
    assert announcement.input_config["label_type"] == "int64"
    beside = StreamAnnouncement(
        ranges=announcement.unsupervised_ranges, record_count=6, input_format=announcement.input_format,
        input_config={"data_type": "int64", "data_reshape": "3"},
    )  # fmt: skip
    assert (spool_stream(beside, kafka, tmp_path).read("samples") == 9).all()


def test_nothing_but_samples_without_labels_beside_is_no_data_set(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink]
) -> None:
    with pytest.raises(FailedPrecondition) as caught, make(f"{control}-data") as sink:
        sink.send_unsupervised([1, 2])
    assert caught.value.reason_name == "EMPTY_STREAM"
    assert announced(kafka, control) == []


def test_the_announcement_has_the_ids_of_its_topics(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink]
) -> None:
    name = f"{control}-data"
    with make(name) as sink:
        sink.send(1, 1)
        sink.send_unsupervised(1)
    names = [name, f"{name}-unsupervised"]
    assert dict(announced(kafka, control)[0].topic_ids) == topic_ids(kafka, names)
    assert len(topic_ids(kafka, names)) == 2


def test_a_topic_that_is_made_anew_meanwhile_is_no_data_set(
    kafka: KafkaSettings, control: str, topic: Topic, make: Callable[..., RawSink]
) -> None:
    name = topic()
    with pytest.raises(FailedPrecondition) as caught, make(name) as sink:  # noqa: PT012
        sink.send(1, 1)
        sink.flush()
        admin = kafka.admin()
        admin.delete_topics([name])[name].result()
        eventually(lambda: not topic_ids(kafka, [name]))
        ensure_topics(kafka, {name: 1})
    assert caught.value.reason_name == "TOPIC_RECREATED"
    assert announced(kafka, control) == []


def test_progress_tells_what_is_sent_and_confirmed(make: Callable[..., RawSink], control: str) -> None:
    told: list[tuple[int, int]] = []
    with make(f"{control}-data", on_progress=lambda *counts: told.append(counts)) as sink:
        for _ in range(200):
            sink.send_batch(np.zeros((50, 4)))
    assert told[-1] == (10_000, 10_000)
    assert told == sorted(told)
    assert len(told) < 50
    assert (sink.sent, sink.delivered) == (10_000, 10_000)


@pytest.mark.parametrize("transactional", [False, True])
def test_a_sink_knows_what_is_confirmed_before_its_end(
    make: Callable[..., RawSink], control: str, transactional: bool
) -> None:
    def send_one_more() -> bool:
        """Reports are heard by who sends."""
        sink.send(np.zeros(4))
        return sink.delivered >= 1000

    with make(f"{control}-data", transactional=transactional) as sink:
        sink.send_batch(np.zeros((1000, 4)))
        eventually(send_one_more)
        sink.flush()
        assert sink.sent == sink.delivered > 1000


def test_a_stream_id_is_the_id_of_the_announcement(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink]
) -> None:
    for _ in range(2):
        with make(f"{control}-data", stream_id="digits-of-monday") as sink:
            sink.send(1, 1)
    assert [one.message_id for one in announced(kafka, control)] == ["digits-of-monday"] * 2


def first_and(then: SendFirst) -> SendFirst:
    def send(sink: RawSink) -> None:
        sink.send([1, 2, 3], 1)
        then(sink)

    return send


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (first_and(lambda sink: sink.send([1, 2], 1)), "SCHEMA_MISMATCH"),
        (first_and(lambda sink: sink.send([1.5, 2, 3], 1)), "SCHEMA_MISMATCH"),
        (first_and(lambda sink: sink.send([1, 2, 3])), "SCHEMA_MISMATCH"),
        (first_and(lambda sink: sink.send([1, 2, 3], [1, 2])), "SCHEMA_MISMATCH"),
        (first_and(lambda sink: sink.send_batch(np.zeros((2, 3), int), np.zeros(3))), "SCHEMA_MISMATCH"),
        (lambda sink: sink.send(["a", "b"], 1), "INVALID_FORMAT"),
        (lambda sink: sink.send(np.zeros(1_000_000, np.uint8), 1), "INVALID_FIELD"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_announced(
    kafka: KafkaSettings, control: str, make: Callable[..., RawSink], send: SendFirst, reason: str
) -> None:
    with pytest.raises(HeadraceError) as caught, make(f"{control}-data") as sink:
        send(sink)
    assert caught.value.reason_name == reason
    assert announced(kafka, control) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data_type": "flat"}, "INVALID_FORMAT"),
        ({"label_reshape": "1 x"}, "INVALID_FORMAT"),
        ({"validation_rate": 0.5, "test_rate": 0.5}, "INVALID_FIELD"),
        ({"validation_rate": -1.0}, "INVALID_FIELD"),
        ({"deployment_id": -1}, "INVALID_FIELD"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_sent(
    make: Callable[..., RawSink], settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make("unused", **settings)
    assert caught.value.reason_name == reason
