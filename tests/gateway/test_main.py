"""The process: what it says when it cannot start, and how it stops."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.gateway.inmemory import controlling

Process = subprocess.Popen[str]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(processes: list[Process], **environment: str) -> Process:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gateway"],
        env={**os.environ, "HEADRACE_LOG_FORMAT": "json", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    return process


def test_wrong_settings_are_named_all_at_once(processes: list[Process]) -> None:
    process = start(processes, HEADRACE_REQUEST_TIMEOUT_S="soon", HEADRACE_MAX_BODY_BYTES="much")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "HEADRACE_REQUEST_TIMEOUT_S" in said
    assert "HEADRACE_MAX_BODY_BYTES" in said
    assert "Traceback" not in said


def test_an_address_that_cannot_be_had_is_one_line(processes: list[Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f"127.0.0.1:{taken.getsockname()[1]}"
        both = [start(processes, HEADRACE_LISTEN=listen) for listen in (in_use, "here")]
        for process, listen in zip(both, (in_use, "here"), strict=True):
            _, said = process.communicate(timeout=30)
            assert process.returncode == 10
            assert listen in said
            assert "Traceback" not in said


async def test_sigterm_ends_streams_and_exits_0(processes: list[Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    async with controlling() as plane, httpx.AsyncClient(timeout=20) as http:
        plane.train("keras")
        process = start(processes, HEADRACE_LISTEN=listen, HEADRACE_ADDRESS=f"127.0.0.1:{plane.port}")
        assert process.stderr is not None
        assert "listening" in await asyncio.to_thread(process.stderr.readline)
        url = f"http://{listen}/v1/deployments/1:watch"
        async with http.stream("GET", url, headers={"accept": "text/event-stream"}) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "retry: 1000"
            process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines]
        assert "event: failure" in rest
        assert await asyncio.to_thread(process.wait, 10) == 0
