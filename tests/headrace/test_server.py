"""Health, reflection, limits, metrics and the graceful end of a server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import prometheus_client
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace import errors, logs
from headrace.client import connect_async
from headrace.server import ServerOptions, serving
from headrace.v1 import error_pb2, result_collector_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.headrace.servicers import CATALOG, COLLECTOR, GET, Catalog, Collector, address, on_loopback

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WATCH = result_collector_pb2.WatchResultsRequest(result_id=1)
AWAIT = stream_catalog_pb2.AwaitStreamRequest(deployment_id=1)


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_is_told_for_the_server_and_for_each_service() -> None:
    async with on_loopback(Catalog(), Collector()) as running, connect_async(address(running)) as channel:
        for service in ("", CATALOG, COLLECTOR):
            assert await health_of(channel, service) == SERVING
        await running.set_serving(False)
        for service in ("", CATALOG, COLLECTOR):
            assert await health_of(channel, service) == NOT_SERVING
        with pytest.raises(errors.NotFound):
            await health_of(channel, "headrace.v1.Nonsense")


async def test_a_server_may_begin_as_not_serving() -> None:
    served = [Catalog().served()]
    async with serving("127.0.0.1:0", served, ready=False) as running, connect_async(address(running)) as channel:
        assert await health_of(channel, "") == NOT_SERVING
        assert (await StreamCatalogStub(channel).GetStream(GET)).id == 7


async def test_health_can_be_watched() -> None:
    async with on_loopback(Catalog()) as running, grpc.aio.insecure_channel(address(running)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        told = stub.Watch(health_pb2.HealthCheckRequest(service=CATALOG))
        assert (await told.read()).status == SERVING
        await running.set_serving(False)
        assert (await told.read()).status == NOT_SERVING
        told.cancel()


async def test_reflection_lists_the_services_and_gives_their_files() -> None:
    async with on_loopback(Catalog(), Collector()) as running, connect_async(address(running)) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=CATALOG),
        ]
        listed, file = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        CATALOG,
        COLLECTOR,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert any(b"RecordStreamRequest" in proto for proto in file.file_descriptor_response.file_descriptor_proto)


async def test_a_port_in_use_is_refused_in_words() -> None:
    async with on_loopback(Catalog()) as running:
        with pytest.raises(errors.FailedPrecondition) as caught:
            async with serving(address(running), [Catalog().served()]):
                pass
    assert caught.value.metadata == {"listen": address(running)}


async def test_a_bug_gets_a_constant_message_and_one_log_with_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Any) -> None:
        raise ZeroDivisionError("the secret 42")

    async with on_loopback(Catalog(fail)) as running, connect_async(address(running)) as channel:
        with caplog.at_level(logging.ERROR), pytest.raises(errors.Internal) as caught:
            await StreamCatalogStub(channel).GetStream(GET)
    assert "secret" not in caught.value.message
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [vars(record)["error_id"] for record in logged] == [caught.value.metadata["error_id"]]
    assert logged[0].exc_info
    assert "the secret 42" in str(logged[0].exc_info[1])


@pytest.mark.parametrize("size", [3_000, 100_000])
async def test_an_error_too_large_for_the_clients_keeps_its_code_reason_and_facts(size: int) -> None:
    async def fail(_: Any) -> None:
        raise errors.InvalidArgument(
            error_pb2.REASON_CODE_ERROR,
            "ü" * size,
            fields=[errors.FieldViolation(f"field{number}", "ß" * 100) for number in range(size // 100)],
            line=3,
            text="«" * size,
        )

    async with on_loopback(Catalog(fail)) as running:
        async with connect_async(address(running)) as channel:
            with pytest.raises(errors.InvalidArgument) as caught:
                await StreamCatalogStub(channel).GetStream(GET)
        assert (caught.value.reason_name, caught.value.metadata["line"]) == ("CODE_ERROR", "3")
        # Clients with gRPC's default limit of 8 KiB, such as grpcurl, see it too.
        async with grpc.aio.insecure_channel(address(running), options=[("grpc.max_metadata_size", 8192)]) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as seen:
                await StreamCatalogStub(plain).GetStream(GET)
        assert seen.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_metadata_over_eight_kibibytes_is_refused() -> None:
    async with on_loopback(Catalog()) as running, connect_async(address(running)) as channel:
        stub: Any = StreamCatalogStub(channel)
        assert (await stub.GetStream(GET, metadata=[("x-small", "x" * 4000)])).id == 7
        with pytest.raises(errors.ResourceExhausted):
            await stub.GetStream(GET, metadata=[("x-large", "x" * 9000)])


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with on_loopback(Catalog(), options=ServerOptions(handshake_timeout_s=1)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        # The server's own greeting comes, and then the end.
        await asyncio.wait_for(reader.read(), 10)
        assert reader.at_eof()
        writer.close()


async def test_calls_beyond_the_limit_of_a_server_are_refused_not_queued() -> None:
    options = ServerOptions(max_concurrent_calls=1)
    catalog = Catalog()
    async with on_loopback(catalog, options=options) as running, connect_async(address(running)) as channel:
        stub: Any = StreamCatalogStub(channel)
        waiting = asyncio.create_task(stub.AwaitStream(AWAIT))
        await asyncio.wait_for(catalog.waiting.wait(), 5)
        with pytest.raises(errors.ResourceExhausted) as caught:
            await stub.GetStream(GET)
        assert caught.value.reason_name == "OVERLOADED"
        waiting.cancel()


def requests_total(method: str, code: str) -> float:
    labels = {"method": f"/{method}", "code": code}
    return prometheus_client.REGISTRY.get_sample_value("headrace_grpc_requests_total", labels) or 0.0


async def test_every_call_is_counted_by_its_code_and_timed() -> None:
    async def refuse(_: Any) -> None:
        raise errors.NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, "gone")

    catalog, collector, method = Catalog(), Collector(), f"{CATALOG}/GetStream"
    counted = [(method, "OK"), (method, "NOT_FOUND"), (f"{COLLECTOR}/WatchResults", "CANCELLED")]
    before = [requests_total(*each) for each in counted]
    async with on_loopback(catalog, collector) as running, connect_async(address(running)) as channel:
        await StreamCatalogStub(channel).GetStream(GET)
        catalog.answer = refuse
        with pytest.raises(errors.NotFound):
            await StreamCatalogStub(channel).GetStream(GET)
        watch: Any = aiter(ResultCollectorStub(channel).WatchResults(WATCH))
        await anext(watch)
        await watch.aclose()
        await asyncio.wait_for(collector.cut.wait(), 5)
    assert [requests_total(*each) for each in counted] == [number + 1 for number in before]
    timed = prometheus_client.REGISTRY.get_sample_value("headrace_grpc_request_seconds_count", {"method": f"/{method}"})
    assert timed is not None
    assert timed >= 2


async def test_logs_of_a_call_carry_the_callers_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    async def tell(_: Any) -> stream_pb2.Stream:
        seen.append(logs.bound_fields().get("request", ""))
        return stream_pb2.Stream()

    seen: list[str] = []
    async with on_loopback(Catalog(tell)) as running, connect_async(address(running)) as channel:
        stub: Any = StreamCatalogStub(channel)
        await stub.GetStream(GET, metadata=[("x-request-id", "abc-1")])
        await stub.GetStream(GET)
        await stub.GetStream(GET, metadata=[("x-request-id", "x" * 500)])
    assert seen[0] == "abc-1"
    assert len({*seen}) == 3
    assert all(len(each) <= 64 for each in seen)


async def test_a_stop_lets_unary_calls_end_and_refuses_new_ones() -> None:
    async def slow(_: Any) -> stream_pb2.Stream:
        begun.set()
        await release.wait()
        return stream_pb2.Stream(id=7)

    begun, release = asyncio.Event(), asyncio.Event()
    server = on_loopback(Catalog(slow))
    running = await server.__aenter__()
    async with connect_async(address(running)) as channel:
        answer = asyncio.create_task(StreamCatalogStub(channel).GetStream(GET))
        await begun.wait()
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        async with connect_async(address(running), timeout_s=1) as late:
            with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
                await StreamCatalogStub(late).GetStream(GET)
        assert not stopping.done()
        release.set()
        assert (await answer).id == 7
        await stopping


async def test_a_stop_gives_up_on_a_unary_call_after_the_drain() -> None:
    async def never(_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()
    server = on_loopback(Catalog(never), options=ServerOptions(drain_s=0.3))
    running = await server.__aenter__()
    async with connect_async(address(running)) as channel:
        call = asyncio.create_task(StreamCatalogStub(channel).GetStream(GET))
        await begun.wait()
        started = time.monotonic()
        await server.__aexit__(None, None, None)
        assert 0.2 < time.monotonic() - started < 5
        with pytest.raises(errors.HeadraceError):
            await call


async def test_watches_and_long_polls_do_not_hold_a_stop_up_and_say_that_they_can_be_resumed() -> None:
    catalog, collector = Catalog(), Collector()
    server = on_loopback(catalog, collector)
    running = await server.__aenter__()
    async with connect_async(address(running)) as channel, grpc.aio.insecure_channel(address(running)) as plain:
        watch: Any = aiter(ResultCollectorStub(channel).WatchResults(WATCH))
        await anext(watch)
        stub: Any = StreamCatalogStub(plain)
        waiting = asyncio.ensure_future(stub.AwaitStream(AWAIT))
        await asyncio.wait_for(catalog.waiting.wait(), 5)
        health: Any = health_pb2_grpc.HealthStub(plain)
        health_watch = health.Watch(health_pb2.HealthCheckRequest())
        await health_watch.read()
        reports: Any = ResultCollectorStub(plain).Report()
        await reports.write(result_collector_pb2.ReportRequest(seq=1))
        assert (await reports.read()).acked_seq == 1

        started = time.monotonic()
        await server.__aexit__(None, None, None)
        assert time.monotonic() - started < 3
        with pytest.raises(errors.Unavailable) as caught:
            await anext(watch)
        assert caught.value.retry_after_s == 1
        assert collector.watchers == 0
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await waiting
        assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
        assert await reports.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_stop_lets_a_short_download_end() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await release.wait()
        for number in range(10):
            yield bytes([number])

    release = asyncio.Event()
    server = on_loopback(Collector(chunks()))
    running = await server.__aenter__()
    async with connect_async(address(running)) as channel:
        stub: Any = ResultCollectorStub(channel)
        download: Any = aiter(stub.DownloadArtifact(result_collector_pb2.DownloadArtifactRequest()))
        await anext(download)
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        release.set()
        assert [chunk.data[0] async for chunk in download] == list(range(10))
        await stopping


async def test_a_stop_cuts_a_stream_that_never_pauses() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"more"
            await asyncio.sleep(0)

    server = on_loopback(Collector(chunks()))
    running = await server.__aenter__()
    async with connect_async(address(running)) as channel:
        stub: Any = ResultCollectorStub(channel)
        download: Any = aiter(stub.DownloadArtifact(result_collector_pb2.DownloadArtifactRequest()))
        await anext(download)
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        with pytest.raises(errors.Unavailable):
            async for _ in download:
                pass
        await asyncio.wait_for(stopping, 10)
