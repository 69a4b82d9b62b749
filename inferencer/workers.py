"""Where workers come from: one more than is needed has imported the framework already."""

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.errors import Cancelled
from headrace.v1 import error_pb2
from sandbox.limits import Limits
from sandbox.memory import available_bytes
from sandbox.session import FrameworkName, WorkerSession

log = logging.getLogger(__name__)

# A framework's import takes a third of it. Below, a spare could cost the worker that answers its life.
SPARE_NEEDS_BYTES = 1024**3
# Its import takes a processor for seconds, which a replica that begins with a backlog needs itself.
SPARE_QUIET_S = 2.0
SPARE_PATIENCE_S = 60.0
SPARE_TURN_S = 0.1


class Workers:
    """Gives workers away, from any thread. A context manager, which ends all that are left.

    folder: of their homes, one each.
    memory_bytes: the limit of each; 0: none beyond the machine's.
    spare: whether one waits, with its framework imported, for the end of another: an import takes seconds.
    is_busy: whether the replica has more to do than it can, so that a first spare had better wait.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int = 0,
        spare: bool = True,
        is_busy: Callable[[], bool] = lambda: False,
        on_output: Callable[[str], None],
    ) -> None:
        self._folder, self._on_output = folder, on_output
        self._limits = Limits(memory_bytes=memory_bytes) if memory_bytes else Limits()
        self._wants_spare, self._is_busy = spare, is_busy
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._sessions: set[WorkerSession] = set()
        self._spare: tuple[FrameworkName, WorkerSession] | None = None
        self._next_spare: FrameworkName | None = None
        self._closed = False
        self._ended = threading.Event()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            self._ended.set()
            left = list(self._sessions)
        for session in left:
            self.end(session)

    def take(self, framework: FrameworkName) -> WorkerSession:
        """A worker that has imported the framework or is about to. Raises Cancelled when closed."""
        with self._lock:
            spare = self._spare
            if spare is not None and spare[0] == framework:
                self._spare = None
        if spare is None or spare[0] != framework:
            return self._start(framework)
        if spare[1].alive:
            return spare[1]
        self.end(spare[1])
        return self._start(framework)

    def keep_spare(self, framework: FrameworkName) -> None:
        """From now on one of this framework waits, if that is wanted and there is memory for it."""
        self._next_spare = framework
        with self._lock:
            spare = self._spare
            if self._closed or (spare is not None and spare[0] == framework and spare[1].alive):
                return
            self._spare = None
        if spare is not None:
            self.end(spare[1])
        if not self._wants_spare:
            return
        if (free := available_bytes()) < SPARE_NEEDS_BYTES:
            log.warning("no memory for a spare worker", extra={"available_bytes": free, "needed": SPARE_NEEDS_BYTES})
            return
        started = self._start(framework)
        with self._lock:
            before, self._spare = self._spare, (framework, started)
        if before is not None:
            self.end(before[1])

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
            with suppress(Cancelled):
                self.keep_spare(framework)

    @property
    def has_spare(self) -> bool:
        """Whether one waits that has imported its framework."""
        with self._lock:
            spare = self._spare
        return spare is not None and spare[1].alive and spare[1].answer_ready(0.0)

    def end(self, session: WorkerSession) -> None:
        """The worker, all that it started, and its home."""
        with self._lock:
            self._sessions.discard(session)
        session.close()
        shutil.rmtree(session.folder, ignore_errors=True)

    def _start(self, framework: FrameworkName) -> WorkerSession:
        folder = self._folder / str(next(self._numbers))
        session = WorkerSession.start(framework, limits=self._limits, folder=folder, on_output=self._on_output)
        with self._lock:
            self._sessions.add(session)
            is_late = self._closed
        if is_late:
            self.end(session)
            raise Cancelled(error_pb2.REASON_CANCELLED, "the replica ends")
        return session
