"""An async gRPC server with health, reflection, limits and a graceful end."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.errors import FailedPrecondition
from headrace.interceptors import BoundaryInterceptor, Ending
from headrace.v1 import error_pb2

log = logging.getLogger(__name__)

Servicer = tuple[Callable[[Any, grpc.aio.Server], None], Any, str]
"""(add_XServicer_to_server, the servicer, its full name `headrace.v1.X`)"""


@dataclass(frozen=True)
class ServerOptions:
    """Limits of one server."""

    max_message_bytes: int = 4 * 1024 * 1024
    max_metadata_bytes: int = 8 * 1024
    max_concurrent_streams: int = 100
    """Per connection."""
    max_concurrent_calls: int = 2000
    """Over all connections; more are answered RESOURCE_EXHAUSTED."""
    max_connections: int = 10_000
    """At most four fifths of the files that the process may open; more are closed as they come."""
    idle_connection_s: int = 300
    min_ping_interval_s: int = 10
    keepalive_s: float = 20.0
    """A client that says nothing for so long is asked whether it is there."""
    keepalive_timeout_s: float = 10.0
    """One that does not answer for so long is not: its connection is closed, and its calls are cancelled."""
    handshake_timeout_s: int = 5
    drain_s: float = 20.0
    """Unary calls get so long to end when the server stops; streams and `Await…` are cut early, to be resumed."""

    def channel_arguments(self) -> list[tuple[str, int]]:
        """The options of grpc.aio.server."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            # Between the two, gRPC refuses at random.
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            ("grpc.max_allowed_incoming_connections", min(self.max_connections, _room_for_connections())),
            ("grpc.max_connection_idle_ms", self.idle_connection_s * 1000),
            ("grpc.http2.min_ping_interval_without_data_ms", self.min_ping_interval_s * 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            # Of a ping for another purpose that is under way: none is sent beside it, and it would have a minute.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.server_handshake_timeout_ms", self.handshake_timeout_s * 1000),
            # Two servers on one port would share its connections at random.
            ("grpc.so_reuseport", 0),
        ]


def _room_for_connections() -> int:
    """The rest of the files is for the database, artifacts and pipes: without any, all of these would fail."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 4 // 5


class RunningServer:
    """A server that is listening."""

    def __init__(self, port: int, health_servicer: health.aio.HealthServicer, names: Sequence[str]) -> None:
        self.port = port
        self._health = health_servicer
        self._names = names

    async def set_serving(self, serving: bool) -> None:
        """Says through the health service whether calls are welcome."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)


@asynccontextmanager
async def serving(
    listen: str, servicers: Sequence[Servicer], *, options: ServerOptions | None = None, ready: bool = True
) -> AsyncIterator[RunningServer]:
    """Serves on `listen` (HOST:PORT, port 0 for a free one) until the block ends, then drains (see ServerOptions).

    `ready`: what health says at first. Raises FailedPrecondition when the port is in use.
    """
    options = options or ServerOptions()
    ending = Ending()
    server = grpc.aio.server(
        interceptors=[BoundaryInterceptor(ending)],
        options=options.channel_arguments(),
        maximum_concurrent_rpcs=options.max_concurrent_calls,
    )
    names = [name for _, _, name in servicers]
    for add, servicer, _ in servicers:
        add(servicer, server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = _bind(server, listen)
    running = RunningServer(port, health_servicer, names)
    await running.set_serving(ready)
    await server.start()
    log.info("listening", extra={"port": port})
    try:
        yield running
    finally:
        await running.set_serving(False)
        ending.begin()
        await asyncio.shield(server.stop(options.drain_s))


def _bind(server: grpc.aio.Server, listen: str) -> int:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"cannot listen on {listen}: the port is in use; stop what uses it, or choose another",
            listen=listen,
        )
    return port
