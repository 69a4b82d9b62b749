"""`python -m benchmarks.collector HOME PORT`: the control plane's API on a home folder; nothing is started."""

import asyncio
import sys
from functools import partial
from pathlib import Path

from control_plane.__main__ import control_plane
from control_plane.settings import Settings
from control_plane.store import Store, configurations, deployments, models, results
from headrace.v1.configuration_pb2 import Configuration
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.model_pb2 import FRAMEWORK_PYTORCH, Model


def make_results(home: Path, count: int) -> list[int]:
    """The ids of new results that run, as far as their collector knows."""
    with Store.open(home / "headrace.db") as store:
        return store.write_now(partial(_made, count))


def _made(count: int) -> list[int]:
    wishes = [Model(name=f"model-{number}", framework=FRAMEWORK_PYTORCH, code="model = 1") for number in range(count)]
    model_ids = [models.create(wish).id for wish in wishes]
    configuration = configurations.create(Configuration(name="all", model_ids=model_ids))
    deployment = deployments.create(Deployment(configuration_id=configuration.id))
    for result_id in deployment.result_ids:
        results.start_attempt(result_id)
    return list(deployment.result_ids)


async def serve(home: Path, port: int) -> None:
    """Until the process is killed."""
    with Store.open(home / "headrace.db") as store:
        settings = Settings(home=home, kafka="127.0.0.1:1", listen=f"127.0.0.1:{port}")
        async with control_plane(settings, store):
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
