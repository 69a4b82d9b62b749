"""Workloads as real processes: started once, adopted, stopped as whole trees, their end known."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from control_plane.cluster import Exit, Observed, Workload
from control_plane.local import LocalCluster
from tests.support import eventually

NAME = "train-1-a1"


def script(text: str) -> Callable[[Workload], Sequence[str]]:
    """A command that runs this Python text, isolated so that it starts in milliseconds."""
    return lambda workload: (sys.executable, "-I", "-S", "-c", textwrap.dedent(text))


def workload(name: str = NAME, **env: str) -> Workload:
    return Workload(name=name, module="trainer", env=env, work="result-1")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home folder; whatever runs in it at the end is killed."""
    yield tmp_path / "home"
    for process in of_home(tmp_path / "home"):
        with suppress(psutil.NoSuchProcess):  # It ends by itself at this moment.
            process.kill()


def of_home(home: Path) -> list[psutil.Process]:
    """Every process that was started as a workload of this home, or by one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADRACE_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def seen(cluster: LocalCluster, name: str = NAME) -> Observed:
    return cluster.list().workloads[name]


def ended(cluster: LocalCluster, name: str = NAME) -> Exit:
    found = eventually(lambda: seen(cluster, name).exit)
    assert found is not None
    return found


def logged(cluster: LocalCluster, name: str = NAME) -> str:
    return cluster.read_logs(name, 0).data.decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pass", Exit(code=0)),
        ("import sys; sys.exit(10)", Exit(code=10)),
        ("import sys; sys.exit(75)", Exit(code=75)),
        ("import os; os.kill(os.getpid(), 11)", Exit(signal=11)),
    ],
)
def test_the_end_of_a_workload_is_known(home: Path, text: str, expected: Exit) -> None:
    cluster = LocalCluster(home, command=script(text))
    cluster.start(workload())
    assert ended(cluster) == expected


def test_a_command_that_cannot_be_executed_ends_and_says_why(home: Path) -> None:
    cluster = LocalCluster(home, command=lambda _: ["/does/not/exist"])
    cluster.start(workload())
    assert ended(cluster) == Exit(code=127)
    assert "/does/not/exist" in logged(cluster)


def test_a_workload_gets_its_settings_and_none_of_the_control_plane(home: Path) -> None:
    environ = {**os.environ, "HEADRACE_DATABASE": "secret", "HEADRACE_LOG_LEVEL": "DEBUG"}
    text = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))"
    cluster = LocalCluster(home, environ=environ, command=script(text))
    cluster.start(workload(HEADRACE_RESULT_ID="1"))
    ended(cluster)
    found, folder = json.loads(logged(cluster))
    assert found["HEADRACE_RESULT_ID"] == "1"
    assert found["HEADRACE_HOME"] == str(home)
    assert found["HEADRACE_WORK_DIR"] == folder == str(home / "work" / "result-1")
    assert found["HEADRACE_LOG_LEVEL"] == "DEBUG"
    assert "HEADRACE_DATABASE" not in found


def test_a_name_is_started_once_until_it_is_forgotten(home: Path) -> None:
    cluster = LocalCluster(home, command=script("print('started', flush=True)"))
    for _ in range(3):
        cluster.start(workload())
    ended(cluster)
    cluster.start(workload())
    assert logged(cluster).count("started") == 1
    cluster.forget(NAME)
    assert NAME not in cluster.list().workloads
    cluster.start(workload())
    ended(cluster)
    assert logged(cluster).count("started") == 2


def test_a_running_workload_is_not_forgotten(home: Path) -> None:
    cluster = LocalCluster(home, command=script("import time; time.sleep(60)"))
    cluster.start(workload())
    cluster.forget(NAME)
    cluster.start(workload())
    assert seen(cluster).is_running
    # A shim and a workload.
    assert eventually(lambda: len(of_home(home)) == 2)


def test_a_start_costs_less_than_a_tenth_of_a_second_of_processor_time(home: Path) -> None:
    cluster = LocalCluster(home, command=script("print('here', flush=True); import time; time.sleep(60)"))
    began = time.process_time()
    cluster.start(workload())
    ours = time.process_time() - began
    eventually(lambda: logged(cluster))
    used = psutil.Process(psutil.Process(seen(cluster).pid).ppid()).cpu_times()
    assert ours + used.user + used.system < 0.1


GRACEFUL = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), sys.exit(0)))
    print("ready", flush=True)
    time.sleep(60)
"""

# Ignores SIGTERM, and has a grandchild in a session of its own that lost its parent and emptied its environment.
STUBBORN = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c",
            "import os, sys, time; print('ready', os.getpid(), flush=True); time.sleep(60)"], {})
    time.sleep(60)
