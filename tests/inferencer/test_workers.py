"""When a spare worker is started."""

from pathlib import Path

from inferencer.workers import SPARE_QUIET_S, SPARE_TURN_S, Workers
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
