"""Failpoints, each in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from headrace.errors import Internal
from headrace.failpoints import fail_at
for number in range(3):
    try:
        fail_at("here")
        fail_at("there")
        print(number, flush=True)
    except Internal as error:
        print(error.metadata["failpoint"], flush=True)
"""


def run(fail: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEADRACE_FAIL": fail, **more}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    ("fail", "code", "output"),
    [
        ("", 0, "0 1 2"),
        ("elsewhere:exit@1", 0, "0 1 2"),
        ("here:exit@1", -signal.SIGKILL, ""),
        ("here:exit", -signal.SIGKILL, ""),
        ("there:exit@3", -signal.SIGKILL, "0 1"),
        ("here:exit@9", 0, "0 1 2"),
        ("here:raise@2", 0, "0 here 2"),
        ("here:raise@1,there:raise@2", 0, "here 1 there"),
        ("here:raise@1,here:raise@3", 0, "here 1 here"),
        ("here:delay@1=0.05", 0, "0 1 2"),
    ],
)
def test_a_process_fails_where_and_when_it_was_told(fail: str, code: int, output: str) -> None:
    ended = run(fail)
    assert (ended.returncode, ended.stdout.split()) == (code, output.split())


def test_with_a_folder_each_entry_fires_once_so_that_the_next_process_goes_on(tmp_path: Path) -> None:
    folder = {"HEADRACE_FAIL_FOLDER": str(tmp_path)}
    fail = "here:exit@2,there:exit@2"
    assert [run(fail, **folder).stdout.split() for _ in range(3)] == [["0"], ["0"], ["0", "1", "2"]]


def test_a_process_that_hangs_ignores_what_would_end_it_politely() -> None:
    code = (
        "import signal; from headrace.failpoints import fail_at\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True))\n"
        "print('begun', flush=True); fail_at('here'); print('over', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "HEADRACE_FAIL": "here:hang"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        assert process.poll() is None
        process.kill()
        assert process.stdout.read() == ""
