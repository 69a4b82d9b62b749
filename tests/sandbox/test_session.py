"""Whatever a worker does, its feeder gets an answer or a typed error, in time."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import HeadraceError
from sandbox.limits import MIB, Limits
from sandbox.session import FitEpoch, FitJob, FitProgress, WorkerSession
from tests.sandbox.workers import processes_with, start_plain
from tests.support import eventually

Start = Callable[..., WorkerSession]
MODEL = "model = lambda x: x * 2"
# Code that finds the pipe to its feeder: the highest descriptor is the answers'.
PIPES = "import os\nfds = sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) >= 200)\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts sessions with the plain worker; none is left after the test."""
    sessions: list[WorkerSession] = []

    def start(**options: Any) -> WorkerSession:
        sessions.append(start_plain(folder=tmp_path / f"home-{len(sessions)}", **options))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSession]:
    """One worker for all tests that leave it alive."""
    with start_plain(folder=tmp_path_factory.mktemp("living")) as session:
        yield session


@pytest.fixture
def job(tmp_path: Path) -> FitJob:
    np.save(tmp_path / "samples.npy", np.ones((50, 2), np.float32))
    np.save(tmp_path / "labels.npy", np.zeros(50, np.int64))
    return FitJob(tmp_path / "samples.npy", tmp_path / "labels.npy")


def reason(session: WorkerSession, code: str, *, timeout_s: float = 30) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        session.build("", code, timeout_s=timeout_s)
    return caught.value


def facts(error: HeadraceError, *names: str) -> tuple[str, ...]:
    return (error.reason_name, *(error.metadata.get(name, "") for name in names))


def test_a_model_is_built_and_answers(living: WorkerSession) -> None:
    built = living.build("", MODEL)
    assert built.framework_version == "plain 1"
    assert built.signature.summary == "a function"
    outputs = living.predict({"": np.array([[1.0, 2.0]], np.float32)})
    np.testing.assert_array_equal(outputs["output"], [[2.0, 4.0]])


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("x = 1\nmodel = lambda: (", ("CODE_ERROR", "code", "2", "17")),
        ("def f():\n    return 1 / 0\nmodel = f()", ("CODE_ERROR", "code", "2", "12")),
        ("import sys\nsys.exit(0)", ("CODE_ERROR", "code", "2", "1")),
        ("raise KeyboardInterrupt", ("CODE_ERROR", "code", "1", "1")),
        ("class E(BaseException): pass\nraise E", ("CODE_ERROR", "code", "2", "1")),
        ("import json\njson.loads('[')", ("CODE_ERROR", "code", "2", "1")),
        ("x = '\0'", ("CODE_ERROR", "code", "", "")),
        ("(" * 1000 + ")" * 1000, ("CODE_ERROR", "code", "1", "")),
        ("x = [0] * 2**50", ("OUT_OF_MEMORY", "code", "1", "5")),
        ("x = 1\ny = 2\n\n", ("NO_MODEL", "code", "2", "1")),
        ("x = 1\nmodel = 7\ny = 3", ("NO_MODEL", "code", "2", "1")),
        ("def f(): pass\ndef g(): pass", ("NO_MODEL", "code", "2", "1")),
    ],
)
def test_wrong_code_is_answered_with_its_place_and_the_worker_goes_on(
    living: WorkerSession, code: str, wanted: Any
) -> None:
    error = reason(living, code)
    got = facts(error, "file", "line", "column")
    assert got[: len(wanted)] == tuple(w or g for w, g in zip(wanted, got, strict=True))
    assert living.build("", MODEL)


def test_an_error_in_the_imports_is_placed_there(living: WorkerSession) -> None:
    with pytest.raises(HeadraceError) as caught:
        living.build("import nothing_that_exists", MODEL)
    assert facts(caught.value, "file", "line") == ("CODE_ERROR", "imports", "1")


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("import os\nos._exit(0)", {"exit_code": "0"}),
        ("import os\nos._exit(3)", {"exit_code": "3"}),
        ("import ctypes\nctypes.string_at(0)", {"signal": "SIGSEGV", "file": "code", "line": "2"}),
        ("import os\nos.kill(os.getpid(), 9)", {"signal": "SIGKILL"}),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nos.abort()", {"signal": "SIGABRT"}),
    ],
)
def test_a_worker_that_ends_without_an_answer_has_crashed(start: Start, code: str, wanted: Any) -> None:
    session = start()
    error = reason(session, code)
    assert error.reason_name == "WORKER_CRASHED"
    assert error.metadata.items() >= wanted.items()
    # The failure lasts: there is nobody to ask any more.
    assert reason(session, MODEL) is error


