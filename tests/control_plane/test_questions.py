"""Questions in short, as people see them beside their answers."""

from collections.abc import Callable

import numpy as np
import pytest

from control_plane.questions import Questions, summary_of
from headrace.v1.predictions_pb2 import Prediction, RecordSource
from headrace.v1.stream_pb2 import DATA_FORMAT_JSON, DATA_FORMAT_RAW
from streams.codecs import Array, codec_of
from streams.kafka import KafkaSettings
from tests.streams.log import write


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (np.array([5.1, 3.5, 1.25], np.float32), "5.1, 3.5, 1.25"),
        (np.array([[1, 2], [3, 4]], np.uint8), "1, 2, 3, 4"),
        (np.arange(64, dtype=np.uint8).reshape(8, 8), "8×8 numbers from 0 to 63, mean 31.5"),
        (np.full(1000, 0.5, np.float32), "1000 numbers from 0.5 to 0.5, mean 0.5"),
    ],
)
def test_numbers_are_shown_where_they_are_few_and_described_where_they_are_many(row: Array, text: str) -> None:
    assert summary_of(codec_of(DATA_FORMAT_RAW, row[np.newaxis]), row) == text


def test_fields_are_shown_by_name() -> None:
    codec = codec_of(DATA_FORMAT_JSON, {"width": np.array([5.1]), "height": np.array([3.5])})
    decoded = codec.decode_samples(codec.encode_samples({"width": np.array([5.1]), "height": np.array([3.5])}))
    assert summary_of(codec, np.asarray(decoded.rows[0])) == "width 5.1, height 3.5"


def test_questions_that_are_texts_are_shown_as_they_are(kafka: KafkaSettings, topic: Callable[..., str]) -> None:
    name = topic()
    write(kafka, name, [b"abc", b"def"])
    predictions = [Prediction(source=RecordSource(topic=name, offset=offset)) for offset in range(2)]
    with Questions(kafka, name, DATA_FORMAT_RAW, {"data_type": "string", "data_reshape": "3"}) as questions:
        questions.summarise(predictions)
    assert [one.input_summary for one in predictions] == ["abc", "def"]
