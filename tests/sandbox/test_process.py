"""A worker is confined, and ends as a whole tree, whoever ends it and however it resists."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.limits import MIB, Ending, Limits
from sandbox.process import WorkerProcess
from tests.sandbox.workers import processes_with
from tests.support import eventually

Start = Callable[..., WorkerProcess]


@pytest.fixture
def marker() -> Iterator[str]:
    """A text that is in the command line of every process of a test; none of them may outlive it."""
    text = f"marker-{uuid.uuid4().hex}"
    yield text
    assert processes_with(text) == []


@pytest.fixture
def start(tmp_path: Path, marker: str) -> Iterator[Start]:
    """Starts Python code as a worker."""
    started: list[WorkerProcess] = []

    def start(code: str, *, limits: Limits | None = None, **options: Any) -> WorkerProcess:
        command = [sys.executable, "-S", "-c", textwrap.dedent(code), marker]
        started.append(WorkerProcess.start(command, limits=limits or Limits(), folder=tmp_path / "home", **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        os.close(process.request_fd)
        os.close(process.answer_fd)


# A daemon in a session of its own, which init would inherit. Its worker goes on when it runs.
DAEMON = """
import os, sys, time
began, begin = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.set_inheritable(begin, True)
        code = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        code += "os.write(int(sys.argv[2]), b'!'); time.sleep(1000)"
        os.execv(sys.executable, [sys.executable, "-S", "-c", code, sys.argv[1], str(begin)])
    os._exit(0)
os.wait()
os.read(began, 1)
print("daemon", flush=True)
"""


def test_the_environment_holds_nothing_of_the_feeder(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_PASSWORD", "secret")
    process = start("import os, json; print(json.dumps(dict(os.environ)), os.getcwd())", threads=3)
    process.wait(10)
    environment, folder = process.output.text.strip().rsplit(" ", 1)
    names = set(json.loads(environment))
    assert json.loads(environment)["OMP_NUM_THREADS"] == "3"
    assert json.loads(environment)["HOME"] == folder == str(tmp_path / "home")
    assert not names & {"PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "USER", "HEADRACE_PASSWORD"}
    assert not [name for name in names if name.startswith(("HEADRACE", "AWS", "KUBE"))]


def test_no_file_descriptor_is_inherited_but_the_pipes(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        process = start("import os, sys; print(sorted(map(int, os.listdir('/proc/self/fd'))), sys.argv[2:])")
        process.wait(10)
    fds, pipes = process.output.text.strip().split("] [")
    found = {int(fd) for fd in fds.strip("[").split(",")}
    wanted = {0, 1, 2, *(int(fd.strip("'] ")) for fd in pipes.split(","))}
    assert len(wanted) == 5
    # Listing a folder opens it, under the first free number.
    assert found - wanted == {3}
    assert wanted <= found


def test_the_worker_is_confined(start: Start) -> None:
    process = start(
        """
        import resource
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(status["NoNewPrivs"].strip(), resource.getrlimit(resource.RLIMIT_CORE),
              open("/proc/self/oom_score_adj").read().strip(), status["SigIgn"].strip())
        """
    )
    process.wait(10)
    *confined, ignored = process.output.text.split("\n")[0].split()
    assert confined == ["1", "(0,", "0)", "1000"]
    # SIGPIPE and SIGXFSZ, as Python sets them. The first three are the shell's, whose nohup and & have them ignored;
    # above 31 are the C library's own.
    assert int(ignored, 16) & 0x7FFFFFF8 == 0x01001000


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("", Ending(exit_code=0)),
        ("import os; os._exit(7)", Ending(exit_code=7)),
        ("import os; os.kill(os.getpid(), 9)", Ending(signal=signal.SIGKILL)),
        ("import ctypes; ctypes.string_at(0)", Ending(signal=signal.SIGSEGV)),
        ("import os; os.abort()", Ending(signal=signal.SIGABRT)),
    ],
)
def test_an_ending_is_seen_as_it_was(start: Start, code: str, ending: Ending) -> None:
    got = start(code).wait(20)
    assert (got.exit_code, got.signal, got.verdict) == (ending.exit_code, ending.signal, None)
    assert got.peak_bytes > MIB


def test_a_worker_that_ignores_everything_is_killed(start: Start) -> None:
    process = start(
        """
        import signal, ctypes, sys
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        print("ready", flush=True)
        ctypes.PyDLL(None).sleep(1000)  # holds the GIL
        """
    )
    eventually(lambda: "ready" in process.output.text)
    process.interrupt()
    began = time.monotonic()
    assert process.kill().verdict == "asked"
    assert time.monotonic() - began < 5


def test_an_interrupt_is_a_sigterm(start: Start) -> None:
    process = start(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        print("ready", flush=True)
        time.sleep(1000)
        """
    )
    eventually(lambda: "ready" in process.output.text)
    process.interrupt()
    assert process.wait(10).exit_code == 3


def test_daemons_die_with_their_worker(start: Start, marker: str) -> None:
    process = start(DAEMON + "time.sleep(1000)")
    eventually(lambda: "daemon" in process.output.text)
    assert len(processes_with(marker)) == 2
    process.kill()
    assert processes_with(marker) == []


