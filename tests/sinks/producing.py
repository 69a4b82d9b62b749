"""A producer in a process of its own, for tests that kill it: sends the numbers 0 to 1999 and announces them.

`python -m tests.sinks.producing SERVERS TOPIC CONTROL STREAM_ID plain|transactional`
"""

import sys

import numpy as np

from sinks import RawSink
from tests.sinks.announced import DEPLOYMENT

ROWS = 2000
PART = 250
PARTITIONS = 2


def produce(servers: str, topic: str, control: str, stream_id: str, mode: str) -> None:
    """Send all numbers, in parts."""
    with RawSink(
        servers, topic, DEPLOYMENT, control_topic=control, partitions=PARTITIONS, stream_id=stream_id,
        transactional=mode == "transactional",
    ) as sink:  # fmt: skip
        for start in range(0, ROWS, PART):
            numbers = np.arange(start, start + PART)
            sink.send_batch(numbers, numbers % 10)
            sink.flush()
            print(start, flush=True)


if __name__ == "__main__":
    produce(*sys.argv[1:])
