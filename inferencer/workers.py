"""Where workers come from: one more than is needed has imported the framework already."""

import itertools
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from headrace.errors import Cancelled
from headrace.v1 import error_pb2
from sandbox.limits import Limits
from sandbox.memory import available_bytes
from sandbox.session import FrameworkName, WorkerSession

log = logging.getLogger(__name__)

# A framework's import takes a third of it. Below, a spare could cost the worker that answers its life.
SPARE_NEEDS_BYTES = 1024**3


class Workers:
    """Gives workers away, from any thread. A context manager, which ends all that are left.

    folder: of their homes, one each.
    memory_bytes: the limit of each; 0: none beyond the machine's.
    spare: whether one waits, with its framework imported, for the end of another: an import takes seconds.
    """

    def __init__(
        self, folder: Path, *, memory_bytes: int = 0, spare: bool = True, on_output: Callable[[str], None]
    ) -> None:
        self._folder, self._on_output = folder, on_output
        self._limits = Limits(memory_bytes=memory_bytes) if memory_bytes else Limits()
        self._wants_spare = spare
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._sessions: set[WorkerSession] = set()
        self._spare: tuple[FrameworkName, WorkerSession] | None = None
        self._closed = False

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
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
