"""What a client sees of errors: of the control plane, of the gateway, and of itself."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway import errors
from gateway.server import serving
from gateway.settings import Settings
from headrace.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    HeadraceError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from headrace.v1 import error_pb2
from tests.gateway.conftest import Behind
from tests.gateway.echo import echoing

pytestmark = pytest.mark.asyncio(loop_scope="module")

# As grpc-gateway's runtime.HTTPStatusFromCode.
STATUS = [
    (Cancelled, 1, 499),
    (InvalidArgument, 3, 400),
    (DeadlineExceeded, 4, 504),
    (NotFound, 5, 404),
    (AlreadyExists, 6, 409),
    (PermissionDenied, 7, 403),
    (ResourceExhausted, 8, 429),
    (FailedPrecondition, 9, 400),
    (Aborted, 10, 409),
    (Unimplemented, 12, 501),
    (Internal, 13, 500),
    (Unavailable, 14, 503),
    (DataLoss, 15, 500),
]


@pytest.mark.parametrize(("kind", "code", "status"), STATUS)
async def test_errors_keep_code_reason_and_facts(
    behind: Behind, kind: type[HeadraceError], code: int, status: int
) -> None:
    behind.echo.answers["DeleteModel"] = [kind(error_pb2.REASON_RESOURCE_IN_USE, "used", resource="model", id=6)]
    answer = await behind.http.delete("/v1/models/6")
    assert answer.status_code == status
    assert (answer.json()["code"], answer.json()["message"]) == (code, "used")
    info = answer.json()["details"][0]
    assert info == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "RESOURCE_IN_USE",
        "domain": "headrace",
        "metadata": {"resource": "model", "id": "6"},
    }
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_bad_fields_and_waits_of_the_server_come_through(behind: Behind) -> None:
    fields = [FieldViolation("model.name", "is empty"), FieldViolation("model.code", "is empty")]
    error = ResourceExhausted(error_pb2.REASON_OVERLOADED, "busy", fields=fields, retry_after_s=2.5)
    behind.echo.answers["CreateModel"] = [error]
    answer = await behind.http.post("/v1/models", json={})
    assert answer.headers["retry-after"] == "3"
    by_type = {detail["@type"].rpartition(".")[2]: detail for detail in answer.json()["details"]}
    assert [bad["field"] for bad in by_type["BadRequest"]["fieldViolations"]] == ["model.name", "model.code"]
    assert by_type["RetryInfo"]["retryDelay"] == "2.500s"


async def test_every_code_has_a_status() -> None:
    assert set(errors.HTTP_STATUS) == set(range(17))


async def test_a_control_plane_that_is_away_is_503_until_it_is_back() -> None:
    async with echoing() as gone:
        port = gone.port
    settings = Settings(listen="127.0.0.1:0", address=f"127.0.0.1:{port}")
    async with serving(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
        answer = await http.get("/v1/models/6", headers={"grpc-timeout": "2S"})
        assert answer.status_code == 503
        assert answer.json()["code"] == 14
        assert int(answer.headers["retry-after"]) >= 1
        assert str(port) in json.dumps(answer.json())
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        stream = await http.get("/v1/results/6:watch", headers={"accept": "text/event-stream"})
        assert stream.status_code == 503
        async with echoing(port):
            async with asyncio.timeout(10):
                while (await http.get("/v1/models/6")).status_code != 200:
                    pass


async def test_a_server_that_does_not_answer_is_504_at_the_deadline(behind: Behind) -> None:
    behind.echo.silent.add("GetModel")
    began = time.monotonic()
    answer = await behind.http.get("/v1/models/6", headers={"Grpc-Timeout": "300m"})
    assert answer.status_code == 504
    assert answer.json()["code"] == 4
    assert 0.25 < time.monotonic() - began < 5
    await asyncio.wait_for(behind.echo.cancelled.wait(), 5)


async def test_a_request_without_a_deadline_gets_one(behind: Behind) -> None:
    await behind.http.get("/v1/models/6")
    (left_s,) = behind.echo.timeouts_s
    assert left_s is not None
    assert 20 < left_s < 31


@pytest.mark.parametrize("text", ["", "5", "-1S", "S", "123456789S", "1.5S", "٣S"])
async def test_a_bad_deadline_is_refused(behind: Behind, text: str) -> None:
    answer = await behind.http.get("/v1/models/6", headers=[(b"grpc-timeout", text.encode())])
    assert answer.status_code == 400


async def test_a_body_beyond_the_limit_is_refused(behind: Behind) -> None:
    body = b'{"description": "' + b"x" * (5 * 1024 * 1024) + b'"}'
    headers = {"content-type": "application/json"}
    answer = await behind.http.post("/v1/models", content=body, headers=headers)
    assert (answer.status_code, answer.json()["details"][0]["metadata"]) == (413, {"limit_bytes": "4194304"})

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    try:
        answer = await behind.http.post("/v1/models", content=pieces(), headers=headers)
    except httpx.WriteError:
        return  # the gateway need not read on to say no
    assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_body_that_is_not_json_is_refused(behind: Behind, kind: str) -> None:
    answer = await behind.http.post("/v1/models", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415
    assert behind.echo.asked == []


async def test_pages_of_other_sites_may_not_call(behind: Behind) -> None:
    answer = await behind.http.post("/v1/deployments/3:cancel", headers={"origin": "https://elsewhere.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, 7)
    assert behind.echo.asked == []
    answer = await behind.http.post("/v1/deployments/3:cancel", headers={"origin": behind.url})
    assert answer.status_code == 200


BAD_HTTP = {
    "no HTTP": b"hello\r\n\r\n",
    "header too large": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
    "two lengths": b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}",
    "length and chunks": b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    "bad chunk": b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    "negative length": b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "blank in path": b"GET /v1/mod els HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("raw", BAD_HTTP.values(), ids=BAD_HTTP.keys())
async def test_bad_http_is_a_bad_request(behind: Behind, raw: bytes) -> None:
    port = httpx.URL(behind.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    status = await asyncio.wait_for(reader.readline(), 5)
    assert status.split()[1].startswith(b"4"), status
    writer.close()


async def test_a_head_that_never_ends_is_cut_off(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.HEAD_S", 0.2)
    port = httpx.URL(behind.url).port
    for begin in (b"", b"GET /v1/mo"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        await asyncio.wait_for(reader.read(), 3)
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"alive\n")
    writer.write(b"GET /he")
    await asyncio.wait_for(reader.read(), 3)
    writer.close()


async def test_a_body_that_never_ends_is_cut_off(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.requests.BODY_PAUSE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(behind.url).port)
    writer.write(b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    status = await asyncio.wait_for(reader.readline(), 5)
    assert b" 408 " in status
    writer.close()


async def test_a_port_in_use_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FailedPrecondition) as caught:
            async with serving(Settings(listen=listen)):
                pass
    assert caught.value.metadata == {"listen": listen}
