import base64
import io
import json

import fastavro
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, message_factory

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.inference_pb2 import AnswerLabels, Inference
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_AVRO,
    DATA_FORMAT_JSON,
    DATA_FORMAT_PROTOBUF,
    DATA_FORMAT_RAW,
    DataFormat,
)
from inferencer.answers import Refusal, answers_headers, dead_letter_headers, encode_answers, encoder_of
from streams.answers import REQUEST_HEADER, request_to
from streams.outputs import AnswerReader, output_config


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5,), (5, 2, 2), (5, 0), (0, 3)])
def test_an_answer_per_row_holds_its_values(shape: tuple[int, ...]) -> None:
    outputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    answers = encode_answers({"output": outputs})
    assert len(answers) == shape[0]
    for row, answer in zip(outputs, answers, strict=True):
        assert isinstance(answer, bytes)
        np.testing.assert_allclose(json.loads(answer)["values"], np.atleast_1d(row), rtol=1e-6)


def test_several_outputs_are_answered_by_name_and_the_last_as_values() -> None:
    outputs = {"to_fog": np.ones((2, 4), np.float32), "edge": np.array([[0.25, 0.75], [1, 0]], np.float32)}
    (first, _) = encode_answers(outputs)
    assert isinstance(first, bytes)
    assert json.loads(first) == {
        "values": [0.25, 0.75],
        "outputs": {"to_fog": [1.0] * 4, "edge": [0.25, 0.75]},
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_number_that_json_lacks_is_refused_and_the_others_answered(bad: float) -> None:
    answers = encode_answers({"output": np.array([[1.0, 2.0], [bad, 2.0], [3.0, 4.0]])})
    assert [isinstance(answer, bytes) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], Refusal)
    assert answers[1].reason_name == "NAN_OUTPUT"


ASKS_US = b"headrace-inf-7/"


@pytest.mark.parametrize("asked", ["headrace-inf-7", "headrace-inf-70", "headrace-inf-8"])
def test_a_request_is_copied_by_the_inference_that_it_asks(asked: str) -> None:
    request: tuple[str, str | bytes | None] = (REQUEST_HEADER, request_to(asked, "an id").encode())
    (answer,) = answers_headers([[("n", b"1"), request]], b"digits/3", [b"in/2/7"], request=ASKS_US)
    refusal = Refusal(error_pb2.REASON_DECODE_ERROR, "wrong")
    letter = dead_letter_headers([("n", b"1"), request], b"digits/3", b"in/2/7", refusal, request=ASKS_US)
    is_ours = asked == "headrace-inf-7"
    assert [request in headers for headers in (answer, letter)] == [is_ours, is_ours]
    assert [("n", b"1") in headers for headers in (answer, letter)] == [True, True]


def test_an_answer_copies_headers_and_replaces_those_of_an_inference_before_it() -> None:
    copied: list[tuple[str, str | bytes | None]] = [
        ("trace", b"1"),
        ("headrace-source", b"old/0/1"),
        ("trace", None),
        ("headrace-model", b"old/1"),
    ]
    headers = answers_headers([copied, []], b"digits/3", [b"in/2/7", b"in/0/1"], request=ASKS_US)
    assert headers == [
        [("trace", b"1"), ("trace", None), ("headrace-model", b"digits/3"), ("headrace-source", b"in/2/7")],
        [("headrace-model", b"digits/3"), ("headrace-source", b"in/0/1")],
    ]


def test_a_dead_letter_says_reason_source_and_model() -> None:
    refusal = Refusal(error_pb2.REASON_DECODE_ERROR, "3 bytes where 64 are needed" + "x" * 5000)
    headers = dict(dead_letter_headers(None, b"digits/3", b"in/2/7", refusal, request=ASKS_US))
    assert headers["headrace-error"] == b"DECODE_ERROR"
    message = headers["headrace-error-message"]
    assert isinstance(message, bytes)
    assert message.startswith(b"3 bytes where 64 are needed")
    assert len(message) == 1024
    assert headers["headrace-source"] == b"in/2/7"
    assert headers["headrace-model"] == b"digits/3"


