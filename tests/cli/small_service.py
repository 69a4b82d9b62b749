"""A small real service for the tests of the supervisor: HTTP on HEADRACE_LISTEN, `/readyz` says yes.

SMALL_SERVICE=stubborn ignores SIGTERM; SMALL_SERVICE=broken ends at once.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    kind = os.environ.get("SMALL_SERVICE", "")
    if kind == "broken":
        sys.exit("no settings, no service")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stubborn" else lambda *_: sys.exit(0))
    host, _, port = os.environ["HEADRACE_LISTEN"].rpartition(":")
    HTTPServer((host, int(port)), _Ready).serve_forever()
