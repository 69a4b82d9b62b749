"""What trainers report: that kills of the collector lose and double no event, and that watchers hold up nobody."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from benchmarks.collector import Collector, make_results
from benchmarks.report import Ratio
from control_plane.store import Store, reports
from headrace.client import connect
from headrace.v1.result_collector_pb2 import ReportRequest, ReportResponse
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Epoch, Metrics, SplitMetrics
from trainer.journal import Journal
from trainer.report import Reporter

REPORTERS = 20
EVENTS = int(os.environ.get("HEADRACE_BENCH_EVENTS", "1000000"))
KILLS = 30
LIMIT_S = 1800.0
READING, IDLE = 900, 100
WATCHED_EVENTS = 200
PAUSE_S = 0.2


@contextmanager
def _collecting(results: int) -> Iterator[tuple[Collector, list[int], Path]]:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        ids = make_results(home, [("pytorch", "model = 1")] * results)
        collector = Collector(home)
        try:
            yield collector, ids, home
        finally:
            collector.kill()


def _epoch(number: int) -> Epoch:
    """Its loss is its number, so that it is seen whose it is."""
    metrics = SplitMetrics(splits={"training": Metrics(values={"loss": float(number)})})
    return Epoch(number=number, step=number, metrics=metrics)


def measure() -> list[Ratio]:
    """Events that were lost or doubled while the collector was killed."""
    each = EVENTS // REPORTERS
    with _collecting(REPORTERS) as (collector, ids, home), ThreadPoolExecutor(REPORTERS) as pool:
        started = time.monotonic()
        told = [0] * REPORTERS
        jobs = [pool.submit(_report, collector.address, ids, number, each, told, home) for number in range(REPORTERS)]
        for kill in range(1, KILLS + 1):
            while sum(told) < EVENTS * kill // (KILLS + 1) and not all(job.done() for job in jobs):
                time.sleep(0.01)
            collector.kill()
            collector.start()
        assert all(job.result() for job in jobs)
        seconds = time.monotonic() - started
        collector.kill()
        lost, doubled = _compared(home, ids, each)
    ratio = Ratio(
        f"{EVENTS:,} events of {REPORTERS} reporters, the collector killed {KILLS} times, in {seconds:.0f} s:"
        " lost + doubled",
        f"{lost} + {doubled}",
        f"{EVENTS:,} reported",
        (float(lost + doubled),),
        "0",
    )
    return [ratio]


def _report(address: str, ids: list[int], number: int, count: int, told: list[int], home: Path) -> bool:
    """Whether the collector has stored all events of one reporter."""
    with (
        connect(address) as channel,
        Journal(home / f"reports-{number}.journal") as journal,
        Reporter(ResultCollectorStub(channel), journal, result_id=ids[number], attempt=1, on_refused=print) as reporter,
    ):
        if not reporter.await_hello(LIMIT_S, threading.Event()):
            return False
        for epoch in range(1, count + 1):
            reporter.epoch(_epoch(epoch))
            told[number] = epoch
        return reporter.flush(LIMIT_S)


def _compared(home: Path, ids: list[int], each: int) -> tuple[int, int]:
    """How many events are missing, and how many are there more than once or as others."""
    lost = doubled = 0
    with Store.open(home / "headrace.db") as store:
        for result_id in ids:
            stored = store.read_now(partial(reports.epoch_page, result_id, after_number=0, limit=2 * each))
            right = {epoch.number for epoch in stored if epoch.metrics == _epoch(epoch.number).metrics}
            lost += each - len(right & set(range(1, each + 1)))
            doubled += len(stored) - len(right)
    return lost, doubled


def measure_watched() -> list[Ratio]:
    """How long an acknowledgement takes while many watch, and what they cost in memory."""
    with (
        _collecting(1) as (collector, (result_id,), _),
        connect(collector.address) as channel,
        _Reports(ResultCollectorStub(channel), result_id) as reporting,
    ):
        alone_ms = reporting.acknowledged_ms(WATCHED_EVENTS // 4)
        with _crowd(collector.address, result_id) as told:
            before_mb = collector.memory_mb
            watched_ms = reporting.acknowledged_ms(WATCHED_EVENTS)
            after_mb = collector.memory_mb
            assert told() >= WATCHED_EVENTS, "the reading ones were told everything"
    what = f"{READING + IDLE:,} watchers of one run, {IDLE} of which never read, {1 / PAUSE_S:g} events a second"
    return [
        Ratio(
            f"{what}: a report is acknowledged (p99), against 50 ms; without watchers {_p99(alone_ms):.1f} ms",
            f"{_p99(watched_ms):.1f} ms",
            "50 ms",
            (_p99(watched_ms) / 50,),
            "≤ 1 ×",
        ),
        Ratio(
            f"{what}: memory of the control plane after {WATCHED_EVENTS} events, against that before them",
            f"{after_mb:.0f} MB",
            f"{before_mb:.0f} MB",
            (after_mb / before_mb,),
            "bounded",
        ),
    ]


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


class _Reports:
    """One connection of a trainer, an event at a time."""

    def __init__(self, collector: ResultCollectorStub, result_id: int) -> None:
        self._collector, self._result_id = collector, result_id
        self._requests: SimpleQueue[ReportRequest | None] = SimpleQueue()
        self._seq = 0

    def __enter__(self) -> "_Reports":
        self._answers: Iterator[ReportResponse] = self._collector.Report(iter(self._requests.get, None))
        self._tell(ReportRequest(seq=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)

    def acknowledged_ms(self, events: int) -> list[float]:
        """How long each of some events took, with a pause between them."""
        times = []
        for _ in range(events):
            self._seq += 1
            began = time.perf_counter()
            answer = self._tell(ReportRequest(seq=self._seq, epoch=_epoch(self._seq)))
            times.append(1000 * (time.perf_counter() - began))
            assert answer.acked_seq == self._seq
            time.sleep(PAUSE_S)
        return times

    def _tell(self, request: ReportRequest) -> ReportResponse:
        request.result_id, request.attempt = self._result_id, 1
        self._requests.put(request)
        return next(self._answers)


@contextmanager
def _crowd(address: str, result_id: int) -> Iterator["_Told"]:
    command = [sys.executable, "-P", "-m", "benchmarks.watchers", address, str(result_id), str(READING), str(IDLE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield _Told(process)
        finally:
            process.kill()


class _Told:
    """Ends the watching."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def __call__(self) -> int:
        """The fewest events that a reading watcher got."""
        out, _ = self._process.communicate(timeout=60)
        return int(out)
