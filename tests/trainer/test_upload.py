import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headrace.chunks import sha256_of
from headrace.client import connect
from headrace.errors import Cancelled, Unavailable
from headrace.patience import Patience
from headrace.v1 import error_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Artifact
from tests.trainer.collector import MemoryCollector
from trainer.ending import Ending
from trainer.upload import Uploader

SIZE = 1_000_003


@pytest.fixture
def collector() -> Iterator[MemoryCollector]:
    collector = MemoryCollector()
    collector.start()
    yield collector
    collector.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def artifact_of(path: Path) -> Artifact:
    return Artifact(
        name=path.name,
        media_type="application/octet-stream",
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )


@contextmanager
def uploading(
    collector: MemoryCollector, *, patience_s: float = 30.0, stop: threading.Event | None = None
) -> Iterator[Uploader]:
    with ExitStack() as stack:
        stub = ResultCollectorStub(stack.enter_context(connect(collector.address)))
        ending = stack.enter_context(Ending(stop or threading.Event()))
        yield Uploader(stub, Patience(ending.event, ending.check, patience_s), result_id=1, attempt=1)


def test_an_upload_arrives_whole(collector: MemoryCollector, model: Path) -> None:
    with uploading(collector) as uploader:
        stored = uploader.upload(artifact_of(model), model)
    assert collector.artifacts[stored.sha256] == model.read_bytes()


def test_an_upload_that_is_cut_goes_on_where_it_was(collector: MemoryCollector, model: Path) -> None:
    collector.cut_upload_after = [300_000, 700_000]
    with uploading(collector) as uploader:
        stored = uploader.upload(artifact_of(model), model)
    assert collector.cut_upload_after == []
    assert collector.artifacts[stored.sha256] == model.read_bytes()


def test_uploading_twice_is_harmless(collector: MemoryCollector, model: Path) -> None:
    with uploading(collector) as uploader:
        for _ in range(2):
            uploader.upload(artifact_of(model), model)
    assert list(collector.artifacts.values()) == [model.read_bytes()]


def test_patience_ends(collector: MemoryCollector, model: Path) -> None:
    collector.stop()
    with uploading(collector, patience_s=0.2) as uploader, pytest.raises(Unavailable) as raised:
        uploader.upload(artifact_of(model), model)
    assert raised.value.reason == error_pb2.REASON_SERVICE_UNAVAILABLE


def test_a_stop_ends_patience(collector: MemoryCollector, model: Path) -> None:
    collector.stop()
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with uploading(collector, patience_s=60, stop=stop) as uploader, pytest.raises(Cancelled):
        uploader.upload(artifact_of(model), model)
