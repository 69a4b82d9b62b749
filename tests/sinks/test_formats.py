"""Every format: what a training reads is what was sent, whatever form it was given in. On a real broker."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int32Value

from headrace.errors import HeadraceError, InvalidArgument
from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO
from sinks import AvroSink, JsonSink, OnlineSink, ProtobufSink, RawSink
from streams.codecs import codec_for
from streams.kafka import KafkaSettings, log_ends
from streams.spool import spool_stream
from tests.sinks.announced import DEPLOYMENT, announced, in_order
from tests.streams.log import seen
from tests.streams.test_codec_registry import SchemaServer
from tests.support import eventually

Sink = AvroSink | JsonSink | ProtobufSink
FIELDS = {"age": np.array([51, 34, 67]), "marker": np.array([0.5, 0.25, 2.0])}
LABELS = np.array([1, 0, 1])
ROWS = [[51, 0.5], [34, 0.25], [67, 2.0]]
STRUCTURED = np.array([(51, 0.5), (34, 0.25), (67, 2.0)], [("age", int), ("marker", float)])
DICTIONARIES = [dict(zip(FIELDS, row, strict=True)) for row in ROWS]


def one_by_one(sink: Sink) -> None:
    for sample, label in zip(DICTIONARIES, LABELS, strict=True):
        sink.send(sample, label)


FORMS: dict[str, Callable[[Sink], None]] = {
    "columns": lambda sink: sink.send_batch(FIELDS, LABELS),
    "a structured array": lambda sink: sink.send_batch(STRUCTURED, LABELS),
    "a list of dictionaries": lambda sink: sink.send_batch(DICTIONARIES, list(LABELS)),
    "one by one": one_by_one,
}


@pytest.mark.parametrize("kind", [AvroSink, JsonSink, ProtobufSink])
@pytest.mark.parametrize("form", FORMS)
def test_records_of_several_fields_are_read_as_they_were_sent(
    kafka: KafkaSettings, control: str, tmp_path: Path, kind: type[Sink], form: str
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        FORMS[form](sink)
    (announcement,) = announced(kafka, control)
    spool = spool_stream(announcement, kafka, tmp_path)
    np.testing.assert_allclose(in_order(spool, "samples", 1), ROWS)
    assert in_order(spool, "labels", 1).ravel().tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [RawSink, AvroSink, JsonSink, ProtobufSink])
def test_arrays_are_read_as_they_were_sent(
    kafka: KafkaSettings, control: str, tmp_path: Path, kind: type[RawSink | Sink]
) -> None:
    images = np.random.default_rng(3).integers(0, 100, (60, 4, 3)).astype(np.uint8)
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control, partitions=2) as sink:
        sink.send_unsupervised_batch(images[:5])
        sink.send_batch(images[:50], np.arange(50))
        for number in range(50, 60):
            sink.send(images[number], number)
    (announcement,) = announced(kafka, control)
    assert announcement.record_count == 60
    assert sum(one.end - one.start for one in announcement.unsupervised_ranges) == 5
    spool = spool_stream(announcement, kafka, tmp_path)
    order = np.argsort(spool.read("labels").ravel())
    assert np.array_equal(spool.read("samples")[order].reshape(images.shape), images)


@pytest.mark.parametrize("kind", [RawSink, AvroSink, JsonSink, ProtobufSink])
def test_a_record_unlike_the_first_is_refused_and_the_sink_goes_on(
    kafka: KafkaSettings, control: str, kind: type[RawSink | Sink]
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        sink.send([1.0, 2.0], 1)
        for sample, label in (([1.0, 2.0, 3.0], 1), ({"a": 1.0}, 1), ([1.0, 2.0], None)):
            with pytest.raises(InvalidArgument) as caught:
                sink.send(sample, label)
            assert caught.value.reason_name == "SCHEMA_MISMATCH"
        sink.send([3.0, 4.0], 0)
    assert announced(kafka, control)[0].record_count == 2


def test_nested_dictionaries_keep_their_form(kafka: KafkaSettings, control: str, tmp_path: Path) -> None:
    with JsonSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        sink.send({"at": {"x": 1.0, "y": 2.0}, "sizes": [3.0, 4.0]}, 0)
        sink.send_batch([{"at": {"x": 5.0, "y": 6.0}, "sizes": [7.0, 8.0]}], [1])
    assert dict(sink.announcement.input_config)["data_fields"] == "at.x at.y sizes"
    spool = spool_stream(sink.announcement, kafka, tmp_path)
    assert spool.read("samples").tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_given_avro_schema_is_announced_and_kept(kafka: KafkaSettings, control: str, tmp_path: Path) -> None:
    scheme = {
        "type": "record",
        "name": "Patient",
        "fields": [{"name": "marker", "type": "double"}, {"name": "age", "type": "int"}],
    }
    with AvroSink(
        kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control,
        data_scheme=scheme, label_scheme='"int"',
    ) as sink:  # fmt: skip
        sink.send_batch(FIELDS, LABELS)
        with pytest.raises(InvalidArgument):
            sink.send({"age": 2**40, "marker": 1.0}, 1)
    assert '"Patient"' in sink.announcement.input_config["data_scheme"]
    assert sink.announcement.input_config["label_scheme"] == '"int"'
    spool = spool_stream(sink.announcement, kafka, tmp_path)
    assert spool.read("samples").tolist() == [row[::-1] for row in ROWS]


def test_nulls_and_nested_fields_go_by_avro(kafka: KafkaSettings, control: str, tmp_path: Path) -> None:
    age = {"name": "age", "type": ["null", "int"], "default": -1}
    scheme = {"type": "record", "name": "Patient", "fields": [age, {"name": "marker", "type": "double"}]}
    address = kafka.bootstrap_servers
    with AvroSink(address, f"{control}-a", DEPLOYMENT, control_topic=control, data_scheme=scheme) as sink:
        sink.send({"age": None, "marker": 0.5})
        sink.send_batch({"age": [51, None], "marker": [0.25, 2.0]})
    assert spool_stream(sink.announcement, kafka, tmp_path / "a").read("samples").tolist() == [
        [-1, 0.5], [51, 0.25], [-1, 2.0],
    ]  # fmt: skip
    with AvroSink(address, f"{control}-b", DEPLOYMENT, control_topic=control) as sink:
        sink.send_batch([{"at": {"x": 1.0, "y": 2.0}, "size": 3.0}])
    spool = spool_stream(sink.announcement, kafka, tmp_path / "b")
    assert spool.read("samples").tolist() == [[1, 2, 3]]
    assert [field.name for field in codec_for(DATA_FORMAT_AVRO, sink.announcement.input_config).fields] == [
        "at.x", "at.y", "size",
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [LABELS, None])
def test_records_have_the_ids_of_their_schemas_in_a_registry(
    kafka: KafkaSettings, control: str, tmp_path: Path, labels: np.ndarray[Any, Any] | None
) -> None:
    scheme = {
        "type": "record",
        "name": "Patient",
        "fields": [{"name": "age", "type": "int"}, {"name": "marker", "type": "double"}],
    }
    with registry() as server:
        server.add(scheme, subject=f"{control}-data-value")
        server.add("int", subject="outcome")
        with AvroSink(
            kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control,
            registry_url=server.url, label_subject="outcome",
        ) as sink:  # fmt: skip
            sink.send_batch(FIELDS, labels)
        (value, *_) = seen(kafka, f"{control}-data")
        assert value is not None
        assert value[:5] == b"\0\0\0\0\1"
        spool = spool_stream(announced(kafka, control)[0], kafka, tmp_path)
    assert spool.read("samples").tolist() == ROWS
    assert (spool.labels is None) is (labels is None)


@contextmanager
def registry() -> Iterator[SchemaServer]:
    with SchemaServer() as server:
        thread = threading.Thread(target=server.serve_forever, name="schema-server")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AvroSink, {"label_scheme": '"int"'}),
        (JsonSink, {"label_type": "int32"}),
        (ProtobufSink, {"label_message": Duration}),
    ],
)
def test_what_was_asked_for_labels_is_not_announced_where_there_are_none(
    kafka: KafkaSettings, control: str, tmp_path: Path, kind: type[Sink], settings: dict[str, Any]
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control, **settings) as sink:
        sink.send_batch(FIELDS)
    assert spool_stream(announced(kafka, control)[0], kafka, tmp_path).labels is None


def durations() -> Iterator[Duration]:
    return (Duration(seconds=number, nanos=10 * number) for number in range(5))


def sent_as_messages(sink: ProtobufSink) -> None:
    sink.send_batch(list(durations())[:3], [Int32Value(value=number) for number in range(3)])
    for number, duration in enumerate(list(durations())[3:], start=3):
        sink.send(duration, Int32Value(value=number))


def sent_as_fields(sink: ProtobufSink) -> None:
    numbers = np.arange(5)
    sink.send_batch({"seconds": numbers, "nanos": 10 * numbers}, {"value": numbers})


@pytest.mark.parametrize(
    ("messages", "send"),
    [
        ({}, sent_as_messages),
        ({"data_message": Duration, "label_message": Int32Value(value=1)}, sent_as_messages),
        ({"data_message": Duration(), "label_message": Int32Value}, sent_as_fields),
        ({"data_message": Duration}, lambda sink: sink.send_batch(list(durations()), np.arange(5))),
    ],
)
def test_messages_and_their_fields_are_read_as_they_were_sent(
    kafka: KafkaSettings, control: str, tmp_path: Path, messages: dict[str, Any], send: Callable[[ProtobufSink], None]
) -> None:
    with ProtobufSink(
        kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control, **messages
    ) as sink:
        send(sink)
    assert sink.announcement.input_config["data_message"] == "google.protobuf.Duration"
    spool = spool_stream(announced(kafka, control)[0], kafka, tmp_path)
    assert spool.read("samples").tolist() == [[number, 10 * number] for number in range(5)]
    assert spool.read("labels").ravel().tolist() == list(range(5))


def test_a_message_of_another_kind_is_refused(kafka: KafkaSettings, control: str) -> None:
    with ProtobufSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        sink.send(Duration(seconds=1), 1)
        with pytest.raises(InvalidArgument) as caught:
            sink.send(Timestamp(seconds=1), 1)
        assert caught.value.reason_name == "SCHEMA_MISMATCH"


@pytest.mark.parametrize("data_format", ["RAW", "AVRO", "JSON", "PROTOBUF"])
def test_a_stream_without_an_end_is_announced_before_its_first_record(
    kafka: KafkaSettings, control: str, data_format: str
) -> None:
    name = f"{control}-data"
    with OnlineSink(kafka.bootstrap_servers, name, DEPLOYMENT, control_topic=control, data_format=data_format) as sink:
        assert announced(kafka, control) == []
        sink.send([1.0, 2.0], 1)
        (announcement,) = announced(kafka, control)
        sink.send_batch(np.ones((99, 2)), np.ones(99, int))
        sink.flush()
        assert sink.delivered == 100
    assert announced(kafka, control) == [announcement]
    assert (list(announcement.ranges), list(announcement.open_topics)) == ([], [name])
    assert announcement.incremental
    assert announcement.stream_key
    assert announcement.topic_ids[name]
    assert eventually(lambda: log_ends(kafka, name)[0].high) == 100


def test_a_stream_without_an_end_is_no_transaction(kafka: KafkaSettings, control: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        OnlineSink(kafka.bootstrap_servers, "unused", DEPLOYMENT, control_topic=control, transactional=True)
    assert caught.value.reason_name == "INVALID_FIELD"


def test_an_unknown_format_is_told_with_the_known_ones(kafka: KafkaSettings) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OnlineSink(kafka.bootstrap_servers, "unused", DEPLOYMENT, data_format="CSV")
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert "PROTOBUF" in caught.value.message
