"""The store's clock: microseconds since 1970 UTC. For people to read; order comes from ids and sequence numbers."""

import time


def now_us() -> int:
    return time.time_ns() // 1000
