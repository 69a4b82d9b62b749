"""`python -m benchmarks.spooling BOOTSTRAP FOLDER < STREAM`: spools a stream and prints the memory that it took.

Memory is what the process has allocated (RssAnon): the kernel keeps the pages of written files as long as it has room.
"""

import json
import sys
import threading
from pathlib import Path

from headrace.v1.stream_pb2 import Stream
from streams.kafka import KafkaSettings, await_kafka
from streams.spool import spool_stream

SAMPLE_EVERY_S = 0.01


class PeakMemory:
    """Watches this process's memory on a thread of its own; as a context manager."""

    def __init__(self) -> None:
        self.peak_mb = anonymous_mb()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-memory")

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._left.wait(SAMPLE_EVERY_S):
            self.peak_mb = max(self.peak_mb, anonymous_mb())


def anonymous_mb() -> float:
    """What the kernel counts as this process's own memory, in millions of bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kib) * 1024 / 1e6


def main() -> None:
    bootstrap, folder = sys.argv[1:]
    kafka = KafkaSettings(bootstrap)
    await_kafka(kafka)
    stream = Stream.FromString(sys.stdin.buffer.read())
    idle_mb = anonymous_mb()
    with PeakMemory() as memory:
        spool_stream(stream, kafka, Path(folder) / "spool")
    print(json.dumps({"idle_mb": idle_mb, "peak_mb": memory.peak_mb}))


if __name__ == "__main__":
    main()
