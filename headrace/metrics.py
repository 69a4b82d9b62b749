"""Prometheus metrics and the health of a process over HTTP."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prometheus_client

REQUESTS = prometheus_client.Counter(
    "headrace_grpc_requests_total", "gRPC calls by method and code", ["method", "code"]
)
REQUEST_SECONDS = prometheus_client.Histogram("headrace_grpc_request_seconds", "Duration of gRPC calls", ["method"])


@contextmanager
def metrics_endpoint(listen: str, *, ready: Callable[[], bool]) -> Iterator[int]:
    """Serves `/metrics`, `/healthz` (the process lives) and `/readyz` (`ready()`); gives the port.

    `listen`: HOST:PORT, port 0 for a free one; empty: nothing is served and the port is 0.
    """
    if not listen:
        yield 0
        return
    host, _, port = listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), _handler(ready))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest())
            elif self.path == "/healthz":
                self._answer(200, "text/plain", b"ok\n")
            elif self.path == "/readyz":
                is_ready = ready()
                self._answer(200 if is_ready else 503, "text/plain", b"ready\n" if is_ready else b"not ready\n")
            else:
                self._answer(404, "text/plain", b"there are /metrics, /healthz and /readyz\n")

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
