"""What the gateway can be told by its environment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Each field is read from HEADRACE_<FIELD>; see headrace.settings."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT of the REST API and the web pages. Port 0: a free one, told in the log."""
    address: str = "127.0.0.1:8070"
    """HOST:PORT of the control plane."""
    request_timeout_s: float = 30.0
    """A request may take so long when its client sends no Grpc-Timeout."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Larger bodies are refused."""
    max_connections: int = 4096
    """Connections beyond this are answered 503."""
    keep_alive_s: float = 15.0
    """A stream of server-sent events that is silent for so long gets a comment, so that proxies keep it open."""
