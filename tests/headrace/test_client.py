"""Deadlines, retries and errors of both clients, against a real server."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace import errors
from headrace.client import connect, connect_async
from headrace.errors import HeadraceError, Unavailable
from headrace.v1 import error_pb2, result_collector_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.headrace.servicers import GET, Catalog, Collector, address, on_a_thread, on_loopback
from tests.support import eventually, free_port

RECORD = stream_catalog_pb2.RecordStreamRequest()
WATCH = result_collector_pb2.WatchResultsRequest(result_id=1)


class FailingFirst:
    """Raises `error` so many times, then answers."""

    def __init__(self, times: int, error: HeadraceError) -> None:
        self.left, self.error = times, error

    async def __call__(self, _: Any) -> stream_pb2.Stream:
        if self.left:
            self.left -= 1
            raise self.error
        return stream_pb2.Stream(id=7)


UNAVAILABLE = Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "no broker", bootstrap_servers="b:9092")


def test_the_synchronous_client_calls_and_gets_the_servers_error() -> None:
    async def refuse(request: Any) -> Any:
        raise errors.NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, f"no stream has the id {request.id}", id=request.id)

    with (
        on_a_thread(lambda: Catalog(refuse)) as target,
        connect(target) as channel,
        pytest.raises(errors.NotFound) as caught,
    ):
        StreamCatalogStub(channel).GetStream(GET)
    assert caught.value.metadata == {"id": "7"}


def test_the_synchronous_client_retries_what_is_harmless_to_repeat() -> None:
    with on_a_thread(lambda: Catalog(FailingFirst(2, UNAVAILABLE))) as target, connect(target) as channel:
        assert StreamCatalogStub(channel).GetStream(GET).id == 7


def test_the_synchronous_client_streams_both_ways_and_uploads() -> None:
    requests = [result_collector_pb2.ReportRequest(seq=seq) for seq in (1, 2, 3)]
    uploads = [result_collector_pb2.UploadArtifactRequest()] * 5
    with on_a_thread(Collector) as target, connect(target) as channel:
        stub = ResultCollectorStub(channel)
        assert [answer.acked_seq for answer in stub.Report(iter(requests))] == [1, 2, 3]
        assert stub.UploadArtifact(iter(uploads)).size_bytes == 5
        watch = stub.WatchResults(WATCH)
        assert next(watch).sequence == 1
        watch.cancel()
        with pytest.raises(errors.Cancelled):
            next(watch)


def test_the_synchronous_client_meets_the_error_of_a_stream_where_it_happened() -> None:
    lagged = errors.Aborted(error_pb2.REASON_WATCH_LAGGED, "too slow", resume_after=1)
    with on_a_thread(lambda: Collector(error=lagged)) as target, connect(target) as channel:
        events = ResultCollectorStub(channel).WatchResults(WATCH)
        assert next(events).sequence == 1
        with pytest.raises(errors.Aborted) as caught:
            next(events)
    assert caught.value.metadata == {"resume_after": "1"}


def test_a_server_that_was_started_again_is_found_within_seconds() -> None:
    port = free_port()
    with connect(f"127.0.0.1:{port}") as channel:
        stub = StreamCatalogStub(channel)
        for _ in range(2):
            with on_a_thread(Catalog, port):
                eventually(lambda: answers(stub), timeout_s=5)
            assert not answers(stub)


def answers(stub: StreamCatalogStub) -> bool:
    try:
        return bool(stub.GetStream(GET, timeout=0.5).id == 7)
    except HeadraceError:
        return False


async def test_an_idempotent_call_is_retried_while_unavailable() -> None:
    catalog = Catalog(FailingFirst(2, UNAVAILABLE))
    async with on_loopback(catalog) as running, connect_async(address(running)) as channel:
        assert (await StreamCatalogStub(channel).GetStream(GET)).id == 7
    assert catalog.calls == 3


async def test_retries_are_bounded() -> None:
    catalog = Catalog(FailingFirst(100, UNAVAILABLE))
    async with on_loopback(catalog) as running, connect_async(address(running)) as channel:
        with pytest.raises(Unavailable) as caught:
            await StreamCatalogStub(channel).GetStream(GET)
    assert catalog.calls == 4
    assert caught.value.metadata == {"bootstrap_servers": "b:9092"}


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("RecordStream", RECORD, UNAVAILABLE),
        ("GetStream", GET, errors.Aborted(error_pb2.REASON_STALE_ETAG, "raced")),
        ("GetStream", GET, errors.ResourceExhausted(error_pb2.REASON_OVERLOADED, "full")),
        ("GetStream", GET, errors.Internal(error_pb2.REASON_INTERNAL_ERROR, "a bug")),
    ],
)
async def test_nothing_else_is_retried(method: str, request_: Any, error: HeadraceError) -> None:
    catalog = Catalog(FailingFirst(1, error))
    async with on_loopback(catalog) as running, connect_async(address(running)) as channel:
        with pytest.raises(type(error)):
            await getattr(StreamCatalogStub(channel), method)(request_)
    assert catalog.calls == 1


async def test_a_server_that_is_not_there_is_unavailable_by_its_address() -> None:
    target = f"127.0.0.1:{free_port()}"
    async with connect_async(target) as channel:
        with pytest.raises(Unavailable) as caught:
            await StreamCatalogStub(channel).GetStream(GET)
    assert (caught.value.reason_name, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"address": target})


@pytest.mark.parametrize("default", [True, False])
async def test_every_call_has_a_deadline(default: bool) -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    timeout_s = 0.2
    async with (
        on_loopback(Catalog(never)) as running,
        connect_async(address(running), timeout_s=timeout_s if default else 10.0) as channel,
    ):
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await StreamCatalogStub(channel).GetStream(GET, timeout=None if default else timeout_s)
    assert time.monotonic() - started < 5
    assert caught.value.reason_name == "DEADLINE"


async def test_a_method_that_the_server_lacks_is_unimplemented() -> None:
    async with on_loopback(Catalog()) as running, connect_async(address(running)) as channel:
        with pytest.raises(errors.Unimplemented):
            await StreamCatalogStub(channel).DeleteStream(stream_catalog_pb2.DeleteStreamRequest(id=1))
        with pytest.raises(errors.Unimplemented):
            await ResultCollectorStub(channel).GetResult(result_collector_pb2.GetResultRequest(id=1))


async def test_a_message_over_four_mebibytes_is_refused_and_one_below_passes() -> None:
    async def sized(request: Any) -> stream_pb2.Stream:
        return stream_pb2.Stream(description="x" * request.announcement.record_count)

    async with on_loopback(Catalog(sized)) as running, connect_async(address(running)) as channel:
        stub = StreamCatalogStub(channel)
        for size, passes in ((4_000_000, True), (4_300_000, False)):
            asked = stream_catalog_pb2.RecordStreamRequest(
                announcement=stream_pb2.StreamAnnouncement(record_count=size)
            )
            sent = stream_catalog_pb2.RecordStreamRequest(
                announcement=stream_pb2.StreamAnnouncement(description="x" * size)
            )
            for request in (asked, sent):
                if passes:
                    await stub.RecordStream(request)
                else:
                    with pytest.raises(errors.ResourceExhausted):
                        await stub.RecordStream(request)


async def test_who_stops_reading_a_stream_ends_it_on_the_server() -> None:
    collector = Collector()
    async with on_loopback(collector) as running, connect_async(address(running)) as channel:
        responses: AsyncIterator[Any] = aiter(ResultCollectorStub(channel).WatchResults(WATCH))
        assert (await anext(responses)).sequence == 1
        assert collector.watchers == 1
        await responses.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(collector.cut.wait(), 5)
        assert collector.watchers == 0


async def test_a_cancelled_caller_cancels_the_call() -> None:
    catalog = Catalog()
    async with on_loopback(catalog) as running, connect_async(address(running)) as channel:
        stub = StreamCatalogStub(channel)
        waiting = asyncio.create_task(stub.AwaitStream(stream_catalog_pb2.AwaitStreamRequest(deployment_id=1)))
        await asyncio.wait_for(catalog.waiting.wait(), 5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_the_synchronous_client_is_safe_on_many_threads() -> None:
    with on_a_thread(Catalog) as target, connect(target) as channel:
        stub: Any = StreamCatalogStub(channel)
        answered: list[int] = []
        threads = [
            threading.Thread(target=lambda: answered.extend(stub.GetStream(GET).id for _ in range(10)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answered == [7] * 80
