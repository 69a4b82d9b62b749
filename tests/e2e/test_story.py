"""The whole story, told by the demo: from code to answers, and nothing left behind."""

from pathlib import Path

from tests.e2e.conftest import ANY_PORTS, Platform


def test_the_demo_trains_two_models_asks_them_and_leaves_nothing_behind(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    told = platform.headrace("demo", "--exit", *ANY_PORTS, timeout_s=600)
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}\n{platform.logs()}"
    assert told.stdout.count("180 of 180") == 2
    assert "digits-keras: finished" in told.stdout
    assert "digits-torch: finished" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
    assert not platform.processes()
