"""A training that is done but not yet delivered, on disk: an attempt that dies while it uploads costs no training."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.chunks import sha256_of
from headrace.v1.result_collector_pb2 import Outcome
from headrace.v1.result_pb2 import Artifact, Epoch
from trainer.journal import Journal, read_journal

MANIFEST = "manifest.json"
EPOCHS = "epochs.journal"


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    outcome: Outcome
    artifacts: list[Artifact]
    folder: Path
    """The artifacts lie here under their names, beside the journal of the epochs."""

    def epochs(self) -> Iterator[Epoch]:
        """Every epoch in order, from the disk."""
        return (event.epoch for event in read_journal(self.folder / EPOCHS))


def epochs_journal(folder: Path) -> Journal:
    """For the epochs of a training whose `folder` will be kept; there may be more than memory has room for."""
    return Journal(folder / EPOCHS)


def keep(trained: Trained, digest: str, folder: Path) -> Trained:
    """Moves `trained.folder` to `folder`, with everything that `find` needs; whole or not at all.

    digest: of what was trained, as `find` will be asked.
    """
    manifest = {
        "digest": digest,
        "outcome": trained.outcome.SerializeToString().hex(),
        "artifacts": [each.SerializeToString().hex() for each in trained.artifacts],
        "files": {path.name: sha256_of(path) for path in trained.folder.iterdir()},
    }
    (trained.folder / MANIFEST).write_text(_seal(json.dumps(manifest)))
    for path in (*trained.folder.iterdir(), trained.folder):
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    trained.folder.rename(folder)
    _sync(folder.parent)
    return Trained(trained.outcome, trained.artifacts, folder)


def find(digest: str, folder: Path) -> Trained | None:
    """What an earlier attempt kept, if it trained the same and every byte is still what it was."""
    try:
        manifest = json.loads(_unseal((folder / MANIFEST).read_text()))
        if manifest["digest"] != digest:
            return None
        if any(sha256_of(folder / name) != sha256 for name, sha256 in manifest["files"].items()):
            return None
    except (OSError, ValueError):
        return None
    outcome = Outcome.FromString(bytes.fromhex(manifest["outcome"]))
    artifacts = [Artifact.FromString(bytes.fromhex(each)) for each in manifest["artifacts"]]
    return Trained(outcome, artifacts, folder)


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
