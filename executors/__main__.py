"""`python -P -m executors`: serves CodeExecutor for one framework until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from executors.servicer import CodeExecutor
from executors.settings import Settings
from executors.spares import Spares, Start
from headrace import logs
from headrace.metrics import metrics_endpoint
from headrace.process import run_main
from headrace.server import RunningServer, serving
from headrace.settings import load
from headrace.v1 import code_executor_pb2_grpc
from sandbox.session import WorkerSession

log = logging.getLogger(__name__)


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    settings = load(Settings, os.environ)
    logs.configure(f"executor-{settings.framework}")
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with executor(settings) as server:
        log.info("ready", extra={"port": server.port, "framework": settings.framework})
        await stop.wait()


@asynccontextmanager
async def executor(settings: Settings, start: Start = WorkerSession.start) -> AsyncIterator[RunningServer]:
    """Serves at once; health says so when the first spare is ready."""
    spares = Spares(settings, start)
    servicer = (
        code_executor_pb2_grpc.add_CodeExecutorServicer_to_server,
        CodeExecutor(settings, spares),
        "headrace.v1.CodeExecutor",
    )
    filling = asyncio.create_task(spares.run(), name="spares")
    try:
        async with serving(settings.listen, [servicer], ready=False) as server:
            telling = asyncio.create_task(_tell_when_ready(spares, server), name="health")
            with metrics_endpoint(settings.metrics_listen, ready=spares.settled.is_set):
                yield server
            telling.cancel()
    finally:
        filling.cancel()
        with suppress(asyncio.CancelledError):
            await filling


async def _tell_when_ready(spares: Spares, server: RunningServer) -> None:
    await spares.settled.wait()
    await server.set_serving(True)


if __name__ == "__main__":
    run_main(main)
