"""A training that is done but not yet delivered, on disk: an attempt that dies while it uploads costs no training."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from headrace.chunks import sha256_of
from headrace.v1.result_collector_pb2 import Outcome, ReportRequest
from headrace.v1.result_pb2 import Artifact, Epoch
from trainer.journal import Journal, read_journal

MANIFEST = "manifest.json"
EVENTS = "events.journal"


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    epochs: list[Epoch]
    outcome: Outcome
    artifacts: list[Artifact]
    folder: Path
    """The artifacts lie here under their names."""


def keep(trained: Trained, digest: str, folder: Path) -> Trained:
    """Moves `trained.folder` to `folder` with everything else beside the files; whole or not at all.

    digest: of what was trained, as `find` will be asked.
    """
    with Journal(trained.folder / EVENTS) as events:
        for number, epoch in enumerate(trained.epochs, 1):
            events.append(ReportRequest(seq=number, epoch=epoch))
        events.append(ReportRequest(seq=len(trained.epochs) + 1, outcome=trained.outcome))
        events.sync()
    manifest = {
        "digest": digest,
        "events_sha256": sha256_of(trained.folder / EVENTS),
        "artifacts": [
            {"name": each.name, "media_type": each.media_type, "size_bytes": each.size_bytes, "sha256": each.sha256}
            for each in trained.artifacts
        ],
    }
    (trained.folder / MANIFEST).write_text(_seal(json.dumps(manifest)))
    for path in (*trained.folder.iterdir(), trained.folder):
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    trained.folder.rename(folder)
    _sync(folder.parent)
    return Trained(trained.epochs, trained.outcome, trained.artifacts, folder)


def find(digest: str, folder: Path) -> Trained | None:
    """What an earlier attempt kept, if it trained the same and every byte is still what it was."""
    try:
        manifest = json.loads(_unseal((folder / MANIFEST).read_text()))
        artifacts = [Artifact(**each) for each in manifest["artifacts"]]
        whole = manifest["digest"] == digest and all(
            sha256_of(folder / name) == sha256
            for name, sha256 in [(EVENTS, manifest["events_sha256"]), *((a.name, a.sha256) for a in artifacts)]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    events = list(read_journal(folder / EVENTS))
    epochs = [event.epoch for event in events if event.HasField("epoch")]
    return Trained(epochs, events[-1].outcome, artifacts, folder)


def _seal(text: str) -> str:
    """The text under its own SHA-256."""
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _unseal(sealed: str) -> str:
    text = sealed.partition("\n")[2]
    if _seal(text) != sealed:
        raise ValueError("not what was written")
    return text


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
