"""The control plane as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.store import Store
from headrace.client import connect
from headrace.errors import Unavailable
from headrace.v1 import model_pb2, model_registry_pb2, result_collector_pb2, stream_catalog_pb2
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.control_plane.conftest import NOBODY, new_training

SERVICES = ("DeploymentManager", "ModelRegistry", "Predictions", "ResultCollector", "StreamCatalog")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -P -m control_plane` in a home of its own, without broker and executors."""
    started: list[subprocess.Popen[str]] = []

    def run(**settings: str) -> subprocess.Popen[str]:
        environment = {
            "HEADRACE_HOME": str(tmp_path),
            "HEADRACE_KAFKA": NOBODY,
            "HEADRACE_LISTEN": "127.0.0.1:0",
            "HEADRACE_TENSORFLOW_EXECUTOR": NOBODY,
            "HEADRACE_LOG_FORMAT": "json",
            "PATH": os.environ["PATH"],
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "control_plane"],
            env=environment | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def ready_port(process: subprocess.Popen[str]) -> int:
    """Reads the log until the process is ready, and goes on reading it in a thread."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and (entry := json.loads(line))["message"] == "ready":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return int(entry["port"])
    raise AssertionError(f"ended with {process.wait()} before it was ready")


def last_words(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The one ERROR of a process that ends by itself."""
    _, text = process.communicate(timeout=30)
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (error,) = [entry for entry in entries if entry["level"] == "ERROR"]
    found: dict[str, Any] = error
    return found


def test_it_serves_without_broker_and_executors_and_names_them(start: Start) -> None:
    process = start()
    with connect(f"127.0.0.1:{ready_port(process)}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in SERVICES:
            answer = health.Check(health_pb2.HealthCheckRequest(service=f"headrace.v1.{name}"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        registry: Any = ModelRegistryStub(channel)
        model = model_pb2.Model(name="a", framework=model_pb2.FRAMEWORK_TENSORFLOW, code="model = 1")
        with pytest.raises(Unavailable) as caught:
            registry.CreateModel(model_registry_pb2.CreateModelRequest(model=model))
        assert caught.value.metadata["address"] == NOBODY
        catalog: Any = StreamCatalogStub(channel)
        assert not catalog.ListStreams(stream_catalog_pb2.ListStreamsRequest()).streams


def test_a_signal_ends_it_although_somebody_watches(start: Start, tmp_path: Path) -> None:
    with Store.open(tmp_path / "headrace.db") as store:
        store.write_now(lambda: new_training("a", start=False))
    process = start(HEADRACE_MAX_TRAININGS="0")
    with connect(f"127.0.0.1:{ready_port(process)}") as channel:
        collector: Any = ResultCollectorStub(channel)
        watching = collector.WatchResults(result_collector_pb2.WatchResultsRequest(result_id=1))
        next(watching)
        process.send_signal(signal.SIGTERM)
        assert process.wait(25) == 0


def test_a_port_in_use_ends_it_with_a_sentence(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = start(HEADRACE_LISTEN=address)
        assert address in last_words(process)["cause"]
        assert process.returncode != 0


def test_a_database_of_a_newer_version_ends_it_with_a_sentence(start: Start, tmp_path: Path) -> None:
    Store.open(tmp_path / "headrace.db").close()
    with sqlite3.connect(tmp_path / "headrace.db") as raw:
        raw.execute("PRAGMA user_version = 99")
    process = start()
    assert "99" in last_words(process)["cause"]
    assert process.returncode != 0


def test_a_second_one_in_the_same_home_ends_with_a_sentence(start: Start) -> None:
    ready_port(start())
    second = start()
    assert "another control plane" in last_words(second)["cause"]
    assert second.returncode != 0


def test_missing_settings_are_all_named(start: Start) -> None:
    process = start(HEADRACE_MAX_TRAININGS="many", HEADRACE_STOP_WORKLOADS="perhaps")
    _, text = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "HEADRACE_MAX_TRAININGS" in text
    assert "HEADRACE_STOP_WORKLOADS" in text
    assert "Traceback" not in text
