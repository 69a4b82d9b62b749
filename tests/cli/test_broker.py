"""The embedded broker says why it cannot start. (That it outlives a kill: tests/streams/test_broker_faults.py.)"""

import re
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from cli.broker import Broker
from cli.kafka_archive import record_archive
from cli.kafka_download import kafka_jars
from headrace.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from tests.support import eventually

OWNER = """
import sys, threading
from pathlib import Path
from cli.broker import Broker
broker = Broker(Path(sys.argv[1]), port=0, stop_with_parent=True)
broker.start()
print(broker.pid, flush=True)
threading.Event().wait()
"""


def test_a_port_in_use_is_named(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Broker(tmp_path, port=broker.port).start()
    assert caught.value.metadata["address"] == broker.bootstrap_servers


def test_a_port_is_taken_from_the_start_of_a_broker(tmp_path: Path) -> None:
    """Java listens only seconds later, when somebody else could have found the port free."""
    first, second = Broker(tmp_path / "first", port=0, stop_with_parent=True), Broker(tmp_path / "second", port=0)
    first.start()
    try:
        second.port = first.port
        with pytest.raises(FailedPrecondition, match="in use"):
            second.start()
    finally:
        first.kill()


def test_another_broker_on_the_port_is_not_taken_for_ours(broker: Broker, tmp_path: Path) -> None:
    ours = Broker(tmp_path, port=0, stop_with_parent=True)
    ours.start()
    try:
        ours.port = broker.port
        with pytest.raises(DeadlineExceeded):
            ours.wait_ready(timeout_s=1.0)
    finally:
        ours.kill()


def test_a_broker_uses_what_was_recorded_of_an_earlier_start(tmp_path: Path) -> None:
    archive = record_archive()
    broker = Broker(tmp_path, port=0, stop_with_parent=True)
    broker.start()
    try:
        eventually(lambda: str(archive) in Path(f"/proc/{broker.pid}/maps").read_text())
    finally:
        broker.kill()


def test_a_home_has_one_broker(broker: Broker) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Broker(broker.home, port=0).start()
    assert caught.value.metadata["home"] == str(broker.home)


def test_a_repository_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        kafka_jars(tmp_path, maven_url="http://127.0.0.1:1/maven")
    assert caught.value.reason_name == "SERVICE_UNAVAILABLE"
    assert caught.value.metadata["service"] == "http://127.0.0.1:1/maven"
    assert not list(tmp_path.glob("kafka-*/jars.json"))


def test_a_broker_ends_with_its_parent(broker: Broker, tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, timeout_s=20)


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = Broker(tmp_path, port=0, settings={"num.io.threads": "none"})
    with pytest.raises((FailedPrecondition, Unavailable), match=r"num\.io\.threads"), broken:
        pass


def test_a_cluster_id_that_looks_like_an_option_is_formatted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))
    with Broker(tmp_path, port=0, stop_with_parent=True) as running:
        assert running.pid


@pytest.mark.parametrize(("said", "version"), [("99.0.1", "99.0.1"), (None, "4.3.1")])
def test_data_of_a_newer_kafka_is_left_alone(tmp_path: Path, said: str | None, version: str) -> None:
    """Homes that do not say it are of the first one that was embedded."""
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    if said is not None:
        (tmp_path / "kafka" / "version").write_text(said)
    with pytest.raises(FailedPrecondition, match=rf"written by Kafka {re.escape(version)}") as caught:
        Broker(tmp_path, port=0).start()
    assert caught.value.metadata["home"] == str(tmp_path)
