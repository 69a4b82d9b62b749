"""Kafka's classes, loaded and linked ahead of time (JEP 483 and 515): with them a broker is ready in half the time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cli.broker import Broker
from cli.kafka_download import Progress, default_cache, kafka_archive
from headrace.errors import FailedPrecondition
from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings, ensure_topics

# Java writes 70 MB while it stops.
WRITING_S = 120.0


def record_archive(cache: Path | None = None, *, on_progress: Progress | None = None) -> Path:
    """Start a broker once, in a folder for this alone, and keep what Java loaded; nothing to do where it was kept.

    About ten seconds, and the download where it is the first. Raises what `Broker.start` raises, and
    FailedPrecondition (STORAGE_UNAVAILABLE) where Java did not write it.
    """
    archive = kafka_archive(cache or default_cache())
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(prefix="headrace-", dir=_made(archive.parent.parent)) as folder:
        recorded = Path(folder) / archive.name
        broker = Broker(
            Path(folder), port=0, cache=cache, record_to=recorded, stop_with_parent=True, on_progress=on_progress
        )
        with broker:
            ensure_topics(KafkaSettings(broker.bootstrap_servers), {"recorded": 1})
            broker.stop(WRITING_S)
        if not recorded.exists():
            why = f"Java did not write {archive.name}; brokers start without it. Is there room in {archive.parent}?"
            raise FailedPrecondition(error_pb2.REASON_STORAGE_UNAVAILABLE, why, folder=archive.parent)
        # In one step, beside the jars that it belongs to: who starts a broker meanwhile sees all of it or nothing.
        recorded.replace(archive)
    return archive


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