"""


def grandchild(cluster: LocalCluster) -> psutil.Process:
    eventually(lambda: "ready" in logged(cluster))
    return psutil.Process(int(logged(cluster).split()[1]))


def test_a_stop_is_graceful_first(home: Path) -> None:
    cluster = LocalCluster(home, command=script(GRACEFUL))
    cluster.start(workload())
    eventually(lambda: "ready" in logged(cluster))
    cluster.stop(NAME, grace_s=30)
    assert ended(cluster) == Exit(code=0, stopped=True)
    assert logged(cluster).split() == ["ready", "asked"]


def test_a_stop_kills_the_whole_tree_after_the_grace(home: Path) -> None:
    cluster = LocalCluster(home, command=script(STUBBORN))
    cluster.start(workload())
    escaped = grandchild(cluster)
    cluster.stop(NAME, grace_s=0.3)
    assert seen(cluster).is_running
    assert ended(cluster) == Exit(signal=signal.SIGKILL, stopped=True)
    assert not escaped.is_running()
    assert not of_home(home)


def test_what_a_killed_workload_started_dies_with_it(home: Path) -> None:
    cluster = LocalCluster(home, command=script(STUBBORN))
    cluster.start(workload())
    escaped = grandchild(cluster)
    os.kill(seen(cluster).pid or 0, signal.SIGKILL)
    assert ended(cluster) == Exit(signal=signal.SIGKILL)
    assert not escaped.is_running()


def test_a_killed_shim_takes_its_workload_along_and_leaves_an_unknown_end(home: Path) -> None:
    cluster = LocalCluster(home, command=script(GRACEFUL))
    cluster.start(workload())
    eventually(lambda: "ready" in logged(cluster))
    child = psutil.Process(seen(cluster).pid)
    os.kill(child.ppid(), signal.SIGKILL)
    # By itself, with no control plane that looks.
    eventually(lambda: not child.is_running())
    assert ended(cluster) == Exit()
    assert not of_home(home)


def test_a_killed_shim_takes_nothing_of_another_home_along(home: Path, tmp_path: Path) -> None:
    ours, theirs = (LocalCluster(place, command=script(GRACEFUL)) for place in (home, tmp_path / "another"))
    for cluster in (ours, theirs):
        cluster.start(workload())
        eventually(lambda cluster=cluster: "ready" in logged(cluster))  # type: ignore[misc]
    os.kill(psutil.Process(seen(ours).pid).ppid(), signal.SIGKILL)
    assert ended(ours) == Exit()
    assert seen(theirs).is_running
    theirs.stop(NAME, grace_s=5)
    assert ended(theirs) == Exit(code=0, stopped=True)


def test_a_stop_does_not_depend_on_a_shim_that_hangs(home: Path) -> None:
    cluster = LocalCluster(home, command=script(GRACEFUL))
    cluster.start(workload())
    eventually(lambda: "ready" in logged(cluster))
    os.kill(psutil.Process(seen(cluster).pid).ppid(), signal.SIGSTOP)

    def stopped() -> bool:
        cluster.stop(NAME, grace_s=0)
        return seen(cluster).exit == Exit(stopped=True)

    assert eventually(stopped)
    assert not of_home(home)


def test_a_process_that_was_given_the_pid_of_a_dead_shim_is_left_alone(home: Path) -> None:
    cluster = LocalCluster(home)
    cluster.start(workload())
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        record = {"attempt": 3, "spec_hash": "x", "pid": innocent.pid, "starttime": 1, "boot_id": boot_id, "child": 1}
        (home / "workloads" / "train-9-a3.json").write_text(json.dumps(record))
        assert seen(cluster, "train-9-a3") == Observed("train-9-a3", 3, "x", 1, Exit())
        cluster.stop("train-9-a3", grace_s=0)
        cluster.forget("train-9-a3")
        assert "train-9-a3" not in cluster.list().workloads
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_what_ended_with_the_machine_did_not_fail(home: Path) -> None:
    (home / "workloads").mkdir(parents=True)
    record = {"attempt": 1, "spec_hash": "", "pid": os.getpid(), "starttime": 1, "boot_id": "another", "child": 1}
    (home / "workloads" / f"{NAME}.json").write_text(json.dumps(record))
    assert seen(LocalCluster(home)).exit == Exit(stopped=True)


# A control plane that starts ten workloads, each of which writes a line when it begins, and waits to be killed.
HOST = """
    import sys, time
    from pathlib import Path
    from control_plane.cluster import Workload
    from control_plane.local import LocalCluster

    text = "import os, time; print('begun', os.getpid(), flush=True); time.sleep(0.5 + {}); raise SystemExit(7)"
    def command(workload):
        long = 60 if int(workload.name.split("-")[1]) % 2 else 0
        return sys.executable, "-I", "-S", "-c", text.format(long)

    cluster = LocalCluster(Path(sys.argv[1]), command=command)
    cluster.list()
    for number in range(10):
        cluster.start(Workload(f"train-{number}-a1", "trainer", {}, f"result-{number}"))
    print("all", flush=True)
    time.sleep(60)
