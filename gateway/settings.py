"""What the gateway can be told by its environment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Each field is read from HEADRACE_<FIELD>; see headrace.settings."""

    # HOST:PORT of the REST API and the web pages. Port 0: a free one, printed in the log.
    listen: str = "127.0.0.1:8080"
    # HOST:PORT of the control plane.
    address: str = "127.0.0.1:8070"
    # Seconds that a request may take when its client sends no Grpc-Timeout.
    request_timeout_s: float = 30.0
    # The largest body that is read.
    max_body_bytes: int = 4 * 1024 * 1024
    # Connections beyond this are answered 503.
    max_connections: int = 4096
    # Seconds between two comments on a silent stream of server-sent events, so that proxies keep it open.
    keep_alive_s: float = 15.0
