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
from headrace.v1.inference_pb2 import Inference, ReplicaState
from inferencer.timings import ABORTS, BATCHES, COMMITS, MODEL_VERSION, REBALANCES, AnswerTimes

log = logging.getLogger(__name__)

REPORT_S = 1.0
REPORT_TIMEOUT_S = 5.0
RATE_WINDOW_S = 5.0
# A rebalance may cost a commit or two.
LOST_IN_A_ROW = 3
# A replica with records that wait is not ready when none of them was answered for so long.
STANDSTILL_S = 30.0
TURNING = (inference_pb2.INFERENCE_STATE_RUNNING, inference_pb2.INFERENCE_STATE_DEGRADED)

ANSWERED = prometheus_client.Counter("headrace_inference_answered_total", "Records answered")
REFUSED = prometheus_client.Counter("headrace_inference_refused_total", "Records without an answer")
LIVE = prometheus_client.Gauge("headrace_inference_live", "1: the process lives, whether it answers or not")
READY = prometheus_client.Gauge("headrace_inference_ready", "1: positions advance, or nothing waits")
LAG = prometheus_client.Gauge("headrace_inference_lag", "Records waiting", ["partition"])


class Status:
    """Written by the loop and by whoever loads models, read by the reporter."""

    def __init__(self, slot: int, *, standstill_s: float = STANDSTILL_S) -> None:
        self._lock = threading.Lock()
        self._state = ReplicaState(slot=slot, state=inference_pb2.INFERENCE_STATE_STARTING)
        self._times = AnswerTimes()
        self._samples: list[tuple[float, int]] = []  # (time, records answered until then)
        self._model_error: HeadraceError | None = None
        self._lost_error: HeadraceError | None = None
        self._hidden_error: HeadraceError | None = None
        self._contact_error: HeadraceError | None = None
        self._lost_count = 0
        self._standstill_s, self._advanced_at = standstill_s, time.monotonic()
        self.is_behind = False
        """Whether records wait for the replica."""
        LIVE.set(1)
        READY.set_function(lambda: self.is_ready)

    def wants(self, result_id: int, etag: str) -> None:
        """The result that is to answer, by the inference with this etag. What was wrong before no longer matters."""
        with self._lock:
            self._state.wanted_result_id, self._state.wish_etag = result_id, etag
            self._model_error = None

    def serves_metrics(self, address: str) -> None:
        """Where they are, HOST:PORT."""
        with self._lock:
            self._state.metrics_address = address

    def answers_with(self, result_id: int, version: int) -> None:
        """The model that answers from now on."""
        MODEL_VERSION.set(version)
        with self._lock:
            self._state.result_id, self._state.model_version = result_id, version

    def cannot_load(self, error: HeadraceError | None) -> None:
        """Why the model that is wanted does not answer; None: it does, or it is being loaded."""
        with self._lock:
            self._model_error = error

    def committed(self, answers: int, refusals: int, *, but_last: int) -> None:
        """Counts records whose outcome stands; but_last: so many batches, the last that were read, are not
        among them."""
        COMMITS.inc()
        ANSWERED.inc(answers)
        REFUSED.inc(refusals)
        with self._lock:
            self._lost_error, self._lost_count, self._contact_error = None, 0, None
            self._advanced_at = time.monotonic()
            self._state.answered_count += answers
            self._state.dead_letter_count += refusals
            self._times.answered(but_last=but_last)

    def answered(self, *, but_last: int) -> None:
        """Readers have the answers, but of so many batches, the last that were read."""
        with self._lock:
            self._times.answered(but_last=but_last)

    def lost(self, error: HeadraceError) -> None:
        """Nothing could be committed, once more: a rebalance does that once, trouble again and again."""
        with self._lock:
            self._lost_error = error
            self._lost_count += 1

    def hides(self, error: HeadraceError | None) -> None:
        """Why readers do not get what was committed; None: they do."""
        if error is not None:
            log.warning("readers do not get the answers", extra={"cause": str(error)})
        with self._lock:
            self._hidden_error = error

    def hears(self, error: HeadraceError | None) -> None:
        """Why Kafka was not heard of when it was last asked; None: it was. Who has nothing to commit learns it so."""
        with self._lock:
            self._contact_error = error

    def read(self, records: int) -> None:
        """A batch was read."""
        BATCHES.observe(records)
        with self._lock:
            self._times.read(records)

    def aborted(self) -> None:
        """What is not committed will be read again."""
        ABORTS.inc()
        with self._lock:
            self._times.dropped()

    def rebalanced(self) -> None:
        """Partitions were taken away."""
        REBALANCES.inc()

    def observe(self, partitions: Collection[int], lag: Mapping[int, int], *, behind: bool = False) -> None:
        """Where the replica stands; behind: records wait for it, and not it for records."""
        self.is_behind = behind
        for partition, records in lag.items():
            LAG.labels(partition).set(records)
        for partition in set(self._state.partitions) - set(partitions):
            with suppress(KeyError):
                LAG.remove(partition)
        with self._lock:
            self._state.state = self._running_state()
            self._state.partitions[:] = sorted(partitions)
            self._state.lag = sum(lag.values())
            if not self._state.lag:
                self._advanced_at = time.monotonic()

    def breaks_off(self, error: HeadraceError, *, for_good: bool) -> None:
        """The process ends; for good: it would end the same way if it were started again."""
        with self._lock:
            failed, starting = inference_pb2.INFERENCE_STATE_FAILED, inference_pb2.INFERENCE_STATE_STARTING
            self._state.state = failed if for_good else starting
            self._state.error.CopyFrom(error.to_status())

    def stopped(self) -> None:
        """The replica ended as asked."""
        with self._lock:
            self._state.state = inference_pb2.INFERENCE_STATE_STOPPED
            self._state.ClearField("partitions")

    @property
    def is_ready(self) -> bool:
        """Whether it runs, and its positions advance or nothing waits."""
        with self._lock:
            return self._is_ready()

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
            self._tell_trouble(copy)
            copy.live, copy.ready = True, self._is_ready()
            p50_s, p99_s = self._times.quantiles(0.5, 0.99)
        copy.p50_duration.FromMicroseconds(round(p50_s * 1e6))
        copy.p99_duration.FromMicroseconds(round(p99_s * 1e6))
        copy.report_time.GetCurrentTime()
        return copy

    def _is_ready(self) -> bool:
        is_running = self._state.state in TURNING and self._running_state() == inference_pb2.INFERENCE_STATE_RUNNING
        return is_running and time.monotonic() - self._advanced_at <= self._standstill_s

    def _running_state(self) -> inference_pb2.InferenceState:
        is_stuck = self._stuck_error() is not None
        return inference_pb2.INFERENCE_STATE_DEGRADED if is_stuck else inference_pb2.INFERENCE_STATE_RUNNING

    def _stuck_error(self) -> HeadraceError | None:
        """Why nobody gets answers."""
        lost = self._lost_error if self._lost_count >= LOST_IN_A_ROW else None
        return lost or self._contact_error or self._hidden_error

    def _tell_trouble(self, state: ReplicaState) -> None:
        if state.state not in TURNING:
            return
        state.state = self._running_state()
        if (error := self._stuck_error() or self._model_error) is not None:
            state.error.CopyFrom(error.to_status())


class Reporter:
    """Sends the status until closed. A control plane that is away does not matter; a newer attempt does.

    on_wish: called on the reporter's thread with the inference as it is wished for now.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        status: Status,
        *,
        inference_id: int,
        attempt: int,
        on_fenced: Callable[[], None],
        on_wish: Callable[[Inference], None],
    ) -> None:
        self._stub = DeploymentManagerStub(channel)
        self._status = status
        self._inference_id, self._attempt = inference_id, attempt
        self._on_fenced, self._on_wish = on_fenced, on_wish
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
            answer = self._stub.ReportReplica(request, timeout=REPORT_TIMEOUT_S)
        except HeadraceError as error:
            if error.reason == error_pb2.REASON_FENCED:
                self._on_fenced()
            else:
                log.info("the report did not arrive", extra={"cause": str(error)})
        else:
            self._on_wish(answer.inference)
