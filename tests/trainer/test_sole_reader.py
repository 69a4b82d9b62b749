"""Trainings of one deployment on one machine read its records once."""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from headrace.errors import HeadraceError
from headrace.v1.deployment_pb2 import TrainingSettings
from headrace.v1.stream_pb2 import Stream
from streams.kafka import KafkaSettings
from streams.preflight import Wait
from tests.support import eventually
from tests.trainer import digits
from trainer.data import Data, read_data
from trainer.sole_reader import sole_reader

HOLDER = """
import sys, threading, time
from pathlib import Path
from trainer.sole_reader import sole_reader
with sole_reader(Path(sys.argv[1]), threading.Event(), print):
    print("reading", flush=True)
    time.sleep(600)
"""


class Counting(KafkaSettings):
    """Counts the consumers that are made."""

    made: list[str] = []

    def consumer(self, settings: Mapping[str, Any] | None = None, **more: Any) -> Consumer:
        self.made.append("consumer")
        return super().consumer(settings, **more)


@pytest.fixture
def stream(kafka: KafkaSettings, topic: Callable[..., str]) -> Stream:
    name = topic(partitions=2)
    return digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))


def test_ten_trainings_read_their_stream_once(kafka: KafkaSettings, stream: Stream, tmp_path: Path) -> None:
    counting = Counting(kafka.bootstrap_servers)
    waits: list[Wait] = []

    def read(number: int, shared: Path) -> Data:
        folder = tmp_path / f"result-{number}"
        stop = threading.Event()
        return read_data(stream, TrainingSettings(), counting, folder, shared, stop=stop, on_wait=waits.append)

    read(0, tmp_path / "one")
    of_one = len(counting.made)
    counting.made.clear()
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda number: read(number, tmp_path / "shared"), range(1, 11)))
    assert len(counting.made) == of_one > 0
    assert {data.spool.samples for data in found} == {tmp_path / "shared" / "records" / "samples.npy"}
    assert {data.spool.rows for data in found} == {digits.ROWS}
    assert waits, "who waits says so"
    assert not list(tmp_path.glob("result-*/records"))


def test_a_killed_reader_lets_another_go_on(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"reading\n"
        entered = threading.Event()

        def wait() -> None:
            with sole_reader(tmp_path, threading.Event(), waits.append):
                entered.set()

        waits: list[Wait] = []
        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: waits)
        assert not entered.is_set()
        holder.kill()
        waiting.join(10)
        assert entered.is_set()


def test_a_wait_for_the_records_ends_with_the_training(tmp_path: Path) -> None:
    stop = threading.Event()
    with (
        sole_reader(tmp_path, stop, print),
        pytest.raises(HeadraceError) as caught,
        sole_reader(tmp_path, stop, lambda _: stop.set()),
    ):
        pass
    assert caught.value.reason_name == "CANCELLED"
