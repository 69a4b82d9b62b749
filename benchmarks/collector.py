"""`python -m benchmarks.collector HOME PORT`: the control plane's API on a home folder; nothing is started."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from control_plane.__main__ import control_plane
from control_plane.settings import Settings
from control_plane.store import Store, configurations, deployments, models, results
from headrace.process import run_main
from headrace.v1.configuration_pb2 import Configuration
from headrace.v1.deployment_pb2 import Deployment, TrainingSettings
from headrace.v1.model_pb2 import FRAMEWORK_PYTORCH, FRAMEWORK_TENSORFLOW, Model
from sandbox.session import FrameworkName

FRAMEWORKS = {"tensorflow": FRAMEWORK_TENSORFLOW, "pytorch": FRAMEWORK_PYTORCH}


def make_results(
    home: Path, models: Sequence[tuple[FrameworkName, str]], settings: TrainingSettings | None = None
) -> list[int]:
    """The ids of new results of one deployment, which run, as far as their collector knows; a model is its code."""
    with Store.open(home / "headrace.db") as store:
        return store.write_now(partial(_made, models, settings))


def _made(wanted: Sequence[tuple[FrameworkName, str]], settings: TrainingSettings | None) -> list[int]:
    wishes = [
        Model(name=f"model-{number}", framework=FRAMEWORKS[framework], code=code)
        for number, (framework, code) in enumerate(wanted)
    ]
    model_ids = [models.create(wish).id for wish in wishes]
    configuration = configurations.create(Configuration(name="all", model_ids=model_ids))
    deployment = deployments.create(Deployment(configuration_id=configuration.id, settings=settings))
    for result_id in deployment.result_ids:
        results.start_attempt(result_id)
    return list(deployment.result_ids)


class Collector:
    """A process that is started again on the same home and the same port."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Blocks until it listens."""
        command = [sys.executable, "-P", "-m", "benchmarks.collector", str(self._home), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    @property
    def memory_mb(self) -> float:
        """What it has in memory."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6


def free_port() -> int:
    """A port that nothing uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve(home: Path, port: int) -> None:
    """Until the process is killed."""
    with Store.open(home / "headrace.db") as store:
        settings = Settings(home=home, kafka="127.0.0.1:1", listen=f"127.0.0.1:{port}")
        async with control_plane(settings, store):
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    run_main(lambda: asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]))))