@pytest.mark.parametrize(
    "code",
    [
        PIPES + "os.write(fds[-1], b'hello, feeder')",
        PIPES + "os.write(fds[-1], b'HRF1' + b'\\xff' * 60)",
        PIPES + "import time\nfor fd in fds: os.close(fd)\ntime.sleep(1000)",
        PIPES + "from sandbox.frames import *\n"
        "write_frame(open(fds[-1], 'wb', buffering=0, closefd=False), Frame('ready', {}))",
        PIPES + "from sandbox.frames import *\n"
        "write_frame(open(fds[-1], 'wb', buffering=0, closefd=False), Frame('result', {'signature': {'inputs': 3}}))",
        PIPES + "from sandbox.frames import *\n"
        "write_frame(open(fds[-1], 'wb', buffering=0, closefd=False), Frame('error', {'reason': 'INTERNAL_ERROR'}))",
    ],
)
def test_nonsense_in_the_pipe_is_a_breach_of_the_protocol(start: Start, code: str) -> None:
    assert reason(start(), code).reason_name == "WORKER_PROTOCOL"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import ctypes\nctypes.PyDLL(None).sleep(1000)",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import threading\nthreading.Event().wait()",
    ],
)
def test_code_without_an_end_is_ended_in_time(start: Start, code: str) -> None:
    session = start()
    session.wait_ready(60)
    began = time.monotonic()
    error = reason(session, code, timeout_s=0.5)
    assert facts(error, "timeout_s") == ("DEADLINE", "0.5")
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{session.pid}").exists()


def test_code_that_eats_memory_is_ended(start: Start) -> None:
    limits = Limits(memory_bytes=300 * MIB)
    error = reason(start(limits=limits), "x = []\nwhile True: x.append(b'x' * 2**24)")
    assert facts(error, "limit_bytes") == ("OUT_OF_MEMORY", str(300 * MIB))
    assert int(error.metadata["peak_bytes"]) > 300 * MIB


def test_code_that_never_stops_printing_is_ended(start: Start) -> None:
    session = start(limits=Limits(output_bytes=10**6))
    assert reason(session, "while True: print('x' * 1000)").reason_name == "OUTPUT_LIMIT"
    assert session.output.endswith("more bytes left out\n")


def test_code_that_starts_too_much_is_ended(start: Start) -> None:
    code = "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(1000)"
    assert reason(start(limits=Limits(processes=20)), code).reason_name == "WORKER_CRASHED"


def test_daemons_are_gone_when_the_session_is(start: Start, tmp_path: Path) -> None:
    marker = f"daemon-of-{tmp_path.name}"
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(1000)', '{marker}'])\n"
        "    os._exit(0)\n"
        "os.wait()\n" + MODEL
    )
    with start() as session:
        session.build("", code)
        eventually(lambda: processes_with(marker))
    assert processes_with(marker) == []


def test_a_fork_that_goes_on_answers_nothing(living: WorkerSession) -> None:
    living.build("", "import os\nos.fork()\n" + MODEL)
    assert living.build("", MODEL)


def test_what_the_code_prints_is_passed_on(start: Start) -> None:
    got: list[str] = []
    session = start(on_output=got.append)
    session.build("", "import os\nprint('one')\nos.system('echo two')\n" + MODEL)
    eventually(lambda: "".join(got) == "one\ntwo\n")
    assert session.output == "one\ntwo\n"


def test_a_batch_may_be_sent_while_the_answer_to_the_last_one_waits(living: WorkerSession) -> None:
    session = living
    session.build("", MODEL)
    batch = np.arange(2**21, dtype=np.float32)  # 8 MiB each way, far more than the pipes hold
    for _ in range(3):
        session.send_predict({"": batch})
    for _ in range(3):
        np.testing.assert_array_equal(session.receive_predict()["output"], batch * 2)


def test_a_batch_that_fails_leaves_the_next_ones_answered(living: WorkerSession) -> None:
    session = living
    session.build("", "def model(x):\n    if x[0] < 0: raise ValueError('negative')\n    return x")
    for value in (1, -1, 2):
        session.send_predict({"": np.array([value])})
    assert session.receive_predict()["output"] == [1]
    with pytest.raises(HeadraceError) as caught:
        session.receive_predict()
    assert facts(caught.value, "line") == ("CODE_ERROR", "2")
    assert session.receive_predict()["output"] == [2]


def test_an_answer_can_be_waited_for_in_steps(living: WorkerSession) -> None:
    living.build("", "import time\ndef model(x): time.sleep(0.5); return x")
    living.send_predict({"": np.zeros(1)})
    assert not living.answer_ready(0.01)
    assert living.answer_ready(30)
    assert living.receive_predict()["output"] == [0]


