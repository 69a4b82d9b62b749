"""What a home folder says about its platform, and that it has only one."""

import os
from pathlib import Path

import pytest

from cli import home
from cli.home import PlatformState, ServiceState
from headrace.errors import FailedPrecondition

STATE = PlatformState(
    supervisor_pid=1,
    start_time=2.5,
    address="127.0.0.1:1",
    gateway="127.0.0.1:2",
    kafka="127.0.0.1:3",
    ready=True,
    services=[ServiceState("gateway", "127.0.0.1:2", "/logs/gateway.log", 7, "ready", 3, 2.5)],
    notes=["PyTorch is not installed"],
)


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert home.read_state(tmp_path) is None
    home.write_state(tmp_path, STATE)
    assert home.read_state(tmp_path) == STATE


def test_a_state_that_nobody_can_read_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"services": [{"unknown": 1}]}'):
        home.state_path(tmp_path).write_text(text)
        assert home.read_state(tmp_path) is None


def test_a_home_has_one_supervisor_and_the_second_is_told_its_process(tmp_path: Path) -> None:
    assert home.supervisor_pid(tmp_path) == 0
    with home.taken(tmp_path):
        assert home.supervisor_pid(tmp_path) == os.getpid()
        with pytest.raises(FailedPrecondition) as second, home.taken(tmp_path):
            pass
        assert second.value.metadata == {"home": str(tmp_path), "pid": str(os.getpid())}
    assert home.supervisor_pid(tmp_path) == 0


def test_addresses_come_from_the_environment_then_from_the_platform_then_from_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    for name in ("HEADRACE_ADDRESS", "HEADRACE_KAFKA", "HEADRACE_GATEWAY"):
        monkeypatch.delenv(name, raising=False)
    home.write_state(tmp_path, STATE)
    assert home.control_plane_address() == "127.0.0.1:8070"  # a state without a supervisor is of the past
    with home.taken(tmp_path):
        assert home.control_plane_address() == "127.0.0.1:1"
        assert home.gateway_url() == "http://127.0.0.1:2"
        assert home.kafka_address() == "127.0.0.1:3"
        monkeypatch.setenv("HEADRACE_ADDRESS", "elsewhere:8070")
        monkeypatch.setenv("HEADRACE_KAFKA", "kafka:9092")
        assert home.control_plane_address() == "elsewhere:8070"
        assert home.kafka_address() == "kafka:9092"
        assert home.kafka_address("chosen:9092") == "chosen:9092"
