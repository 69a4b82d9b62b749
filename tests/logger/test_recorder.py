"""The logger as a process, on a real broker, before a small catalog that keeps positions and records in memory."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.broker import Broker
from headrace.errors import FieldViolation, InvalidArgument
from headrace.server import serving
from headrace.v1 import error_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogServicer, add_StreamCatalogServicer_to_server
from streams import control
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, headers_of, partitions_of
from streams.writer import BatchProducer
from tests.support import eventually, free_port

Place = tuple[str, int, int]


@dataclass
class Catalog(StreamCatalogServicer):
    """Keeps every source once, and what it announced."""

    announcements: dict[Place, stream_pb2.StreamAnnouncement | None] = field(default_factory=dict)
    failing: set[int] = field(default_factory=set)
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
        if request.announcement.deployment_id in self.failing:
            raise ZeroDivisionError
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
def logger_process(
    kafka: KafkaSettings, port: int, topic: str, metrics: int = 0, more: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """`python -P -m logger`, killed at the end unless it has ended."""
    environment = {
        **os.environ,
        "HEADRACE_ADDRESS": f"127.0.0.1:{port}",
        "HEADRACE_KAFKA": kafka.bootstrap_servers,
        "HEADRACE_CONTROL_TOPIC": topic,
        "HEADRACE_METRICS_LISTEN": f"127.0.0.1:{metrics}" if metrics else "",
        **(more or {}),
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
        eventually(lambda: len(catalog.deployments) == 3, timeout_s=40)
        announce(kafka, name, 4)
        eventually(lambda: catalog.deployments == [1, 2, 300, 4], timeout_s=40)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with catalog_on(port, catalog), logger_process(kafka, port, name):
        announce(kafka, name, 5)
        eventually(lambda: catalog.deployments == [1, 2, 300, 4, 5], timeout_s=40)
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
        eventually(lambda: catalog.deployments == [3], timeout_s=40)
        # The three in a row were passed together.
        assert [offset for _, _, offset in sorted(catalog.announcements)] == [2, 3, 4]
    letters = dead_letters_of(kafka, name)
    assert [dict(headers_of(letter))["headrace-source"] for letter in letters] == [
        f"{name}/0/{offset}".encode() for offset in (0, 1, 2, 3)
    ]
    first = dict(headers_of(letters[0]))
    assert (letters[0].key(), letters[0].value(), first["trace"]) == (b"\x01", b"{ not json", b"7")
    assert dict(headers_of(letters[3]))["headrace-error"] == b"INVALID_RANGE"


def test_kills_between_the_steps_lose_and_double_nothing(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path
) -> None:
    name, port, catalog = topic(), free_port(), Catalog()
    announce(kafka, name, 1, 2)
    with BatchProducer(kafka) as producer:
        producer.produce(name, None, b"nonsense")
        producer.flush()
    announce(kafka, name, 3)
    places = ("before_record", "after_record", "after_dead_letter")
    fail = {"HEADRACE_FAIL": ",".join(f"{place}:exit" for place in places), "HEADRACE_FAIL_FOLDER": str(tmp_path)}
    with catalog_on(port, catalog):
        for _ in places:
            with logger_process(kafka, port, name, more=fail) as process:
                assert process.wait(40) == -signal.SIGKILL
        with logger_process(kafka, port, name, more=fail):
            eventually(lambda: catalog.deployments == [1, 2, 3], timeout_s=40)
    assert [offset for _, _, offset in sorted(catalog.announcements)] == [0, 1, 2, 3]


def test_a_control_plane_that_is_away_is_waited_for_at_the_start_and_later(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, metrics, catalog = topic(), free_port(), free_port(), Catalog()
    announce(kafka, name, 1)
    with logger_process(kafka, port, name, metrics) as process:
        eventually(lambda: status_of(metrics, "/healthz") == 200, timeout_s=40)
        assert status_of(metrics, "/readyz") == 503
        with catalog_on(port, catalog):
            eventually(lambda: catalog.deployments == [1], timeout_s=40)
            eventually(lambda: status_of(metrics, "/readyz") == 200, timeout_s=40)
        announce(kafka, name, 2, 3)
        eventually(lambda: status_of(metrics, "/readyz") == 503, timeout_s=40)
        with catalog_on(port, catalog):
            eventually(lambda: catalog.deployments == [1, 2, 3], timeout_s=40)
        assert process.poll() is None


def test_a_broker_that_is_away_is_waited_for_at_the_start_and_later(tmp_path: Path) -> None:
    broker = Broker(tmp_path, port=free_port(), stop_with_parent=True)
    kafka, name, port, metrics, catalog = (
        KafkaSettings(broker.bootstrap_servers),
        "c",
        free_port(),
        free_port(),
        Catalog(),
    )
    with killed_at_the_end(broker), catalog_on(port, catalog), logger_process(kafka, port, name, metrics) as process:
        eventually(lambda: status_of(metrics, "/healthz") == 200, timeout_s=40)
        for deployment_id in (1, 2):
            assert status_of(metrics, "/readyz") == (503 if deployment_id == 1 else 200)
            broker.start()
            broker.wait_ready()
            eventually(lambda: status_of(metrics, "/readyz") == 200, timeout_s=40)
            announce(kafka, name, deployment_id)
            eventually(lambda: catalog.deployments[-1:] == [deployment_id], timeout_s=40)  # noqa: B023 - called here
            broker.kill()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert catalog.deployments == [1, 2]


def test_a_stop_is_obeyed_while_nothing_answers(kafka: KafkaSettings) -> None:
    nobody = KafkaSettings(f"127.0.0.1:{free_port()}")
    for settings in (nobody, kafka):
        metrics = free_port()
        with logger_process(settings, free_port(), "control", metrics) as process:
            eventually(lambda: status_of(metrics, "/healthz") == 200, timeout_s=40)  # noqa: B023 - called here
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_what_the_control_plane_fails_on_by_a_bug_is_not_passed_over(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, catalog = topic(), free_port(), Catalog(failing={2})
    announce(kafka, name, 1, 2, 3)
    with catalog_on(port, catalog), logger_process(kafka, port, name) as process:
        eventually(lambda: catalog.calls > 2, timeout_s=40)
        assert catalog.deployments == [1]
        catalog.failing.clear()
        eventually(lambda: catalog.deployments == [1, 2, 3], timeout_s=40)
        assert process.poll() is None


def test_missing_topics_are_made_and_a_bare_topic_is_an_open_ended_stream(kafka: KafkaSettings) -> None:
    name, port, metrics, catalog = f"control-{uuid.uuid4().hex}", free_port(), free_port(), Catalog()
    with catalog_on(port, catalog), logger_process(kafka, port, name, metrics):
        eventually(lambda: status_of(metrics, "/readyz") == 200, timeout_s=40)
        assert partitions_of(kafka, name) == [0]
        with BatchProducer(kafka) as producer:
            producer.produce(name, b"\x05", json.dumps({"topic": "sensors", "input_format": "RAW"}).encode())
            producer.flush()
        eventually(lambda: catalog.deployments == [5], timeout_s=40)
    (announced,) = catalog.announcements.values()
    assert announced is not None
    assert (list(announced.open_topics), announced.incremental, len(announced.ranges)) == (["sensors"], True, 0)


def test_a_message_too_large_to_be_copied_leaves_a_dead_letter_that_says_where_it_is(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name, port, catalog = topic(), free_port(), Catalog()
    with BatchProducer(kafka, settings={"message.max.bytes": 1_048_000, "compression.type": "none"}) as producer:
        producer.produce(name, b"\x01", b"x" * 1_040_000)
        producer.flush()
    announce(kafka, name, 3)
    with catalog_on(port, catalog), logger_process(kafka, port, name):
        eventually(lambda: catalog.deployments == [3], timeout_s=40)
    (letter,) = dead_letters_of(kafka, name)
    assert (letter.key(), letter.value()) == (None, None)
    assert dict(headers_of(letter))["headrace-source"] == f"{name}/0/0".encode()
    assert dict(headers_of(letter))["headrace-error"] == b"MALFORMED_REQUEST"


def test_messages_of_several_partitions_are_recorded_once_each(kafka: KafkaSettings, topic: Callable[..., str]) -> None:
    name, port, catalog = topic(partitions=3), free_port(), Catalog()
    ids = list(range(1, 31))
    announce(kafka, name, *ids[:15])
    for part in (ids[:15], ids):
        if part is ids:
            announce(kafka, name, *ids[15:])
        with catalog_on(port, catalog), logger_process(kafka, port, name):
            eventually(lambda: sorted(catalog.deployments) == part, timeout_s=40)  # noqa: B023 - called here
    assert catalog.calls == len(ids)


def test_wrong_settings_are_told_at_once() -> None:
    environment = {**os.environ, "HEADRACE_ADDRESS": "nowhere"}
    environment.pop("HEADRACE_KAFKA", None)
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "logger"], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 2
    assert [line.split(" ", 1)[0] for line in ended.stderr.splitlines()] == ["HEADRACE_ADDRESS", "HEADRACE_KAFKA"]


def status_of(port: int, path: str) -> int:
    """The status of the logger's HTTP endpoint; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def killed_at_the_end(broker: Broker) -> Iterator[None]:
    try:
        yield
    finally:
        broker.kill()


def dead_letters_of(kafka: KafkaSettings, topic: str) -> list[Message]:
    with TopicFollower(kafka, topic + ".dead-letters", {}) as follower:
        return follower.read(10)
