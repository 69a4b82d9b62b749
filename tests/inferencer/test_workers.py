"""When a spare worker is started, and whom it serves."""

import subprocess
import sys
import textwrap
from pathlib import Path

from inferencer.workers import SPARE_QUIET_S, SPARE_TURN_S, Workers
from sandbox.spares import SpareKeeper
from tests.inferencer.worker_processes import workers_in
from tests.support import eventually


def test_a_first_spare_waits_until_the_replica_is_not_busy(tmp_path: Path) -> None:
    looks: list[bool] = []
    busy = True

    def is_busy() -> bool:
        looks.append(busy)
        return busy

    with Workers(tmp_path, is_busy=is_busy, on_output=print) as workers:
        workers.keep_spare_when_quiet("pytorch")
        eventually(lambda: len(looks) * SPARE_TURN_S > SPARE_QUIET_S + 0.5, timeout_s=20)
        assert not list(tmp_path.iterdir())
        busy = False
        eventually(lambda: workers.has_spare, timeout_s=60)


def test_a_spare_outlives_the_replica_that_is_killed_and_serves_the_next(tmp_path: Path) -> None:
    replica = f"""
        import time
        from pathlib import Path
        from inferencer.workers import Workers
        with Workers(Path({str(tmp_path)!r}), keeper={str(tmp_path)!r}, on_output=print) as workers:
            workers.take("pytorch").wait_ready(60)
            workers.keep_spare("pytorch")
            while not workers.has_spare:
                time.sleep(0.1)
            print("ready", flush=True)
            time.sleep(1000)
    """
    with SpareKeeper(str(tmp_path)):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", textwrap.dedent(replica)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            answered = [one for one in workers_in(tmp_path) if process.pid in {parent.pid for parent in one.parents()}]
            assert answered
            process.kill()
        (spare,) = workers_in(tmp_path)
        eventually(lambda: not any(one.is_running() for one in answered))
        with Workers(tmp_path, keeper=str(tmp_path), on_output=print) as workers:
            taken = workers.take("pytorch")
            assert taken.pid == spare.pid
            taken.wait_ready(1)
            assert taken.framework_version.startswith("torch")
        assert not spare.is_running()
        assert not list(tmp_path.iterdir())


def test_a_spare_that_is_killed_leaves_nothing_and_another_may_wait(tmp_path: Path) -> None:
    with (
        SpareKeeper(str(tmp_path)),
        Workers(tmp_path, keeper=str(tmp_path), on_output=print) as workers,
    ):
        workers.keep_spare("pytorch")
        (spare,) = eventually(lambda: workers_in(tmp_path))
        warden = spare.parent()
        assert warden is not None
        spare.kill()
        eventually(lambda: not warden.is_running() and not workers_in(tmp_path) and not list(tmp_path.iterdir()))
        workers.keep_spare("pytorch")
        eventually(lambda: workers.has_spare, timeout_s=60)


def test_nothing_waits_for_a_replica_that_has_ended(tmp_path: Path) -> None:
    with SpareKeeper(str(tmp_path)):
        with Workers(tmp_path, keeper=str(tmp_path), on_output=print) as workers:
            workers.keep_spare("pytorch")
            eventually(lambda: workers_in(tmp_path))
        assert not workers_in(tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_replica_whose_keeper_is_away_starts_its_worker_itself(tmp_path: Path) -> None:
    with Workers(tmp_path, keeper=str(tmp_path), on_output=print) as workers:
        workers.keep_spare("pytorch")
        assert not workers.has_spare
        workers.take("pytorch").wait_ready(60)