"""


def host(home: Path, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", textwrap.dedent(HOST), str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **env})


def test_a_control_plane_killed_anywhere_starts_nothing_twice(home: Path) -> None:
    """Twenty times, at a random moment; the last one lives long enough to start what is missing."""
    chance = random.Random(7)
    for _ in range(20):
        control_plane = host(home)
        with contextlib.suppress(subprocess.TimeoutExpired):
            control_plane.wait(chance.uniform(0.05, 0.35))
        control_plane.kill()
        control_plane.communicate()
    last = host(home)
    assert last.stdout is not None
    assert last.stdout.readline() == b"all\n"
    last.kill()
    last.communicate()

    cluster = LocalCluster(home)
    for number in range(10):
        name = f"train-{number}-a1"
        eventually(lambda name=name: "begun" in logged(cluster, name))  # type: ignore[misc]
        assert logged(cluster, name).count("begun") == 1
        if number % 2:
            assert seen(cluster, name).is_running
            assert logged(cluster, name).split()[1] == str(seen(cluster, name).pid)
        else:
            assert ended(cluster, name) == Exit(code=7)


@pytest.mark.parametrize(("point", "known"), [("workload_intended", 4), ("workload_started", 5)])
def test_a_start_that_was_broken_off_is_repeated_or_found(home: Path, point: str, known: int) -> None:
    control_plane = host(home, HEADRACE_FAIL=f"{point}:exit@5", HEADRACE_FAIL_FOLDER=str(home.parent))
    control_plane.communicate()
    cluster = LocalCluster(home)
    assert len(cluster.list().workloads) == known
    again = host(home, HEADRACE_FAIL=f"{point}:exit@5", HEADRACE_FAIL_FOLDER=str(home.parent))
    assert again.stdout is not None
    assert again.stdout.readline() == b"all\n"
    again.kill()
    again.communicate()
    for number in range(10):
        eventually(lambda number=number: "begun" in logged(cluster, f"train-{number}-a1"))  # type: ignore[misc]
        assert logged(cluster, f"train-{number}-a1").count("begun") == 1


def test_an_adopted_workload_is_stopped_like_an_own_one(home: Path) -> None:
    control_plane = host(home)
    assert control_plane.stdout is not None
    control_plane.stdout.readline()
    control_plane.kill()
    control_plane.communicate()
    cluster = LocalCluster(home)
    cluster.stop("train-1-a1", grace_s=5)
    assert ended(cluster, "train-1-a1") == Exit(signal=signal.SIGTERM, stopped=True)


def test_a_log_keeps_its_newest_part_and_its_offsets(home: Path) -> None:
    text = "for number in range(1000): print(f'line {number:05}')"
    cluster = LocalCluster(home, command=script(text), log_bytes=4096)
    cluster.start(workload())
    ended(cluster)
    assert sum(path.stat().st_size for path in (home / "logs").iterdir()) <= 2 * 4096
    text, offset = "", 0
    while (chunk := cluster.read_logs(NAME, offset)).data:
        text, offset = text + chunk.data.decode(), chunk.next_offset
    assert offset == 11 * 1000
    assert text.endswith("line 00998\nline 00999\n")
    assert len(text) > 4096
    # An offset that was read before continues where it was.
    assert cluster.read_logs(NAME, 10_989).data == b"line 00999\n"
    cluster.remove_logs({"result 2"})
    assert cluster.read_logs(NAME, 10_989).data
    cluster.remove_logs({"result 1"})
    assert not list((home / "logs").iterdir())


def test_workloads_share_a_folder(home: Path) -> None:
    cluster = LocalCluster(home, command=script("import os; print(os.environ.get('HEADRACE_SHARED_DIR'))"))
    for number, shared in ((1, "deployment-1"), (2, "deployment-1"), (3, "")):
        name = f"train-{number}-a1"
        cluster.start(Workload(name, "trainer", {}, f"result-{number}", shared))
        ended(cluster, name)
    place = str(home / "work" / "deployment-1")
    assert [logged(cluster, f"train-{number}-a1").strip() for number in (1, 2, 3)] == [place, place, "None"]
    assert cluster.list().works == {"result-1", "result-2", "result-3", "deployment-1"}


def test_work_folders_stay_until_they_are_removed(home: Path) -> None:
    cluster = LocalCluster(home, command=script("open('kept', 'w').close()"))
    cluster.start(workload())
    ended(cluster)
    cluster.forget(NAME)
    assert cluster.list().works == {"result-1"}
    assert (home / "work" / "result-1" / "kept").exists()
    cluster.remove_works({"result-1"})
    assert not cluster.list().works