def test_labels_name_the_best_class_and_tell_its_score() -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.125]], np.float32)
    named = encoder_of(Inference(labels=AnswerLabels(names=["cat", 'a "dog"'])))
    assert [json.loads(answer) for answer in map(as_bytes, named({"output": scores}))] == [
        {"values": [0.25, 0.75], "label": 'a "dog"', "score": 0.75},
        {"values": [0.5, 0.125], "label": "cat", "score": 0.5},
    ]
    numbered = encoder_of(Inference(labels=AnswerLabels()))
    assert [json.loads(answer)["label"] for answer in map(as_bytes, numbered({"output": scores}))] == [1, 0]
    with pytest.raises(InvalidArgument):
        named({"output": np.ones((1, 3), np.float32)})


def as_bytes(answer: bytes | Refusal) -> bytes:
    assert isinstance(answer, bytes)
    return answer


FORMATS = [DATA_FORMAT_RAW, DATA_FORMAT_AVRO, DATA_FORMAT_PROTOBUF, DATA_FORMAT_JSON]


def answering(data_format: DataFormat, shapes: dict[str, tuple[int, ...]]) -> Inference:
    return Inference(output_format=data_format, output_config=output_config(data_format, shapes))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5,), (5, 2, 3)])
def test_an_answer_in_every_format_is_read_by_the_config_that_the_inference_shows(
    data_format: DataFormat, known: bool, shape: tuple[int, ...]
) -> None:
    outputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    inference = answering(data_format, {"output": shape[1:]} if known else {})
    reader = AnswerReader(inference.output_format, inference.output_config)
    answers = encoder_of(inference)({"output": outputs})
    assert len(answers) == 5
    for row, answer in zip(outputs, answers, strict=True):
        assert isinstance(answer, bytes)
        read = np.array(reader.values(answer))
        np.testing.assert_allclose(read.reshape(row.shape), row, rtol=1e-6)
        if known:
            assert read.shape == np.atleast_1d(row).shape


@pytest.mark.parametrize("data_format", [DATA_FORMAT_AVRO, DATA_FORMAT_PROTOBUF])
def test_several_outputs_are_fields_in_avro_and_protobuf(data_format: DataFormat) -> None:
    inference = answering(data_format, {"to/fog": (4,), "edge": (2,)})
    outputs = {"to/fog": np.ones((2, 4), np.float32), "edge": np.array([[0.25, 0.75], [1, 0]], np.float32)}
    first, _ = encoder_of(inference)(outputs)
    assert isinstance(first, bytes)
    reader = AnswerReader(inference.output_format, inference.output_config)
    assert reader.outputs(first) == {"to_fog": [1.0] * 4, "edge": [0.25, 0.75]}
    assert reader.values(first) == [0.25, 0.75]


def test_raw_answers_are_little_endian_float32_of_the_last_output() -> None:
    outputs = {"one": np.ones((1, 4), np.float32), "two": np.array([[1, 2]], np.float32)}
    inference = answering(DATA_FORMAT_RAW, {"one": (4,), "two": (2,)})
    assert encoder_of(inference)(outputs) == [np.array([1, 2], "<f4").tobytes()]


def test_avro_answers_are_read_by_another_library() -> None:
    inference = answering(DATA_FORMAT_AVRO, {"output": (2,)})
    (answer,) = encoder_of(inference)({"output": np.array([[0.5, 2]], np.float32)})
    assert isinstance(answer, bytes)
    schema = json.loads(inference.output_config["data_scheme"])
    assert fastavro.schemaless_reader(io.BytesIO(answer), schema, None) == {"values": [0.5, 2.0]}


def test_protobuf_answers_are_read_by_their_descriptor() -> None:
    inference = answering(DATA_FORMAT_PROTOBUF, {"output": (2,)})
    (answer,) = encoder_of(inference)({"output": np.array([[0.5, 2]], np.float32)})
    assert isinstance(answer, bytes)
    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(inference.output_config["descriptor_set"]))
    message = message_factory.GetMessages(list(files.file))[inference.output_config["data_message"]]
    assert list(message.FromString(answer).values) == [0.5, 2.0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("data_format", FORMATS)
def test_nan_is_refused_in_every_format(data_format: DataFormat) -> None:
    answers = encoder_of(answering(data_format, {"o": (2,)}))({"o": np.array([[1, np.nan], [1, 2]], np.float32)})
    assert [isinstance(answer, bytes) for answer in answers] == [False, True]
