"""The store killed at every system call that writes, and on disks that fail. Needs strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.store import Store, models

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

WRITER = """
import sys
from pathlib import Path
from control_plane.store import Store, models
from headrace.errors import HeadraceError
from headrace.v1 import model_pb2

def create(name):
    return models.create(model_pb2.Model(name=name, framework=1, code="model = 1" + "#" * 5000))

with Store.open(Path(sys.argv[1])) as store:
    for name in "abc":
        try:
            store.write_now(lambda: create(name))
            print("stored", name, flush=True)
        except HeadraceError as error:
            print("refused", error.reason_name, flush=True)
    print("broken" if store.broken.is_set() else "sound", flush=True)
"""


def run_writer(path: Path, inject: str) -> tuple[int, list[str]]:
    """Exit code and lines of a process that creates and fills a store under an injected fault."""
    calls = inject.partition(":")[0]
    strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={inject}"]
    ended = subprocess.run(
        [*strace, sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, timeout=120
    )
    return ended.returncode, ended.stdout.splitlines()


def names_in(path: Path) -> list[str]:
    """What is stored; opening it also shows that the file is whole."""
    with Store.open(path) as store:
        return sorted(model.name for model in store.read_now(lambda: models.page(before_id=None, limit=10)))


@needs_strace
@pytest.mark.chaos
def test_killed_at_any_write_the_store_keeps_what_it_confirmed(tmp_path: Path) -> None:
    point, code = 0, -9
    while code != 0:
        point += 1
        path = tmp_path / f"{point}.db"
        code, lines = run_writer(path, f"pwrite64,fdatasync,fsync,ftruncate,unlink:signal=KILL:when={point}")
        told = [line.removeprefix("stored ") for line in lines if line.startswith("stored ")]
        found = names_in(path)
        assert found[: len(told)] == told
        assert len(found) <= len(told) + 1
    assert point > 20


@needs_strace
@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=4+", "pwrite64:error=EIO:when=24+"])
def test_on_a_disk_that_fails_nothing_more_is_confirmed(tmp_path: Path, fault: str) -> None:
    """Both strike in the second write, after a dozen calls of the first and eight of the opening."""
    path = tmp_path / "a.db"
    Store.open(path).close()
    code, lines = run_writer(path, fault)
    told = [line.removeprefix("stored ") for line in lines if line.startswith("stored ")]
    assert code == 0
    assert "refused STORAGE_UNAVAILABLE" in lines
    assert lines[-1] == "broken"
    assert names_in(path)[: len(told)] == told


@needs_strace
def test_on_a_full_disk_writes_are_refused_and_the_store_stays_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store.open(path).close()
    code, lines = run_writer(path, "pwrite64:error=ENOSPC:when=24")
    told = [line.removeprefix("stored ") for line in lines if line.startswith("stored ")]
    assert code == 0
    assert "refused STORAGE_UNAVAILABLE" in lines
    assert lines[-1] == "sound"
    assert len(told) == 2
    assert names_in(path) == told
