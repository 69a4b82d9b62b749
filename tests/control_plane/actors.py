"""Workloads that do as they are told, and a program that reconciles them until it is killed.

The file `do` in an actor's work folder holds its exit code; SIGTERM ends it with 0.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from control_plane.cluster import AsyncCluster, Workload
from control_plane.local import LocalCluster
from control_plane.reconciler import Place, Reconciler
from control_plane.store import Store

ACTOR = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("begun", os.environ["HEADRACE_ATTEMPT"], flush=True)
while not os.path.exists("do"):
    time.sleep(0.01)
with open("do") as file:
    code = int(file.read())
os.unlink("do")
sys.exit(code)
"""


def actor(workload: Workload) -> Sequence[str]:
    return sys.executable, "-I", "-S", "-c", ACTOR


async def main() -> None:
    """`python -m tests.control_plane.actors HOME`."""
    home = Path(sys.argv[1])
    with Store.open(home / "headrace.db") as store:
        cluster = AsyncCluster(LocalCluster(home, command=actor))
        place = Place("127.0.0.1:1", "127.0.0.1:1", max_trainings=2)
        await Reconciler(store, cluster, place).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main())
