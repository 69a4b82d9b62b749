"""`python -m benchmarks.watchers ADDRESS RESULT READING IDLE`: so many watchers of a result, of which some never read.

Prints a line when all of them have been told something, and then how many events the reading ones got, once its input
is closed.
"""

import asyncio
import sys
from typing import Any

import grpc

from headrace.v1.result_collector_pb2 import WatchResultsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub

# A server takes a hundred calls on a connection.
PER_CONNECTION = 50


class Crowd:
    """Watchers of one result."""

    def __init__(self, result_id: int) -> None:
        self._request = WatchResultsRequest(result_id=result_id)
        self._told: list[int] = []
        self._all_told = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: list[Any] = []

    async def join(self, address: str, reading: int, idle: int) -> None:
        """Blocks until each of those that read has got its first event."""
        self._told = [0] * reading
        for first in range(0, reading + idle, PER_CONNECTION):
            stub: Any = ResultCollectorStub(grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
            for number in range(first, min(first + PER_CONNECTION, reading + idle)):
                if number < reading:
                    self._tasks.append(asyncio.create_task(self._read(stub, number)))
                else:
                    self._idle.append(stub.WatchResults(self._request))
        await self._all_told.wait()

    async def _read(self, stub: Any, number: int) -> None:
        async for _ in stub.WatchResults(self._request):
            self._told[number] += 1
            if self._told[number] == 1 and all(self._told):
                self._all_told.set()

    @property
    def least_told(self) -> int:
        """How many events the one got that got fewest."""
        return min(self._told)


async def main() -> None:
    address, result_id, reading, idle = sys.argv[1:]
    crowd = Crowd(int(result_id))
    await crowd.join(address, int(reading), int(idle))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(crowd.least_told, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
