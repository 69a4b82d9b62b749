"""Where workers come from: one more than is needed has imported the framework already."""

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from headrace.errors import Cancelled
from headrace.v1 import error_pb2
from sandbox.limits import limits_of
from sandbox.memory import available_bytes
from sandbox.session import FrameworkName, WorkerSession
from sandbox.spares import HOME, KeptSpare, SpareKeeper, new_home

log = logging.getLogger(__name__)

# A framework's import takes a third of it. Below, a spare could cost the worker that answers its life.
SPARE_NEEDS_BYTES = 1024**3
# Its import takes a processor for seconds, which a replica that begins with a backlog needs itself.
SPARE_QUIET_S = 2.0
SPARE_PATIENCE_S = 60.0
SPARE_TURN_S = 0.1


class Workers:
    """Gives workers away, from any thread. A context manager, which ends all that are left.

    folder: of their homes, one each; a replica that takes over this one has the same.
    memory_bytes: the limit of each; 0: none beyond the machine's.
    spare: whether one waits, with its framework imported, for the end of another: an import takes seconds.
    keeper: the address where it waits. It is still there when this process was killed; empty: it ends with us.
    is_busy: whether the replica has more to do than it can, so that a first spare had better wait.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int = 0,
        spare: bool = True,
        keeper: str = "",
        is_busy: Callable[[], bool] = lambda: False,
        on_output: Callable[[str], None],
    ) -> None:
        self._folder, self._on_output = folder, on_output
        self._limits = limits_of(memory_bytes)
        self._wants_spare, self._is_busy = spare, is_busy
        self._own_keeper = None if keeper or not spare else SpareKeeper(f"headrace-spares-{uuid.uuid4().hex}")
        address = self._own_keeper.address if self._own_keeper else keeper
        self._spare = KeptSpare(address, str(folder.absolute()), memory_bytes=memory_bytes, folder=folder)
        self._lock = threading.Lock()
        self._sessions: set[WorkerSession] = set()
        self._next_spare: FrameworkName | None = None
        self._closed = False
        self._ended = threading.Event()

    def __enter__(self) -> "Workers":
        if self._own_keeper is not None:
            self._own_keeper.__enter__()
        self._remove_left_homes()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            self._ended.set()
            left = list(self._sessions)
        if self._wants_spare:
            self._spare.end()
        if self._own_keeper is not None:
            self._own_keeper.__exit__(None, None, None)
        for session in left:
            self.end(session)

    def take(self, framework: FrameworkName) -> WorkerSession:
        """A worker that has imported the framework or is about to. Raises Cancelled when closed."""
        taken = self._spare.take(framework) if self._wants_spare else None
        if taken is None:
            return self._start(framework)
        session = self._ours(WorkerSession.of(taken[0], self._limits, taken[1], self._on_output))
        if session.alive:
            return session
        self.end(session)
        return self._start(framework)

    def keep_spare(self, framework: FrameworkName) -> None:
        """From now on one of this framework waits, if that is wanted and there is memory for it."""
        self._next_spare = framework
        if self._closed or not self._wants_spare:
            return
        if (free := available_bytes()) < SPARE_NEEDS_BYTES:
            log.warning("no memory for a spare worker", extra={"available_bytes": free, "needed": SPARE_NEEDS_BYTES})
            return
        self._spare.keep(framework)

    def keep_spare_when_quiet(self, framework: FrameworkName) -> None:
        """As `keep_spare`, on a thread: once the replica has not been busy for a moment, or after a minute."""
        self._next_spare = framework
        if self._wants_spare:
            threading.Thread(target=self._keep_when_quiet, args=(framework,), name="spare", daemon=True).start()

    def _keep_when_quiet(self, framework: FrameworkName) -> None:
        patient_until = time.monotonic() + SPARE_PATIENCE_S
        quiet_at = time.monotonic() + SPARE_QUIET_S
        while (now := time.monotonic()) < min(quiet_at, patient_until):
            if self._ended.wait(SPARE_TURN_S):
                return
            if self._is_busy():
                quiet_at = now + SPARE_QUIET_S
        if framework == self._next_spare:
            self.keep_spare(framework)

    @property
    def has_spare(self) -> bool:
        """Whether one waits that has imported its framework."""
        return self._wants_spare and self._spare.is_ready

    def end(self, session: WorkerSession) -> None:
        """The worker, all that it started, and its home."""
        with self._lock:
            self._sessions.discard(session)
        session.close()
        shutil.rmtree(session.folder, ignore_errors=True)

    def _start(self, framework: FrameworkName) -> WorkerSession:
        folder = new_home(self._folder)
        session = WorkerSession.start(
            framework, limits=self._limits, folder=folder, on_output=self._on_output, serves=True
        )
        return self._ours(session)

    def _remove_left_homes(self) -> None:
        """Of the workers of a replica that was killed before us; they died with it."""
        kept = self._spare.home if self._wants_spare else None
        for home in self._folder.glob(f"{HOME}*"):
            if home != kept:
                shutil.rmtree(home, ignore_errors=True)

    def _ours(self, session: WorkerSession) -> WorkerSession:
        with self._lock:
            self._sessions.add(session)
            is_late = self._closed
        if is_late:
            self.end(session)
            raise Cancelled(error_pb2.REASON_CANCELLED, "the replica ends")
        return session
