"""Workers that wait in another process than their feeder's, so that whoever kills the feeder does not kill them.

A framework's import takes seconds, which a feeder that was killed would spend before it is back. The keeper starts a
worker for whoever wants one to wait, and gives it, as descriptors, to whoever asks next under the same name: mostly the
same feeder, when its worker has died, or the process that takes its place. From then on it is that feeder's worker and
ends with it.

Requests are JSON, one a packet, over a socket of this machine and this user:

    {"do": "keep", "name", "framework", "memory_bytes", "folder"}   {}: one is to wait, unless such a one does
    {"do": "look", "name"}                                         {"folder", "ready": it has imported the framework}
    {"do": "take", "name", "framework", "memory_bytes"}            {"folder"} with its descriptors, or {}
    {"do": "end", "name"}                                          {} when none waits any more

A connection that ends without `end` belonged to a feeder that was killed: what waits for it does so for a minute more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import selectors
import shutil
import socket
import struct
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox.limits import limits_of
from sandbox.process import Started, WorkerProcess, is_readable, reap, start_worker
from sandbox.session import FrameworkName, worker_command

log = logging.getLogger(__name__)

PACKET_BYTES = 64 * 1024
BACKLOG = 64
ORPHANED_S = 60.0
TURN_S = 1.0
ANSWER_TIMEOUT_S = 5.0
HOME = "home-"
DESCRIPTORS = 6  # of a Started
# Of struct ucred: pid, uid, gid.
CREDENTIALS = struct.Struct("3i")

Request = Mapping[str, Any]


def address_of(home: Path) -> str:
    """Where the keeper of a home folder listens: the same after a restart, and no file that a crash leaves behind."""
    return "headrace-spares-" + hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:32]


@dataclass
class Spare:
    """A worker that waits."""

    framework: FrameworkName
    memory_bytes: int
    folder: Path
    started: Started
    orphaned_at: float | None = None

    def is_for(self, framework: FrameworkName, memory_bytes: int) -> bool:
        """Whether it is what is asked for, and lives."""
        return (self.framework, self.memory_bytes) == (framework, memory_bytes) and self.is_alive

    @property
    def is_alive(self) -> bool:
        return not is_readable(self.started.warden_fd)

    @property
    def is_ready(self) -> bool:
        """Whether it has imported its framework, or said why it cannot."""
        return self.is_alive and is_readable(self.started.answer_fd)


class SpareKeeper:
    """Keeps spares on a thread of its own. A context manager, which ends those that wait."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._spares: dict[str, Spare] = {}
        self._names: dict[socket.socket, str] = {}
        self._given: list[int] = []  # pidfds of wardens that are ours to reap
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._selector = selectors.DefaultSelector()
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, name="spares", daemon=True)

    def __enter__(self) -> SpareKeeper:
        """Raises OSError where another process listens there."""
        self._listener.bind("\0" + self.address)
        self._listener.listen(BACKLOG)
        for source in (self._listener, self._stopped):
            self._selector.register(source, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop)
        self._thread.join()
        for connection in [*self._names, self._listener]:
            connection.close()
        for name in list(self._spares):
            self._end(name)
        self._selector.close()
        os.close(self._stopped)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(TURN_S):
                if key.fileobj == self._stopped:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.fileobj)  # type: ignore[arg-type]
            self._forget()
            self._reap()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        if CREDENTIALS.unpack(credentials)[1] != os.getuid():
            connection.close()
            return
        self._names[connection] = ""
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve(self, connection: socket.socket) -> None:
        try:
            packet = connection.recv(PACKET_BYTES)
            if packet:
                self._answer(connection, json.loads(packet))
                return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a request for a spare worker failed", extra={"cause": repr(error)})
        self._part(connection)

    def _part(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        name = self._names.pop(connection)
        connection.close()
        if name in self._spares and name not in self._names.values():
            self._spares[name].orphaned_at = time.monotonic()

    def _answer(self, connection: socket.socket, request: Request) -> None:
        name = self._names[connection] = str(request["name"])
        if (spare := self._spares.get(name)) is not None:
            spare.orphaned_at = None
        if request["do"] == "keep":
            self._keep(name, request)
            _send(connection, {})
        elif request["do"] == "take":
            self._give(connection, name, request)
        elif request["do"] == "look":
            _send(connection, {"folder": str(spare.folder), "ready": spare.is_ready} if spare is not None else {})
        else:
            self._end(name)
            _send(connection, {})

    def _keep(self, name: str, request: Request) -> None:
        framework, memory_bytes = request["framework"], int(request["memory_bytes"])
        spare = self._spares.get(name)
        if spare is not None and spare.is_for(framework, memory_bytes):
            return
        self._end(name)
        folder = new_home(Path(request["folder"]))
        started = start_worker(worker_command(framework, serves=True), limits=limits_of(memory_bytes), folder=folder)
        self._spares[name] = Spare(framework, memory_bytes, folder, started)

    def _give(self, connection: socket.socket, name: str, request: Request) -> None:
        spare = self._spares.get(name)
        if spare is None or not spare.is_for(request["framework"], int(request["memory_bytes"])):
            _send(connection, {})
            return
        del self._spares[name]
        self._given.append(os.dup(spare.started.warden_fd))
        try:
            socket.send_fds(connection, [json.dumps({"folder": str(spare.folder)}).encode()], spare.started.fds)
        finally:
            spare.started.drop()

    def _end(self, name: str) -> None:
        spare = self._spares.pop(name, None)
        if spare is not None:
            with suppress(OSError):  # Its warden ended before it had started a worker: there is none to kill.
                WorkerProcess(spare.started, limits=limits_of(spare.memory_bytes)).kill()
            for fd in (spare.started.request_fd, spare.started.answer_fd):
                os.close(fd)
            shutil.rmtree(spare.folder, ignore_errors=True)

    def _forget(self) -> None:
        """Those that have died, and those that nobody has come for."""
        orphaned_before = time.monotonic() - ORPHANED_S
        for name, spare in list(self._spares.items()):
            if not spare.is_alive or (spare.orphaned_at is not None and spare.orphaned_at < orphaned_before):
                self._end(name)

    def _reap(self) -> None:
        for warden_fd in [fd for fd in self._given if is_readable(fd)]:
            reap(warden_fd)
            os.close(warden_fd)
            self._given.remove(warden_fd)


class KeptSpare:
    """The spare of this name at a keeper, as its feeder sees it; from any thread. Without the keeper there is none."""

    def __init__(self, address: str, name: str, *, memory_bytes: int, folder: Path) -> None:
        self._address, self._name = address, name
        self._memory_bytes, self._folder = memory_bytes, folder
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def keep(self, framework: FrameworkName) -> None:
        """Have one wait that imports this framework, unless one does."""
        self._ask("keep", framework, folder=str(self._folder.absolute()))

    def take(self, framework: FrameworkName) -> tuple[Started, Path] | None:
        """The worker and its home, which are the caller's from now on; None where none waits."""
        answer, fds = self._ask("take", framework)
        return (Started(*fds), Path(answer["folder"])) if answer else None

    @property
    def is_ready(self) -> bool:
        """Whether one waits that has imported its framework."""
        return bool(self._ask("look")[0].get("ready"))

    @property
    def home(self) -> Path | None:
        """Of the one that waits."""
        folder = self._ask("look")[0].get("folder")
        return Path(folder) if folder else None

    def end(self) -> None:
        """The feeder needs none any more; returns when none waits."""
        self._ask("end")
        self._disconnect()

    def _ask(
        self, what: str, framework: FrameworkName | None = None, **more: str
    ) -> tuple[Mapping[str, Any], list[int]]:
        """The answer, and the descriptors with it. What goes wrong costs the spare and nothing else: an empty one."""
        asked = {"framework": framework, "memory_bytes": self._memory_bytes} if framework else {}
        with self._lock:
            try:
                self._connection = self._connection or _connect(self._address)
                _send(self._connection, {"do": what, "name": self._name, **asked, **more})
                packet, fds, _, _ = socket.recv_fds(self._connection, PACKET_BYTES, DESCRIPTORS)
                return json.loads(packet), fds
            except (OSError, ValueError) as error:
                self._disconnect()
                log.warning("no spare worker is kept", extra={"cause": repr(error)})
                return {}, []

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def new_home(folder: Path) -> Path:
    """A folder in there that no other worker has."""
    return folder / f"{HOME}{uuid.uuid4().hex[:8]}"


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.send(json.dumps(message).encode())


def _connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect("\0" + address)
    except BaseException:
        connection.close()
        raise
    return connection
