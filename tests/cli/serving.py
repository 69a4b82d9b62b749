"""A control plane of a few calls, for the tests of what commands ask of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, *add: Callable[[grpc.Server], None]) -> Iterator[None]:
    """A server with these services, found by commands while the block runs."""
    server = grpc.server(ThreadPoolExecutor(2))
    for service in add:
        service(server)
    monkeypatch.setenv("HEADRACE_ADDRESS", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()
