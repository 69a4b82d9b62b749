"""Handwritten digits in Kafka, and tiny models that learn them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from headrace.v1 import model_pb2, stream_pb2
from streams.kafka import KafkaSettings

KERAS = """
model = keras.Sequential([keras.Input(shape=(64,)), layers.Dense(16, activation="relu"), layers.Dense(10)])
model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
"""
TORCH = """
class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x):
        return self.layers(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}


model = Digits()
"""
CODE = {model_pb2.FRAMEWORK_TENSORFLOW: KERAS, model_pb2.FRAMEWORK_PYTORCH: TORCH}
# Whose steps draw random numbers.
RANDOM = {
    model_pb2.FRAMEWORK_TENSORFLOW: KERAS.replace("layers.Dense(10)", "layers.Dropout(0.2), layers.Dense(10)"),
    model_pb2.FRAMEWORK_PYTORCH: TORCH.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.2)"),
}
ROWS = 200


def records(rows: int = ROWS) -> list[tuple[bytes, bytes]]:
    """Label and image, as RAW wants them: uint8 and float32 (64,)."""
    digits = load_digits()
    images = (digits.data[:rows] / 16).astype("<f4")
    return [(bytes([label]), image.tobytes()) for label, image in zip(digits.target[:rows], images, strict=True)]


def send(kafka: KafkaSettings, topic: str, partitions: int, messages: Iterable[tuple[bytes, bytes]]) -> list[int]:
    """Writes them round robin; the number written to each partition."""
    producer = kafka.producer()
    counts = [0] * partitions
    for number, (key, value) in enumerate(messages):
        producer.produce(topic, key=key, value=value, partition=number % partitions)
        counts[number % partitions] += 1
    assert producer.flush(30) == 0
    return counts


def stream_of(topic: str, counts: Iterable[int], **changes: Any) -> stream_pb2.Stream:
    """The stream of records that were written to a fresh topic."""
    counts = list(counts)
    ranges = [
        stream_pb2.OffsetRange(topic=topic, partition=partition, start=0, end=count)
        for partition, count in enumerate(counts)
    ]
    stream = stream_pb2.Stream(
        id=1,
        ranges=ranges,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "float32", "data_reshape": "64", "label_type": "uint8"},
        validation_rate=0.2,
        test_rate=0.1,
        record_count=sum(counts),
    )
    stream.MergeFrom(stream_pb2.Stream(**changes))
    return stream


def split_sizes(rows: int = ROWS) -> tuple[int, int, int]:
    """Training, validation, test of `stream_of`."""
    validation, test = int(np.floor(0.2 * rows)), int(np.floor(0.1 * rows))
    return rows - validation - test, validation, test
