"""What a replica tells of itself: numbers kept by the loop, sent once a second by a thread of their own."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import grpc
import prometheus_client

from headrace.errors import HeadraceError
from headrace.v1 import error_pb2, inference_pb2
from headrace.v1.deployment_manager_pb2 import ReportReplicaRequest
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.inference_pb2 import ReplicaState
from inferencer.timings import ABORTS, BATCHES, COMMITS, MODEL_VERSION, REBALANCES, AnswerTimes

log = logging.getLogger(__name__)

REPORT_S = 1.0
REPORT_TIMEOUT_S = 5.0
RATE_WINDOW_S = 5.0

ANSWERED = prometheus_client.Counter("headrace_inference_answered_total", "Records answered")
REFUSED = prometheus_client.Counter("headrace_inference_refused_total", "Records without an answer")
LAG = prometheus_client.Gauge("headrace_inference_lag", "Records waiting", ["partition"])


class Status:
    """Written by the loop, read by the reporter."""

    def __init__(self, slot: int, model_version: int) -> None:
        self._lock = threading.Lock()
        self._state = ReplicaState(slot=slot, model_version=model_version, state=inference_pb2.INFERENCE_STATE_STARTING)
        MODEL_VERSION.set(model_version)
        self._times = AnswerTimes()
        self._samples: list[tuple[float, int]] = []  # (time, records answered until then)

    def answered(self, answers: int, refusals: int) -> None:
        """Counts records."""
        ANSWERED.inc(answers)
        REFUSED.inc(refusals)
        with self._lock:
            self._state.answered_count += answers
            self._state.dead_letter_count += refusals

    def read(self, records: int) -> None:
        """A batch was read."""
        BATCHES.observe(records)
        with self._lock:
            self._times.read(records)

    def committed(self, *, but_last: bool) -> None:
        """The answers to what was read count; but_last: the last batch is still with the model."""
        COMMITS.inc()
        with self._lock:
            self._times.committed(but_last=but_last)

    def aborted(self) -> None:
        """What is not committed will be read again."""
        ABORTS.inc()
        with self._lock:
            self._times.dropped()

    def rebalanced(self) -> None:
        """Partitions were taken away."""
        REBALANCES.inc()

    def observe(self, partitions: Collection[int], lag: Mapping[int, int]) -> None:
        """Where the replica stands."""
        for partition, records in lag.items():
            LAG.labels(partition).set(records)
        for partition in set(self._state.partitions) - set(partitions):
            with suppress(KeyError):
                LAG.remove(partition)
        with self._lock:
            self._state.state = inference_pb2.INFERENCE_STATE_RUNNING
            self._state.partitions[:] = sorted(partitions)
            self._state.lag = sum(lag.values())

    def failed(self, error: HeadraceError) -> None:
        """The replica ends and will not come back."""
        with self._lock:
            self._state.state = inference_pb2.INFERENCE_STATE_FAILED
            self._state.error.CopyFrom(error.to_status())

    def stopped(self) -> None:
        """The replica ended as asked."""
        with self._lock:
            self._state.state = inference_pb2.INFERENCE_STATE_STOPPED
            self._state.ClearField("partitions")

    @property
    def is_running(self) -> bool:
        """Whether it answers: the model is loaded and the loop turns."""
        return bool(self._state.state == inference_pb2.INFERENCE_STATE_RUNNING)

    def snapshot(self) -> ReplicaState:
        """The state now, with the rate of the last seconds."""
        now = time.monotonic()
        with self._lock:
            self._samples.append((now, self._state.answered_count))
            while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW_S:
                self._samples.pop(0)
            (first_time, first), (last_time, last) = self._samples[0], self._samples[-1]
            seconds = last_time - first_time
            self._state.rows_per_second = (last - first) / seconds if seconds > 0 else 0.0
            copy = ReplicaState()
            copy.CopyFrom(self._state)
            p50_s, p99_s = self._times.quantiles(0.5, 0.99)
        copy.p50_duration.FromMicroseconds(round(p50_s * 1e6))
        copy.p99_duration.FromMicroseconds(round(p99_s * 1e6))
        copy.report_time.GetCurrentTime()
        return copy


class Reporter:
    """Sends the status until closed. A control plane that is away does not matter; a newer attempt does."""

    def __init__(
        self,
        channel: grpc.Channel,
        status: Status,
        *,
        inference_id: int,
        attempt: int,
        on_fenced: Callable[[], None],
    ) -> None:
        self._stub = DeploymentManagerStub(channel)
        self._status = status
        self._inference_id, self._attempt = inference_id, attempt
        self._on_fenced = on_fenced
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> "Reporter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(REPORT_TIMEOUT_S + 1)
        self._report()

    def _run(self) -> None:
        while not self._stop.wait(REPORT_S):
            self._report()

    def _report(self) -> None:
        request = ReportReplicaRequest(
            inference_id=self._inference_id, replica=self._status.snapshot(), attempt=self._attempt
        )
        try:
            self._stub.ReportReplica(request, timeout=REPORT_TIMEOUT_S)
        except HeadraceError as error:
            if error.reason == error_pb2.REASON_FENCED:
                self._on_fenced()
            else:
                log.info("the report did not arrive", extra={"cause": str(error)})