def test_a_prediction_that_hangs_ends_with_its_deadline(start: Start) -> None:
    session = start()
    session.build("", "import time\ndef model(x): time.sleep(1000)")
    with pytest.raises(HeadraceError) as caught:
        session.predict({"": np.zeros(1)}, timeout_s=0.3)
    assert caught.value.reason_name == "DEADLINE"
    assert not session.alive


def test_epochs_come_in_order_and_nan_is_kept(living: WorkerSession, job: FitJob) -> None:
    session = living
    session.build("", MODEL)
    events = list(session.fit(FitJob(**{**vars(job), "fit_args": "epochs=3"})))
    epochs = [event for event in events if isinstance(event, FitEpoch)]
    assert [(epoch.number, epoch.step) for epoch in epochs] == [(1, 50), (2, 100), (3, 150)]
    assert epochs[0].metrics["training"]["loss"] == 0.5
    assert math.isnan(epochs[0].metrics["training"]["odd"])


def test_progress_says_how_far_a_training_is(living: WorkerSession, job: FitJob) -> None:
    session = living
    session.build("", "import time\ndef model(x): time.sleep(0.03); return x")
    events = list(session.fit(job))
    steps = [event for event in events if isinstance(event, FitProgress)]
    assert 2 <= len(steps) <= 5  # at once, and then every half second
    assert all((event.epoch, event.epochs, event.steps) == (1, 1, 50) for event in steps)
    assert 1 < steps[-1].rows_per_second < 34
    left_s = steps[-1].left_s(batch_size=1)
    assert left_s == pytest.approx((50 - steps[-1].step) / steps[-1].rows_per_second)


@pytest.mark.parametrize(("value", "epoch", "step"), [("nan", "1", "1"), ("inf", "1", "1"), ("-inf", "1", "1")])
def test_a_loss_that_is_no_number_ends_a_training(
    living: WorkerSession, job: FitJob, value: str, epoch: str, step: Any
) -> None:
    session = living
    session.build("", f"model = lambda x: x * float('{value}')")
    with pytest.raises(HeadraceError) as caught:
        list(session.fit(job))
    assert facts(caught.value, "epoch", "step") == ("NAN_LOSS", epoch, step)


def test_a_training_is_stopped_after_its_step(start: Start, job: FitJob) -> None:
    session, stop = start(), threading.Event()
    session.build("", "import time\ndef model(x): time.sleep(0.05); return x")
    events = session.fit(FitJob(**{**vars(job), "fit_args": "epochs=1000"}), stop=stop)
    next(events)
    stop.set()
    with pytest.raises(HeadraceError) as caught:
        list(events)
    assert caught.value.reason_name == "CANCELLED"
    assert not Path(f"/proc/{session.pid}").exists()


def test_a_training_that_does_not_listen_is_killed(start: Start, job: FitJob) -> None:
    session, stop = start(), threading.Event()
    session.build("", "import ctypes\ndef model(x): ctypes.PyDLL(None).sleep(1000)")
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(HeadraceError) as caught:
        list(session.fit(job, stop=stop))
    assert caught.value.reason_name == "CANCELLED"
    assert time.monotonic() - began < 5


def test_a_training_ends_with_its_deadline(start: Start, job: FitJob) -> None:
    session = start()
    session.build("", "import time\ndef model(x): time.sleep(1000)")
    with pytest.raises(HeadraceError) as caught:
        list(session.fit(job, deadline_s=0.3))
    assert caught.value.reason_name == "DEADLINE"


def test_a_worker_killed_while_it_trains_has_crashed(start: Start, job: FitJob) -> None:
    session = start()
    session.build("", "import time\ndef model(x): time.sleep(0.05); return x")
    events = session.fit(job)
    next(events)
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(HeadraceError) as caught:
        list(events)
    assert facts(caught.value, "signal") == ("WORKER_CRASHED", "SIGKILL")


def test_a_kill_from_another_thread_ends_the_wait(start: Start) -> None:
    session = start()
    session.build("", "import time\ndef model(x): time.sleep(1000)")
    threading.Timer(0.3, session.kill).start()
    with pytest.raises(HeadraceError) as caught:
        session.predict({"": np.zeros(1)})
    assert caught.value.reason_name == "CANCELLED"


@pytest.mark.parametrize("name", ["../escaped", "", ".", "missing", "link"])
def test_a_file_outside_its_folder_is_not_taken(start: Start, tmp_path: Path, name: str) -> None:
    session, folder = start(), tmp_path / "out"
    folder.mkdir()
    (tmp_path / "escaped").touch()
    (folder / "link").symlink_to("/etc/passwd")
    session.build("", f"model = lambda x: [dict(name={name!r}, media_type='')]")
    with pytest.raises(HeadraceError) as caught:
        session.save(folder)
    assert caught.value.reason_name == "WORKER_PROTOCOL"
