"""What a sink refuses, and that a record that was refused has decided nothing. On a real broker."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from headrace.errors import FailedPrecondition, InvalidArgument
from sinks import AvroSink, InferenceSink, JsonSink, OnlineSink, ProtobufSink, RawSink
from streams.kafka import KafkaSettings
from tests.sinks.announced import DEPLOYMENT, announced

Sink = RawSink | AvroSink | JsonSink | ProtobufSink


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (partial(AvroSink, data_scheme='"long"'), np.uint64(2**64 - 1), "18446744073709551615 does not fit int64"),
        (partial(JsonSink, data_type="uint64"), -1, "-1 does not fit uint64, which takes whole numbers from 0 to 184"),
        (partial(RawSink, data_type="uint32"), -1, "-1 does not fit uint32, which takes whole numbers from 0 to 429"),
        (partial(RawSink, data_type="float32"), 1e300, r"1e\+300 does not fit float32, which takes from -3.4"),
        (partial(AvroSink, data_scheme='"float"'), 1e300, r"1e\+300 does not fit float32, which takes from -3.4"),
    ],
)
def test_a_number_that_does_not_fit_is_refused_with_the_range(
    kafka: KafkaSettings, control: str, kind: Callable[..., Sink], value: Any, told: str
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        with pytest.raises(InvalidArgument, match=told) as caught:
            sink.send(value)
        assert caught.value.reason_name == "SCHEMA_MISMATCH"
        sink.send(1)
        assert sink.sent == 1


@pytest.mark.parametrize("kind", [RawSink, AvroSink, JsonSink, ProtobufSink, OnlineSink])
def test_an_option_that_is_misspelt_is_told_with_the_known_ones(kind: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"no option 'validaton_rate'; the known ones are .*validation_rate"):
        kind("localhost:9", "data", DEPLOYMENT, validaton_rate=0.3)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("partitions", 0, "from 1, not 0"),
        ("partitions", "2", "from 1, not '2'"),
        ("description", 5, "description is a text, not 5"),
        ("options", {"acks": "0"}, "Kafka confirms no record"),
    ],
)
def test_a_setting_of_another_kind_is_refused(name: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told) as caught:
        RawSink("localhost:9", "data", DEPLOYMENT, **{name: value})
    assert caught.value.metadata["field"] == name


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        (RawSink, "data_reshape", (28, 28), r"data_reshape is a text, such as '28 28', not \(28, 28\)"),
        (RawSink, "label_type", np.int32, "label_type is a text, such as 'float32', not <class"),
        (JsonSink, "data_type", np.dtype("f4"), "data_type is a text"),
    ],
)
def test_a_type_or_shape_that_is_no_text_is_refused(
    kind: Callable[..., Sink], name: str, value: Any, told: str
) -> None:
    with pytest.raises(InvalidArgument, match=told) as caught:
        kind("localhost:9", "data", DEPLOYMENT, **{name: value})
    assert [bad.field for bad in caught.value.fields] == [name]


@pytest.mark.parametrize("deployment_id", [0, -1, 2**63, "1", 1.5])
def test_what_is_no_deployment_is_refused(deployment_id: Any) -> None:
    with pytest.raises(InvalidArgument, match="deployment_id is the number of a deployment, from 1") as caught:
        RawSink("localhost:9", "data", deployment_id)
    assert caught.value.reason_name == "INVALID_FIELD"


@pytest.mark.parametrize("rate", ["0.1", None])
def test_a_rate_that_is_no_number_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidArgument, match="validation_rate is a number in"):
        RawSink("localhost:9", "data", DEPLOYMENT, validation_rate=rate)


def test_a_transaction_that_is_longer_than_the_broker_allows_is_refused(kafka: KafkaSettings, control: str) -> None:
    sink = RawSink(
        kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT,
        control_topic=control, transactional=True, transaction_s=1e6,
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match="Transaction timeout is larger than the maximum"):
        sink.send(1.0)
    sink.abandon()


def test_lists_of_different_lengths_are_refused(kafka: KafkaSettings, control: str) -> None:
    sink = RawSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control)
    for give in (sink.send, sink.send_batch):
        with pytest.raises(InvalidArgument, match="not equally long") as caught:
            give([[1, 2], [3]])
        assert caught.value.reason_name == "SCHEMA_MISMATCH"
    sink.abandon()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (5, r"a sample is int64 \(\), where this stream has single texts"),
        (1.5, "where this stream has single texts"),
        (["a", "b"], "where this stream has single texts"),
        ("x" * 65, "a sample is a text of 65 bytes, where 64 fit; data_reshape gives another width"),
        ("é" * 33, "a sample is a text of 66 bytes"),
    ],
)
def test_what_is_no_text_of_the_width_is_refused(kafka: KafkaSettings, control: str, text: Any, told: str) -> None:
    sink = RawSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control, data_type="string")
    sink.send(b"first", 1)
    with pytest.raises(InvalidArgument, match=told) as caught:
        sink.send(text, 1)
    assert (caught.value.reason_name, sink.sent) == ("SCHEMA_MISMATCH", 1)
    sink.abandon()


def test_a_label_of_an_unknown_type_is_called_a_label(kafka: KafkaSettings, control: str) -> None:
    sink = RawSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control)
    with pytest.raises(InvalidArgument, match=r"known types are .* string") as caught:
        sink.send(1.0, "cat")
    assert [bad.field for bad in caught.value.fields] == ["label_type"]
    sink.abandon()


@pytest.mark.parametrize("kind", [AvroSink, JsonSink, ProtobufSink])
@pytest.mark.parametrize("sample", [{}, {"a": {}}, {"a": []}, {"a": 1.0, "b": [[], []]}, []])
def test_a_sample_without_a_number_is_refused(
    kafka: KafkaSettings, control: str, kind: Callable[..., Sink], sample: Any
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        for give in (partial(sink.send, sample), partial(sink.send_batch, [sample, sample])):
            with pytest.raises(InvalidArgument) as caught:
                give()
            assert caught.value.reason_name == "SCHEMA_MISMATCH"
        sink.send({"a": 1.0})
    (found,) = announced(kafka, control)
    assert found.record_count == 1


@pytest.mark.parametrize("kind", [RawSink, AvroSink, JsonSink, ProtobufSink])
def test_a_first_record_that_is_refused_decides_nothing(
    kafka: KafkaSettings, control: str, kind: Callable[..., Sink]
) -> None:
    with kind(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        with pytest.raises(InvalidArgument):
            sink.send(np.random.default_rng(0).random(300_000), 1)
        with pytest.raises(InvalidArgument):
            sink.send([1, 2], ["no", "label"] if kind is not RawSink else object())
        sink.send([1, 2])
        sink.send([3, 4])
    (found,) = announced(kafka, control)
    assert (found.record_count, "label_reshape" in found.input_config) == (2, False)


def test_a_first_record_that_is_refused_announces_no_stream_without_an_end(kafka: KafkaSettings, control: str) -> None:
    with OnlineSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, control_topic=control) as sink:
        for sample, label in ((np.random.default_rng(0).random(300_000), 1), ([1.0], object())):
            with pytest.raises(InvalidArgument):
                sink.send(sample, label)
            assert announced(kafka, control) == []
        sink.send([1.0, 2.0])
        with pytest.raises(InvalidArgument):
            sink.send([1.0, 2.0], 1)
        sink.send([3.0, 4.0])
    (found,) = announced(kafka, control)
    assert dict(found.input_config) == {"data_type": "float64", "data_reshape": "2"}
    assert sink.delivered == 2


@pytest.mark.parametrize("index", [-1, 2])
def test_a_symbol_that_an_enum_does_not_have_is_refused(kafka: KafkaSettings, control: str, index: int) -> None:
    scheme = {"type": "enum", "name": "Side", "symbols": ["LEFT", "RIGHT"]}
    sink = AvroSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, data_scheme=scheme, control_topic=control)
    with pytest.raises(InvalidArgument, match=f"is {index}, where the enum's symbols are 0 to 1"):
        sink.send(index)
    sink.abandon()


def test_a_scheme_without_quotes_is_told(kafka: KafkaSettings, control: str) -> None:
    sink = AvroSink(kafka.bootstrap_servers, f"{control}-data", DEPLOYMENT, label_scheme="int", control_topic=control)
    with pytest.raises(InvalidArgument, match='write "int" in quotes'):
        sink.send(1.0, 1)
    sink.abandon()


def test_questions_outside_of_a_block_are_refused() -> None:
    sink = InferenceSink("localhost:9", "questions", "answers")
    with pytest.raises(FailedPrecondition, match="with InferenceSink"):
        list(sink.ask(np.zeros((1, 2), np.float32)))
