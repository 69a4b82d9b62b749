import json

import numpy as np
import pytest

from headrace.v1 import error_pb2
from inferencer.answers import Refusal, answer_headers, dead_letter_headers, encode_answers


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


def test_an_answer_copies_headers_and_replaces_those_of_an_inference_before_it() -> None:
    copied: list[tuple[str, str | bytes | None]] = [
        ("trace", b"1"),
        ("headrace-source", b"old/0/1"),
        ("trace", None),
        ("headrace-model", b"old/1"),
    ]
    headers = answer_headers(copied, b"digits/3", b"in/2/7")
    assert headers == [
        ("trace", b"1"),
        ("trace", None),
        ("headrace-model", b"digits/3"),
        ("headrace-source", b"in/2/7"),
    ]


def test_a_dead_letter_says_reason_source_and_model() -> None:
    refusal = Refusal(error_pb2.REASON_DECODE_ERROR, "3 bytes where 64 are needed" + "x" * 5000)
    headers = dict(dead_letter_headers(None, b"digits/3", b"in/2/7", refusal))
    assert headers["headrace-error"] == b"DECODE_ERROR"
    message = headers["headrace-error-message"]
    assert isinstance(message, bytes)
    assert message.startswith(b"3 bytes where 64 are needed")
    assert len(message) == 1024
    assert headers["headrace-source"] == b"in/2/7"
    assert headers["headrace-model"] == b"digits/3"
