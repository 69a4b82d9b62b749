"""Where workloads (trainers and inferencers) run: the protocol that a machine or a Kubernetes cluster implements."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Workload:
    """A process to run. Its name is all that identifies it: the same name is never started twice."""

    name: str
    """`train-<result>-a<attempt>` or `infer-<inference>-<slot>`."""
    module: str
    """`trainer` or `inferencer`, started as `python -P -m MODULE`."""
    env: Mapping[str, str]
    """Its settings. The cluster adds HEADRACE_WORK_DIR, and HEADRACE_SHARED_DIR where one is shared, and what belongs
    to the place where it runs."""
    work: str
    """Name of the work folder, which later attempts find again."""
    shared_work: str = ""
    """Name of a folder that it shares with other workloads on this machine; empty: none."""
    attempt: int = 1
    spec_hash: str = ""
    """Changes with everything that only a restart applies."""


@dataclass(frozen=True)
class Exit:
    """How a workload ended: a code, or a signal, or neither where nobody saw it."""

    code: int | None = None
    signal: int | None = None
    stopped: bool = False
    """Whether the cluster had been told to stop it, or its machine went down: not its own failure."""

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "an unknown end" if self.code is None else f"exit code {self.code}"


@dataclass(frozen=True)
class Observed:
    """A workload that was started and is not forgotten: running while `exit` is None."""

    name: str
    attempt: int = 1
    spec_hash: str = ""
    pid: int | None = None
    exit: Exit | None = None

    @property
    def is_running(self) -> bool:
        return self.exit is None


@dataclass(frozen=True)
class LogChunk:
    """Bytes of a workload's output. Offsets count from its first byte, also when the oldest were thrown away."""

    data: bytes
    next_offset: int


@dataclass(frozen=True)
class Seen:
    """What there is: workloads by name, and the names of work folders."""

    workloads: Mapping[str, Observed] = field(default_factory=dict)
    works: frozenset[str] = frozenset()


class Cluster(Protocol):
    """Methods block for as long as files and requests take; asyncio code calls them through `AsyncCluster`."""

    def start(self, workload: Workload) -> None:
        """Start it, unless a workload of this name runs or has ended and is not forgotten. Returns at once."""

    def list(self) -> Seen:
        """Every workload and work folder, whoever started it."""

    def stop(self, name: str, grace_s: float) -> None:
        """Ask it to end (SIGTERM), and kill all of it after `grace_s`. Returns at once; repeat it until it is gone."""

    def forget(self, name: str) -> None:
        """Let the name be used again. Nothing happens while it runs. Its logs stay."""

    def remove_works(self, works: Collection[str]) -> None:
        """Delete these work folders."""

    def read_logs(self, name: str, offset: int) -> LogChunk:
        """What it wrote from this byte on, at most 256 KiB; empty when there is no more (yet)."""

    def remove_logs(self, owners: Collection[str]) -> None:
        """Delete the logs of all workloads that belonged to these resources (`names.owner_of`), which are gone."""


class AsyncCluster:
    """A cluster for asyncio code: the one place where its blocking methods are handed to threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def start(self, workload: Workload) -> None:
        await asyncio.to_thread(self._cluster.start, workload)

    async def list(self) -> Seen:
        return await asyncio.to_thread(self._cluster.list)

    async def stop(self, name: str, grace_s: float) -> None:
        await asyncio.to_thread(self._cluster.stop, name, grace_s)

    async def forget(self, name: str) -> None:
        await asyncio.to_thread(self._cluster.forget, name)

    async def remove_works(self, works: Collection[str]) -> None:
        await asyncio.to_thread(self._cluster.remove_works, works)

    async def read_logs(self, name: str, offset: int) -> LogChunk:
        return await asyncio.to_thread(self._cluster.read_logs, name, offset)

    async def remove_logs(self, owners: Collection[str]) -> None:
        await asyncio.to_thread(self._cluster.remove_logs, owners)
