"""The HTTP endpoint of a process, over a real socket."""

import threading
import urllib.error
import urllib.request

import prometheus_client
import pytest

from headrace.errors import FailedPrecondition
from headrace.metrics import metrics_endpoint

SEEN = prometheus_client.Counter("headrace_test_seen", "For this test")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_in_prometheus_text() -> None:
    SEEN.inc(3)
    with metrics_endpoint("127.0.0.1:0", ready=lambda: True) as port:
        status, body = get(port, "/metrics")
    assert status == 200
    assert "headrace_test_seen_total 3.0" in body.splitlines()
    assert "# TYPE headrace_test_seen_total counter" in body.splitlines()


def test_ready_is_asked_every_time_and_alive_is_not_ready() -> None:
    ready = threading.Event()
    with metrics_endpoint("127.0.0.1:0", ready=ready.is_set) as port:
        assert [get(port, path)[0] for path in ("/healthz", "/readyz")] == [200, 503]
        ready.set()
        assert [get(port, path)[0] for path in ("/healthz", "/readyz", "/readyz?verbose")] == [200, 200, 200]
        assert get(port, "/")[0] == 404


@pytest.mark.parametrize("listen", ["", None])
def test_nothing_is_served_where_nothing_is_said(listen: str | None) -> None:
    before = threading.active_count()
    with metrics_endpoint(listen, ready=lambda: True) as port:
        assert (port, threading.active_count()) == (0, before)


def test_the_port_is_free_again_afterwards() -> None:
    with metrics_endpoint("127.0.0.1:0", ready=lambda: True) as port:
        pass
    with metrics_endpoint(f"127.0.0.1:{port}", ready=lambda: True) as again:
        assert get(again, "/healthz")[0] == 200


def test_a_port_in_use_is_refused_in_words() -> None:
    with (
        metrics_endpoint("127.0.0.1:0", ready=lambda: True) as port,
        pytest.raises(FailedPrecondition) as caught,
        metrics_endpoint(f"127.0.0.1:{port}", ready=lambda: True),
    ):
        pass
    assert caught.value.metadata == {"listen": f"127.0.0.1:{port}"}
