"""`python -m tests.headrace.served`: a server as a process, with the limits that all of ours have. Prints its port."""

import asyncio

from tests.headrace.servicers import Catalog, Collector, on_loopback


async def serve() -> None:
    """Until the process is killed."""
    async with on_loopback(Catalog(), Collector()) as running:
        print(running.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
