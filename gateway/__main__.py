"""`python -P -m gateway`: serves the REST API and the web pages until it is told to stop."""

import asyncio
import logging
import os
import threading

from gateway.server import serving
from gateway.settings import Settings
from headrace import logs
from headrace.process import run_main, stop_on_signals
from headrace.settings import load

log = logging.getLogger(__name__)


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    settings = load(Settings, os.environ)
    logs.configure("gateway")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with stop_on_signals() as stop:
        asyncio.run(_serve(settings, stop))


async def _serve(settings: Settings, stop: threading.Event) -> None:
    async with serving(settings) as gateway:
        log.info("listening", extra={"url": gateway.url, "control_plane": settings.address})
        await asyncio.to_thread(stop.wait)


if __name__ == "__main__":
    run_main(main)
