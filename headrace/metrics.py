"""Prometheus metrics and the health of a process over HTTP."""

import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prometheus_client

from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

SHUTDOWN_POLL_S = 0.1
REQUESTS = prometheus_client.Counter(
    "headrace_grpc_requests_total", "gRPC calls by method and code", ["method", "code"]
)
REQUEST_SECONDS = prometheus_client.Histogram("headrace_grpc_request_seconds", "Duration of gRPC calls", ["method"])


@contextmanager
def metrics_endpoint(listen: str | None, *, ready: Callable[[], bool]) -> Iterator[int]:
    """Serves `/metrics`, `/healthz` (the process lives) and `/readyz` (`ready()`); gives the port.

    `listen`: HOST:PORT, port 0 for a free one; None or empty: nothing is served and the port is 0. Raises
    FailedPrecondition when the port is in use.
    """
    if not listen:
        yield 0
        return
    server = _open(listen, _handler(ready))
    thread = threading.Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_S,), name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's name, which takes seconds where DNS does not answer."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""
        log.debug("a request for metrics failed", exc_info=True)


def _open(listen: str, handler: type[BaseHTTPRequestHandler]) -> _Server:
    host, _, port = listen.rpartition(":")
    try:
        return _Server((host, int(port)), handler)
    except OSError as error:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"cannot serve metrics on {listen}: {error.strerror or error}; stop what uses it, or choose another",
            listen=listen,
        ) from error


def _handler(ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest())
            elif path == "/healthz":
                self._answer(200, "text/plain", b"ok\n")
            elif path == "/readyz":
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
