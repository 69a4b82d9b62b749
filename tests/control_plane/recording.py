"""A control plane and a logger in threads of the test, on a real broker: what becomes of control messages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from control_plane.__main__ import control_plane
from control_plane.settings import Settings
from control_plane.store import Store, streams
from headrace.client import connect
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from headrace.v1.stream_pb2 import Stream
from logger.recorder import Recorder
from streams.answers import dead_letter_topic
from streams.kafka import Headers, KafkaSettings, Message, headers_of, log_ends
from streams.writer import BatchProducer
from tests.control_plane.conftest import NOBODY
from tests.streams.log import offset_range, read
from tests.support import eventually

T = TypeVar("T")


@dataclass(frozen=True)
class Control:
    """A message of the control topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Recording:
    """What a test sends, and what it finds."""

    kafka: KafkaSettings
    topic: str
    store: Store
    address: str
    catalog: StreamCatalogStub

    def send(self, messages: Sequence[Control], **settings: object) -> None:
        """Write the messages to the control topic, in this order."""
        with BatchProducer(self.kafka, settings={"linger.ms": 0, **settings}) as producer:
            for one in messages:
                producer.produce(self.topic, one.key, one.value, one.headers, partition=0)
            producer.flush()

    def read(self, query: Callable[[], T]) -> T:
        return self.store.read_now(query)

    def streams(self) -> list[Stream]:
        """Everything that is recorded, in its order."""
        return self.read(lambda: streams.page(before_id=None, limit=10**9))[::-1]

    def recorded_up_to(self) -> int:
        return self.read(lambda: streams.positions(self.topic)).get(0, 0)

    def await_all(self, timeout_s: float = 30) -> None:
        """Return when the end of the control topic is recorded."""
        end = log_ends(self.kafka, self.topic)[0].high
        eventually(lambda: self.recorded_up_to() >= end, timeout_s=timeout_s)

    def dead_letters(self, start: int = 0) -> list[Message]:
        """Those from the offset `start` on."""
        topic = dead_letter_topic(self.topic)
        end = log_ends(self.kafka, topic)[0].high
        return read(self.kafka, offset_range(topic, start, end)) if start < end else []

    @contextmanager
    def logger(self) -> Iterator[Recorder]:
        """A logger that records until the block ends."""
        stop = threading.Event()
        with connect(self.address) as channel:
            recorder = Recorder(self.kafka, self.topic, StreamCatalogStub(channel))
            thread = threading.Thread(target=recorder.run, args=(stop,), name="logger")
            thread.start()
            try:
                yield recorder
            finally:
                stop.set()
                thread.join(30)


def source_of(letter: Message) -> int:
    """The offset of the message that a dead letter is of."""
    source = dict(headers_of(letter))["headrace-source"]
    assert isinstance(source, bytes)
    return int(source.rpartition(b"/")[2])


@contextmanager
def recording(kafka: KafkaSettings, topic: str, path: Path, busy_timeout_s: float = 5.0) -> Iterator[Recording]:
    """A control plane in a thread; no logger yet."""
    with Store.open(path / "headrace.db", busy_timeout_s=busy_timeout_s) as store:
        settings = Settings(
            home=path, kafka=kafka.bootstrap_servers, listen="127.0.0.1:0", control_topic=topic,
            tensorflow_executor=NOBODY, pytorch_executor=NOBODY,
        )  # fmt: skip
        with _serving(settings, store) as address, connect(address) as channel:
            yield Recording(kafka, topic, store, address, StreamCatalogStub(channel))


@contextmanager
def _serving(settings: Settings, store: Store) -> Iterator[str]:
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    addresses: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with control_plane(settings, store) as server:
            addresses.append(f"127.0.0.1:{server.port}")
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="control plane")
    thread.start()
    assert ready.wait(30)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
