"""A control plane as a trainer sees it, and the digits in a topic of their own."""

from collections.abc import Callable, Iterator

import pytest

from headrace.v1 import stream_pb2
from streams.kafka import KafkaSettings
from tests.trainer import digits
from tests.trainer.platform import Platform


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    platform.start()
    yield platform
    platform.stop()


@pytest.fixture
def stream(kafka: KafkaSettings, topic: Callable[..., str]) -> stream_pb2.Stream:
    name = topic(partitions=2)
    return digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
