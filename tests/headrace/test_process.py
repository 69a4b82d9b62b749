"""Signals, exit codes and the death of a parent, in processes of their own."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from headrace import process
from tests.support import eventually


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEADRACE_LOG_FORMAT": "json"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


PREAMBLE = """
from headrace import errors, logs
from headrace.process import *
from headrace.settings import SettingsError
from headrace.v1 import error_pb2
logs.configure("test")
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return None", process.EXIT_OK),
        ("return EXIT_FENCED", process.EXIT_FENCED),
        ("raise SettingsError(['HEADRACE_A is not set', 'HEADRACE_B is not set'])", process.EXIT_USAGE),
        ("raise errors.NotFound(error_pb2.REASON_UNKNOWN_TOPIC, 'no topic', name='t')", process.EXIT_FAILED),
        ("raise errors.Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, 'away')", process.EXIT_RETRY),
        ("raise KeyboardInterrupt", 128 + signal.SIGINT),
        ("1 / 0", process.EXIT_BUG),
    ],
)
def test_a_main_exits_with_the_code_of_what_happened(body: str, code: int) -> None:
    ended = run(f"{PREAMBLE}\ndef main():\n    {body}\nrun_main(main)")
    assert ended.returncode == code
    assert ("Traceback (most recent call last)" in ended.stderr) == (code == process.EXIT_BUG)


def test_an_uncaught_error_is_one_line_with_its_reason_and_facts() -> None:
    raised = "raise errors.NotFound(error_pb2.REASON_UNKNOWN_TOPIC, 'no topic t', name='t', message_id='m', args='a')"
    (line,) = run(f"{PREAMBLE}\ndef main():\n    {raised}\nrun_main(main)").stderr.splitlines()
    logged = json.loads(line)
    assert (logged["level"], logged["reason"], logged["cause"]) == ("ERROR", "UNKNOWN_TOPIC", "no topic t")
    assert logged["facts"] == {"name": "t", "message_id": "m", "args": "a"}


def test_a_service_may_open_as_many_files_as_it_is_allowed_to() -> None:
    few = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 2000))\n"
    ended = run(f"{few}{PREAMBLE}\nrun_main(lambda: print(r.getrlimit(r.RLIMIT_NOFILE)))")
    assert ended.stdout == "(2000, 2000)\n"


def test_a_service_does_not_look_for_garbage_among_what_it_imported() -> None:
    ended = run(f"{PREAMBLE}\nimport gc\nrun_main(lambda: print(gc.get_freeze_count() > 1000, len(gc.get_objects())))")
    frozen, looked_through = ended.stdout.split()
    assert frozen == "True"
    assert int(looked_through) < 1000


def test_wrong_settings_are_told_one_a_line() -> None:
    ended = run(f"{PREAMBLE}\ndef main():\n    raise SettingsError(['A is not set', 'B is not set'])\nrun_main(main)")
    assert ended.stderr.splitlines() == ["A is not set", "B is not set"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_the_process_ends_by_itself(number: signal.Signals) -> None:
    code = (
        "from headrace.process import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    print('ready', flush=True); stop.wait(); print('stopped', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.send_signal(number)
        assert started.stdout.read() == "stopped\n"
        assert started.wait(10) == 0


def test_the_handlers_of_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with process.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_child_dies_with_its_parent() -> None:
    child = (
        "import os, sys, time; from headrace.process import die_with_parent\n"
        "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = f"import os, subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert psutil.pid_exists(pid)
        started.kill()
        eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_child_whose_parent_died_before_it_asked_dies_at_once() -> None:
    code = "from headrace.process import die_with_parent\ndie_with_parent(1 << 30)\nprint('lives')"
    ended = run(code)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
