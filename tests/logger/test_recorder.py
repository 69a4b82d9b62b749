"""The logger as a process, on a real broker, before a small catalog that keeps positions and records in memory."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import FieldViolation, InvalidArgument
from headrace.server import serving
from headrace.v1 import error_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogServicer, add_StreamCatalogServicer_to_server
from streams import control
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings
from streams.writer import BatchProducer
from tests.support import eventually, free_port

Place = tuple[str, int, int]


@dataclass
class Catalog(StreamCatalogServicer):
    """Keeps every source once, and what it announced."""

    announcements: dict[Place, stream_pb2.StreamAnnouncement | None] = field(default_factory=dict)
    calls: int = 0

    async def GetRecordedPositions(self, request: Any, context: Any) -> Any:
        positions: dict[int, int] = {}
        for _, partition, offset in self.announcements:
            positions[partition] = max(offset + 1, positions.get(partition, 0))
        return stream_catalog_pb2.GetRecordedPositionsResponse(next_offsets=positions)

    async def RecordStream(self, request: Any, context: Any) -> Any:
        self.calls += 1
        if request.announcement.deployment_id == 666:
            violation = FieldViolation("announcement.ranges", "they are reversed")
            raise InvalidArgument(error_pb2.REASON_INVALID_RANGE, "reversed", fields=[violation])
        source = request.source
        place = (source.topic, source.partition, source.offset)
        created = place not in self.announcements
        self.announcements[place] = request.announcement if request.HasField("announcement") else None
        return stream_catalog_pb2.RecordStreamResponse(created=created, stream=stream_pb2.Stream(id=1))

    @property
    def deployments(self) -> list[int]:
        recorded = [announced for _, announced in sorted(self.announcements.items())]
        return [announced.deployment_id for announced in recorded if announced is not None]


@contextmanager
def catalog_on(port: int, catalog: Catalog) -> Iterator[None]:
    """Serves the catalog on a thread of its own."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        name = "headrace.v1.StreamCatalog"
        async with serving(f"127.0.0.1:{port}", [(add_StreamCatalogServicer_to_server, catalog, name)]):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="catalog")
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def logger_process(kafka: KafkaSettings, port: int, topic: str, metrics: int = 0, **more: str) -> Iterator[Any]:
    """`python -P -m logger`, killed at the end unless it has ended."""
    environment = {
        **os.environ,
        "HEADRACE_ADDRESS": f"127.0.0.1:{port}",
        "HEADRACE_KAFKA": kafka.bootstrap_servers,
        "HEADRACE_CONTROL_TOPIC": topic,
        "HEADRACE_METRICS_LISTEN": f"127.0.0.1:{metrics}" if metrics else "",
        **more,
    }
    process = subprocess.Popen([sys.executable, "-P", "-m", "logger"], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def announce(kafka: KafkaSettings, topic: str, *deployment_ids: int) -> None:
    """Announcements in both dialects in turn."""
    with BatchProducer(kafka) as producer:
        for number, deployment_id in enumerate(deployment_ids):
            announcement = stream_pb2.StreamAnnouncement(
                message_id=f"m{deployment_id}",
                deployment_id=deployment_id,
                ranges=[stream_pb2.OffsetRange(topic="data", partition=0, start=0, end=10)],
                input_format=stream_pb2.DATA_FORMAT_RAW,
                input_config={"data_type": "uint8", "label_type": "uint8"},
                record_count=10,
            )
            if number % 2:
                key, value = control.encode_legacy(announcement)
                producer.produce(topic, key, value)
            else:
                headers, value = control.encode(announcement)
                producer.produce(topic, None, value, headers)
        producer.flush()


def test_every_message_of_both_dialects_is_recorded_once_from_the_start_of_the_topic(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, metrics, catalog = topic(), free_port(), free_port(), Catalog()
    announce(kafka, name, 1, 2, 300)
    with catalog_on(port, catalog), logger_process(kafka, port, name, metrics) as process:
        eventually(lambda: len(catalog.deployments) == 3, timeout_s=20)
        announce(kafka, name, 4)
        eventually(lambda: catalog.deployments == [1, 2, 300, 4], timeout_s=20)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with catalog_on(port, catalog), logger_process(kafka, port, name):
        announce(kafka, name, 5)
        eventually(lambda: catalog.deployments == [1, 2, 300, 4, 5], timeout_s=20)
    assert catalog.calls == 5


def test_what_is_no_announcement_becomes_a_dead_letter_and_the_rest_goes_on(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, catalog = topic(), free_port(), Catalog()
    with BatchProducer(kafka) as producer:
        producer.produce(name, b"\x01", b"{ not json", [("trace", b"7")])
        producer.produce(name, None, None)
        producer.produce(name, b"\x01", json.dumps({"topic": "t:0:5"}).encode())
        producer.flush()
    announce(kafka, name, 666, 3)
    with catalog_on(port, catalog), logger_process(kafka, port, name):
        eventually(lambda: catalog.deployments == [3], timeout_s=20)
        assert len(catalog.announcements) == 5
    with TopicFollower(kafka, name + ".dead-letters", {}) as follower:
        letters = follower.read(10)
    assert [dict(letter.headers() or [])["headrace-source"] for letter in letters] == [
        f"{name}/0/{offset}".encode() for offset in (0, 1, 2, 3)
    ]
    first = dict(letters[0].headers() or [])
    assert (letters[0].key(), letters[0].value(), first["trace"]) == (b"\x01", b"{ not json", b"7")
    assert dict(letters[3].headers() or [])["headrace-error"] == b"INVALID_RANGE"


@pytest.mark.parametrize("place", ["before_record", "after_record", "after_dead_letter"])
def test_a_kill_between_two_steps_loses_and_doubles_nothing(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path, place: str
) -> None:
    name, port, catalog = topic(), free_port(), Catalog()
    announce(kafka, name, 1, 2)
    with BatchProducer(kafka) as producer:
        producer.produce(name, None, b"nonsense")
        producer.flush()
    announce(kafka, name, 3)
    with catalog_on(port, catalog):
        with logger_process(kafka, port, name, HEADRACE_FAIL=f"{place}:exit@1") as process:
            assert process.wait(20) == -signal.SIGKILL
        with logger_process(kafka, port, name):
            eventually(lambda: catalog.deployments == [1, 2, 3], timeout_s=20)


def test_a_control_plane_and_a_broker_that_are_away_at_the_start_are_waited_for(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, catalog = topic(), free_port(), Catalog()
    announce(kafka, name, 1)
    with logger_process(kafka, port, name) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        with catalog_on(port, catalog):
            eventually(lambda: catalog.deployments == [1], timeout_s=20)
