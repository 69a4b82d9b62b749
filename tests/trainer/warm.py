"""Workers that are forked from a process that has imported their framework: then a kill costs no import of it.

`python -m tests.trainer.warm SOCKET tensorflow|pytorch` is that process; SITE, run in a trainer before its own code,
has it start the trainer's wardens. A worker is confined, watched and killed by its warden as ever, and what one does
from its `ready` on it does here. What nobody kills is trained by workers as they are, and compared with.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.process import worker_environment

ROOT = Path(__file__).parents[2]
SITE = """
import sys
if sys.orig_argv[-1] == "trainer":
    import sandbox.process
    from tests.trainer import warm
    sandbox.process._start_warden = lambda config, control: warm.start_warden({folder!r}, config, control)
"""
MESSAGE_BYTES = 64 * 1024


def start_warden(folder: str, config: Mapping[str, Any], control: int) -> int:
    """In place of sandbox.process._start_warden."""
    framework = next(word for word in ("tensorflow", "pytorch") if word in config["command"])
    fds = (control, *config["worker_fds"], config["output_fd"], config["status_fd"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(f"{folder}/{framework}")
        socket.send_fds(asking, [json.dumps(config).encode()], fds)
        return os.pidfd_open(int(asking.recv(100)))


@contextmanager
def forking(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a control plane whose trainers have their workers forked."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(folder)))
    environ = worker_environment(folder, None)
    processes = []
    for framework in ("tensorflow", "pytorch"):
        command = [sys.executable, "-m", "tests.trainer.warm", str(folder / framework), framework]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE))
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield {"PYTHONPATH": str(folder)}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def serve(path: str, framework: str) -> None:
    """Starts a warden for everybody who asks, until it is killed."""
    import frameworks.worker

    if framework == "tensorflow":
        import frameworks.tensorflow
    else:
        import frameworks.pytorch
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for them here.
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            asking, _ = listener.accept()
            text, fds, _, _ = socket.recv_fds(asking, MESSAGE_BYTES, 5)
            pid = os.fork()
            if pid == 0:
                listener.close()
                asking.close()
                _be_warden(json.loads(text), fds, frameworks.worker.main)
            asking.send(str(pid).encode())
            asking.close()
            for fd in fds:
                os.close(fd)


def _be_warden(config: dict[str, Any], fds: list[int], main: Any) -> None:
    from sandbox import warden

    config["worker_fds"], config["output_fd"], config["status_fd"] = fds[1:3], fds[3], fds[4]
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(fds[0], 0)
        os.close(fds[0])
        warden._read_config()  # the same, but for the numbers of the pipes
        warden._read_config = lambda: config
        setattr(os, "execve", lambda *_: _work(config, main))  # noqa: B010  (its type says that it never returns)
        warden.main()
    finally:
        os._exit(0)


def _work(config: dict[str, Any], main: Any) -> None:
    """What the program of a worker does once it is confined."""
    os.environ.clear()
    os.environ.update(config["environment"])
    sys.argv = ["worker", config["command"][-3], *map(str, config["worker_fds"])]
    main()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
