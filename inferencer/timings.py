"""How long records were in the product, and the metrics of a replica's phases."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import prometheus_client

WINDOW_S = 10.0
_BATCH_SIZES = (1, 4, 16, 64, 256, 512, 1024, 4096, 16384)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

PHASES = prometheus_client.Histogram(
    "headrace_inference_phase_seconds", "Time of each phase of a batch", ["phase"], buckets=_SECONDS
)
BATCHES = prometheus_client.Histogram("headrace_inference_batch_rows", "Records of a batch", buckets=_BATCH_SIZES)
ANSWER_SECONDS = prometheus_client.Histogram(
    "headrace_inference_answer_seconds", "From reading a batch until its answers are seen", buckets=_SECONDS
)
COMMITS = prometheus_client.Counter("headrace_inference_transactions_total", "Commits of answers and offsets")
ABORTS = prometheus_client.Counter("headrace_inference_aborts_total", "Times that answers were dropped and read again")
REBALANCES = prometheus_client.Counter("headrace_inference_rebalances_total", "Times that partitions were taken away")
MODEL_VERSION = prometheus_client.Gauge("headrace_inference_model_version", "The version of the model that answers")


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Measures a phase: decode, predict, produce, commit."""
    with PHASES.labels(name).time():
        yield


class AnswerTimes:
    """The times of the batches that were answered in the last seconds, weighted by their records."""

    def __init__(self) -> None:
        self._open: list[tuple[float, int]] = []  # (read at, records), not answered
        self._done: deque[tuple[float, float, int]] = deque()  # (answered at, seconds, records)

    def read(self, records: int) -> None:
        """A batch was read."""
        self._open.append((monotonic(), records))

    def answered(self, *, but_last: int) -> None:
        """Its answers are seen. but_last: so many of the batches that were read last are still on their way."""
        now = monotonic()
        count = len(self._open) - but_last
        for read_at, records in self._open[:count]:
            ANSWER_SECONDS.observe(now - read_at)
            self._done.append((now, now - read_at, records))
        del self._open[:count]
        self._forget(now)

    def dropped(self) -> None:
        """What was read is read again."""
        self._open.clear()

    def quantiles(self, *parts: float) -> list[float]:
        """Seconds within which such parts of the records were answered; zeros where none was."""
        self._forget(monotonic())
        times = sorted((seconds, records) for _, seconds, records in list(self._done))
        total = sum(records for _, records in times)
        return [_quantile(times, part * total) for part in parts]

    def _forget(self, now: float) -> None:
        while self._done and self._done[0][0] < now - WINDOW_S:
            self._done.popleft()


def _quantile(times: list[tuple[float, int]], rank: float) -> float:
    passed = 0
    for seconds, records in times:
        passed += records
        if passed >= rank:
            return seconds
    return 0.0
