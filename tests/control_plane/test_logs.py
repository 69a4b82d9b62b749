"""Logs of workloads through DeploymentManager: what is stored, then what comes, until they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from control_plane.names import replica_name, trainer_name
from control_plane.store import Store, inferences, results
from headrace.errors import InvalidArgument, NotFound
from headrace.v1 import deployment_manager_pb2 as api
from tests.control_plane.managed import Managed, managed


async def lines(plane: Managed, **request: Any) -> dict[str, list[str]]:
    """Every line by its process, when the stream has ended."""
    found: dict[str, list[str]] = defaultdict(list)
    async with asyncio.timeout(20):
        async for response in plane.manager.WatchLogs(api.WatchLogsRequest(**request)):
            found[response.workload] += response.lines
    return dict(found)


async def test_the_logs_of_a_training_are_followed_over_its_attempts_to_its_end(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store, reconciled=True) as plane:
        world = plane.world
        (result_id,) = await asyncio.to_thread(world.training, "a")
        deployment_id = world.deployment_of(result_id).id
        following = asyncio.create_task(lines(plane, deployment_id=deployment_id))
        await asyncio.to_thread(world.trains, result_id)
        world.tell(trainer_name(result_id, 1), 75)
        await asyncio.to_thread(world.trains, result_id, 2)
        stored = await lines(plane, deployment_id=deployment_id, no_follow=True)
        assert not following.done()
        await asyncio.to_thread(world.finish, result_id)
        expected = {"train-1-a1": ["begun 1"], "train-1-a2": ["begun 2"]}
        assert stored == await following == expected
        # They stay readable.
        assert await lines(plane, deployment_id=deployment_id) == expected


async def test_the_logs_of_an_inference_end_with_it(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store, reconciled=True) as plane:
        one = await asyncio.to_thread(plane.world.inference, 2)
        following = asyncio.create_task(lines(plane, inference_id=one.id))
        for slot in (0, 1):
            await asyncio.to_thread(plane.world.answers, one.id, slot)
        store.write_now(lambda: inferences.stop(one.id))
        assert await following == {replica_name(one.id, slot): ["begun 1"] for slot in (0, 1)}


def written(home: Path, name: str, parts: Sequence[bytes]) -> None:
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / f"{name}.log").write_bytes(b"".join(parts))


async def test_lines_are_told_whole(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store) as plane:
        (result_id,) = await asyncio.to_thread(plane.world.training, "a")
        name = trainer_name(result_id, 1)
        many = [f"line {number}\n".encode() for number in range(100_000)]
        written(tmp_path, name, [*many, b"1/3\r2/3\r3/3\n", b"windows\r\n", b"\xff\n", b"x" * 300_000, b"\nlast"])
        store.write_now(lambda: results.start_attempt(result_id))
        found = await lines(plane, deployment_id=plane.world.deployment_of(result_id).id, no_follow=True)
        told = found[name]
        assert told[:100_000] == [line.decode().rstrip() for line in many]
        assert told[100_000:100_003] == ["3/3", "windows", "\ufffd"]
        assert "".join(told[100_003:-1]) == "x" * 300_000
        assert told[-1] == "last"


async def test_logs_are_asked_for_one_thing_that_exists(tmp_path: Path, store: Store) -> None:
    async with managed(tmp_path, store) as plane:
        for request in ({}, {"deployment_id": 1, "inference_id": 1}):
            with pytest.raises(InvalidArgument):
                await lines(plane, **request)
        for request in ({"deployment_id": 99}, {"inference_id": 99}):
            with pytest.raises(NotFound):
                await lines(plane, **request)
