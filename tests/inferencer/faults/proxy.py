"""A TCP proxy in front of a broker that can hold a request back, cut its client off, and send it on later."""

import socket
import struct
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

END_TXN = 26  # Kafka's number of the request that commits or aborts a transaction


@dataclass
class Held:
    """A request that the broker has not got yet, and the connection on which it will."""

    request: bytes
    upstream: socket.socket
    answer: bytes = b""
    answered: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """Passes connections on from `port` to the broker's. A context manager."""

    def __init__(self, broker_port: int, port: int = 0) -> None:
        self._broker_port = broker_port
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._hold: int | None = None
        self._held: list[Held] = []
        self._kind = 0
        self._caught, self._again = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._open = ExitStack()

    def __enter__(self) -> "FaultProxy":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.close()
        for thread in self._threads:
            thread.join(10)

    def hold(self, request: int) -> None:
        """The next request of this kind is kept, and the client that sent it cut off."""
        with self._lock:
            self._hold = self._kind = request
            self._caught.clear()
            self._again.clear()

    def await_held(self, timeout_s: float) -> bool:
        """Whether a request has been kept."""
        return self._caught.wait(timeout_s)

    def await_again(self, timeout_s: float) -> bool:
        """Whether another request of this kind has passed since one was kept: its repetition."""
        return self._again.wait(timeout_s)

    def release(self) -> int:
        """Sends on what was kept; returns the error code in the broker's answer (to versions before 3), 0 for none."""
        held = self._held[-1]
        held.upstream.sendall(held.request)
        assert held.answered.wait(10), "the broker did not answer"
        with self._lock:
            self._held.remove(held)
        _hang_up(held.upstream)
        (code,) = struct.unpack_from(">h", held.answer, 12)  # behind length, correlation id and throttle time
        return int(code)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self._broker_port))
            except OSError:
                client.close()
                continue
            for one in (client, upstream):
                self._open.callback(_hang_up, one)
            self._start(self._requests, client, upstream)
            self._start(self._answers, upstream, client)

    def _requests(self, client: socket.socket, upstream: socket.socket) -> None:
        """Request by request, because one of them may be kept."""
        while request := _read_frame(client):
            if self._keeps(request, upstream):
                _hang_up(client)
                return
            with suppress(OSError):
                upstream.sendall(request)
        _hang_up(upstream)

    def _keeps(self, request: bytes, upstream: socket.socket) -> bool:
        (kind,) = struct.unpack_from(">h", request, 4)
        with self._lock:
            if kind != self._hold:
                if kind == self._kind and self._held:
                    self._again.set()
                return False
            self._hold = None
            self._held.append(Held(request, upstream))
        self._caught.set()
        return True

    def _answers(self, upstream: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                if held := self._held_of(upstream):
                    held.answer = data
                    held.answered.set()
                else:
                    client.sendall(data)
        _hang_up(client)

    def _held_of(self, upstream: socket.socket) -> Held | None:
        with self._lock:
            return next((held for held in self._held if held.upstream is upstream), None)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _read_frame(connection: socket.socket) -> bytes:
    """One request with its length; empty at the end of the connection."""
    head = _read(connection, 4)
    if not head:
        return b""
    (size,) = struct.unpack(">i", head)
    body = _read(connection, size)
    return head + body if body else b""


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except OSError:
            return b""
        if not more:
            return b""
        data += more
    return data


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
