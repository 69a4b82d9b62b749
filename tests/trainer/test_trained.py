import hashlib
from pathlib import Path

import pytest

from headrace.v1.result_collector_pb2 import Outcome, ReportRequest
from headrace.v1.result_pb2 import Artifact, Epoch, Metrics, SplitMetrics
from trainer import trained
from trainer.trained import Trained

MODEL = b"weights" * 1000


@pytest.fixture
def done(tmp_path: Path) -> Trained:
    part = tmp_path / "trained.part"
    part.mkdir()
    (part / "model.bin").write_bytes(MODEL)
    metrics = SplitMetrics(splits={"training": Metrics(values={"loss": float("inf")})})
    artifact = Artifact(
        name="model.bin", media_type="x/y", size_bytes=len(MODEL), sha256=hashlib.sha256(MODEL).hexdigest()
    )
    with trained.epochs_journal(part) as epochs:
        for number in range(1, 4):
            epochs.append(ReportRequest(seq=number, epoch=Epoch(number=number, metrics=metrics)))
    return Trained(Outcome(metrics=metrics, decode_error_count=2), [artifact], part)


def test_what_is_kept_is_found_whole(done: Trained, tmp_path: Path) -> None:
    kept = trained.keep(done, "digest", tmp_path / "trained")
    assert trained.find("digest", tmp_path / "trained") == kept
    assert (kept.folder / "model.bin").read_bytes() == MODEL
    assert [epoch.number for epoch in kept.epochs()] == [1, 2, 3]


def test_another_training_is_not_found(done: Trained, tmp_path: Path) -> None:
    trained.keep(done, "digest", tmp_path / "trained")
    assert trained.find("other", tmp_path / "trained") is None


def test_nothing_kept_is_nothing_found(tmp_path: Path) -> None:
    assert trained.find("digest", tmp_path / "trained") is None


@pytest.mark.parametrize("name", ["model.bin", "epochs.journal", "manifest.json"])
def test_what_was_spoilt_is_not_found(name: str, done: Trained, tmp_path: Path) -> None:
    trained.keep(done, "digest", tmp_path / "trained")
    path = tmp_path / "trained" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert trained.find("digest", tmp_path / "trained") is None
