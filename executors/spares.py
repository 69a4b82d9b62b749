"""The spare: a worker that has imported its framework and waits, so that a validation need not."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from executors.settings import Settings
from headrace.errors import HeadraceError, Unavailable, Unimplemented
from headrace.logs import error_fields
from headrace.v1 import error_pb2
from sandbox.limits import Limits
from sandbox.session import FrameworkName, WorkerSession

log = logging.getLogger(__name__)

FOLDER_PREFIX = "headrace-"
RETRY_FIRST_S, RETRY_LIMIT_S = 1.0, 30.0
T = TypeVar("T")


class Start(Protocol):
    """How a worker is started: WorkerSession.start."""

    def __call__(self, framework: FrameworkName, *, limits: Limits, folder: Path) -> WorkerSession:
        """Returns at once; the worker gets ready by itself."""


class Spares:
    """Keeps one worker ready. `run` fills, `taken` and `clean` use; all on one event loop.

    Calls to a worker block, so they run on threads of this object: `in_thread`, for its users too.
    """

    def __init__(self, settings: Settings, start: Start = WorkerSession.start) -> None:
        self._settings = settings
        self._start_worker = start
        self._ready: deque[WorkerSession] = deque()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._changed = asyncio.Condition()
        self._failure: HeadraceError | None = None
        # One per validation and one to end it, the same for an export, one that starts the next spare.
        self._threads = ThreadPoolExecutor(2 * settings.validations + 4, thread_name_prefix="worker-call")
        self.settled = asyncio.Event()
        """Set for good when the first spare is ready, or when it is known that there will be none."""

    async def run(self) -> None:
        """Starts a spare whenever there is none, until it is cancelled."""
        delay_s = RETRY_FIRST_S
        try:
            while True:
                await self._wanted.wait()
                try:
                    await self._put(await self._start())
                    delay_s = RETRY_FIRST_S
                except (HeadraceError, OSError) as error:
                    await self._note_failure(error)
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, RETRY_LIMIT_S)
        finally:
            while self._ready:
                await asyncio.shield(self._dispose(self._ready.pop()))
            self._threads.shutdown(wait=False)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[WorkerSession]:
        """A worker of one's own: it is ended after the block, and a new spare is started meanwhile."""
        session = await self._get()
        self._wanted.set()
        try:
            yield session
        finally:
            await asyncio.shield(self._dispose(session))

    @asynccontextmanager
    async def clean(self) -> AsyncIterator[WorkerSession]:
        """The spare, for calls that run nobody's code: it stays the spare afterwards."""
        session = await self._get()
        try:
            yield session
        finally:
            if session.alive:
                await asyncio.shield(self._put(session))
            else:
                self._wanted.set()
                await asyncio.shield(self._dispose(session))

    @asynccontextmanager
    async def own(self, limits: Limits) -> AsyncIterator[WorkerSession]:
        """A worker with limits of its own, which begins to import its framework now; it is ended after the block."""
        session = await self.in_thread(self._start_session, limits)
        try:
            yield session
        finally:
            await asyncio.shield(self._dispose(session))

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Runs a blocking call."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def _start(self) -> WorkerSession:
        session = await self.in_thread(self._start_session, self._settings.limits)
        try:
            await self.in_thread(session.wait_ready, self._settings.import_s)
        except BaseException:
            await asyncio.shield(self._dispose(session))
            raise
        return session

    def _start_session(self, limits: Limits) -> WorkerSession:
        folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=self._folders()))
        framework = cast(FrameworkName, self._settings.framework)
        try:
            return self._start_worker(framework, limits=limits, folder=folder)
        except OSError:
            folder.rmdir()
            raise

    def _folders(self) -> Path | None:
        """Where workers' folders are. Those of executors that were killed are removed."""
        if self._settings.home is None:
            return None
        folders = self._settings.home / "validations"
        folders.mkdir(parents=True, exist_ok=True)
        for folder in folders.glob(f"{FOLDER_PREFIX}*"):
            pid = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
            if not Path("/proc", pid).exists():
                shutil.rmtree(folder, ignore_errors=True)
        return folders

    async def _put(self, session: WorkerSession) -> None:
        async with self._changed:
            self._failure = None
            self._wanted.clear()
            self._ready.append(session)
            self._changed.notify_all()
        self.settled.set()

    async def _get(self) -> WorkerSession:
        """The spare, once there is one. Raises why there is none when starting it failed."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ready or self._failure is not None)
                if not self._ready and self._failure is not None:
                    raise self._failure
                session = self._ready.popleft()
            if session.alive:
                return session
            self._wanted.set()  # Somebody killed it while it waited.
            await self._dispose(session)

    async def _note_failure(self, error: HeadraceError | OSError) -> None:
        reason = error_fields(error) if isinstance(error, HeadraceError) else {"cause": str(error)}
        log.error("no worker can be started", extra=reason)
        if isinstance(error, Unimplemented):
            self.settled.set()  # Not installed: every call is told so, which is all that this executor can do.
            failure: HeadraceError = error
        else:
            message = f"no {self._settings.framework} worker can be started: {error}"
            failure = Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, message, retry_after_s=RETRY_FIRST_S)
        async with self._changed:
            self._failure = failure
            self._changed.notify_all()

    async def _dispose(self, session: WorkerSession) -> None:
        await self.in_thread(session.close)
        await self.in_thread(shutil.rmtree, session.folder, True)