def test_daemons_die_when_their_worker_ends_by_itself(start: Start, marker: str) -> None:
    process = start(DAEMON)
    assert process.wait(20).exit_code == 0
    assert "daemon" in process.output.text
    assert processes_with(marker) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_tree_dies_with_its_feeder(tmp_path: Path, marker: str, number: int) -> None:
    feeder_code = f"""
        import sys, time
        from pathlib import Path
        from sandbox.limits import Limits
        from sandbox.process import WorkerProcess
        code = {DAEMON + "time.sleep(1000)"!r}
        process = WorkerProcess.start([sys.executable, "-S", "-c", code, sys.argv[1]], limits=Limits(),
                                folder=Path({str(tmp_path)!r}), on_output=lambda text: print(text, end="", flush=True))
        time.sleep(1000)
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(feeder_code), marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as feeder:
        assert feeder.stdout is not None
        assert feeder.stdout.readline() == "daemon\n"
        assert len(processes_with(marker)) == 3
        feeder.send_signal(number)
        feeder.wait()
        eventually(lambda: processes_with(marker) == [])


def test_the_worker_dies_with_its_warden(start: Start, marker: str) -> None:
    process = start("import os, time; print(os.getppid(), flush=True); time.sleep(1000)")
    warden = int(eventually(lambda: process.output.text))
    os.kill(warden, signal.SIGKILL)
    assert process.wait(10) == Ending()
    eventually(lambda: processes_with(marker) == [])


def test_memory_over_the_limit_is_a_verdict(start: Start) -> None:
    process = start("x = bytearray(); \nwhile True: x += b'x' * 2**20", limits=Limits(memory_bytes=200 * MIB))
    ending = process.wait(30)
    assert ending.verdict == "memory"
    assert ending.peak_bytes > 200 * MIB


def test_memory_of_children_counts(start: Start) -> None:
    code = """
        import os, time
        for _ in range(5): os.fork()
        x = bytearray(b"x") * 10 * 2**20
        time.sleep(100)
    """
    assert start(code, limits=Limits(memory_bytes=200 * MIB, processes=0)).wait(30).verdict == "memory"


def test_memory_that_nobody_could_have_is_refused_inside(start: Start) -> None:
    process = start("bytearray(2**40)", limits=Limits(memory_bytes=200 * MIB))
    assert process.wait(10).exit_code == 1
    assert "MemoryError" in process.output.text


def test_a_fork_bomb_is_ended(start: Start, marker: str) -> None:
    code = """
        import os, time
        while True:
            if os.fork() == 0: time.sleep(0.001)
            time.sleep(0.002)
    """
    assert start(code, limits=Limits(processes=40)).wait(30).verdict == "processes"
    assert processes_with(marker) == []


def test_a_large_file_is_refused_inside(start: Start) -> None:
    process = start(
        "import os; f = open('big', 'wb'); f.write(b'x' * 2**20); f.flush()", limits=Limits(file_bytes=1000)
    )
    process.wait(10)
    assert "File too large" in process.output.text


def test_processor_time_is_limited(start: Start) -> None:
    assert start("while True: pass", limits=Limits(cpu_s=1)).wait(30).signal == signal.SIGXCPU


def test_output_is_kept_up_to_its_limit(start: Start) -> None:
    process = start("for i in range(100000): print('é' * 50)", limits=Limits(output_kept_bytes=1000))
    assert process.wait(30).exit_code == 0
    lines = process.output.text.splitlines()
    assert lines[0] == "é" * 50
    assert len(process.output.text.encode()) < 1100
    assert lines[-1] == f"… {100000 * 101 - 1000} more bytes left out"
    assert process.output.tail.endswith("é\n")


def test_a_flood_of_output_is_a_verdict(start: Start) -> None:
    ending = start("while True: print('x' * 1000)", limits=Limits(output_bytes=10**6)).wait(30)
    assert ending.verdict == "output"


def test_output_is_passed_on_within_bounds(start: Start) -> None:
    got: list[str] = []
    process = start(
        "print('first', flush=True)\nfor i in range(100000): print('x' * 99)",
        limits=Limits(output_bytes_per_s=10_000),
        on_output=got.append,
    )
    process.wait(30)
    text = "".join(got)
    assert text.startswith("first\n")
    assert len(text) < 100_000
    assert "bytes of output left out" in text


def test_the_beginning_of_a_flood_is_passed_on(start: Start) -> None:
    got: list[str] = []
    code = "import os; os.write(1, b'first\\n' + 50000 * b'x')"
    start(code, limits=Limits(output_bytes_per_s=10_000), on_output=got.append).wait(10)
    assert "".join(got) == "first\n" + 9994 * "x" + "\n… 40006 bytes of output left out\n"


def test_output_that_is_no_text_is_passed_on(start: Start) -> None:
    got: list[str] = []
    start("import os; os.write(1, b'a\\xffb\\xc3')", on_output=got.append).wait(10)
    assert "".join(got) == "a\ufffdb\ufffd"
