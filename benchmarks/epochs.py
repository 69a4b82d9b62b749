"""What a trainer reads from Kafka in its first epoch and in all later ones: bytes, counted between it and Kafka."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.collector import Collector, free_port, make_results
from benchmarks.relay import CountingRelay
from benchmarks.report import Ratio
from benchmarks.training import CODE, EPOCHS, ROWS, Case, enlarged_digits
from cli.broker import Broker
from headrace.client import connect
from headrace.v1 import stream_pb2
from headrace.v1.deployment_pb2 import STATE_FINISHED, TrainingSettings
from headrace.v1.result_collector_pb2 import WatchResultsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2 import RecordStreamRequest
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from sinks import RawSink

BATCH_SIZE = 256
TOPIC = "digits"


def measure() -> list[Ratio]:
    """Of both frameworks."""
    with tempfile.TemporaryDirectory() as name, behind_relay(Path(name) / "broker") as relay:
        folder = Path(name)
        enlarged_digits(folder)
        announcement = _sent(folder, f"127.0.0.1:{relay.port}")
        return [
            _ratio(Case(framework, code, BATCH_SIZE, EPOCHS), folder / framework, relay, announcement)
            for framework, code in CODE.items()
        ]


@contextmanager
def behind_relay(home: Path) -> Iterator[CountingRelay]:
    """In front of a broker that all its clients reach through it."""
    port = free_port()
    with CountingRelay(port) as relay:
        advertised = {"advertised.listeners": f"BROKER://127.0.0.1:{relay.port}"}
        with Broker(home, port=port, settings=advertised, stop_with_parent=True):
            yield relay


def _sent(folder: Path, kafka: str) -> stream_pb2.StreamAnnouncement:
    with RawSink(kafka, TOPIC, deployment_id=1) as sink:
        sink.send_batch(np.load(folder / "samples.npy"), np.load(folder / "labels.npy"))
    return sink.announcement


def _ratio(case: Case, home: Path, relay: CountingRelay, announcement: stream_pb2.StreamAnnouncement) -> Ratio:
    before = relay.bytes_to_clients
    marks = [relay.bytes_to_clients - before for _ in _epochs(case, home, relay.port, announcement)]
    first, later = marks[0], marks[-1] - marks[0]
    return Ratio(
        f"bytes from Kafka in the epochs 2 to {case.epochs} of a training on {ROWS:,} rows of 28×28, batch"
        f" {case.batch_size}, {case.framework}, against those up to the end of the first",
        f"{later:,} bytes",
        f"{first:,} bytes",
        (later / first,),
        "0 ×",
    )


def _epochs(case: Case, home: Path, kafka_port: int, announcement: stream_pb2.StreamAnnouncement) -> Iterator[int]:
    """The numbers of a trainer's epochs as their collector hears of them; at last 0, when it has finished."""
    home.mkdir()
    settings = TrainingSettings(batch_size=case.batch_size, seed=1)
    getattr(settings, case.framework).fit_args = case.fit_args
    (result_id,) = make_results(home, [(case.framework, case.code)], settings)
    collector = Collector(home)
    try:
        with connect(collector.address) as channel:
            source = stream_pb2.StreamSource(topic="control")
            request = RecordStreamRequest(source=source, announcement=announcement)
            request.dialect = stream_pb2.DIALECT_HEADRACE
            StreamCatalogStub(channel).RecordStream(request)
            with _trainer(home, collector.address, kafka_port, result_id):
                for event in ResultCollectorStub(channel).WatchResults(WatchResultsRequest(result_id=result_id)):
                    if event.HasField("epoch"):
                        yield event.epoch.number
                    if event.result.state == STATE_FINISHED:
                        yield 0
                        return
    finally:
        collector.kill()


@contextmanager
def _trainer(home: Path, address: str, kafka_port: int, result_id: int) -> Iterator[None]:
    environ = {
        "HEADRACE_ADDRESS": address,
        "HEADRACE_KAFKA": f"127.0.0.1:{kafka_port}",
        "HEADRACE_RESULT_ID": str(result_id),
        "HEADRACE_ATTEMPT": "1",
        "HEADRACE_WORK_DIR": str(home / "work"),
    }
    command = [sys.executable, "-P", "-m", "trainer"]
    with subprocess.Popen(command, env=os.environ | environ, stderr=subprocess.DEVNULL) as process:
        yield
        assert process.wait(60) == 0
