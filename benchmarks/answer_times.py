"""How long an answer takes, from the call that sends a question to a reader with read_committed that has its answer.

One process sends at a fixed rate and reads; the replica, or the bare loop, answers beside it. Nothing counts before all
of the first questions are answered and the replica has its spare worker: until then processes start, models trace, the
broker compiles what it runs often, and frameworks are imported. The sender is librdkafka with its defaults.
"""

import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from benchmarks.inference import MODELS, PARTITIONS, answering, bare_command, download, platform, trained
from benchmarks.replica_processes import await_spare
from benchmarks.report import Ratio
from headrace.client import connect
from streams.kafka import KafkaSettings, ensure_topics

ABOUT = """\
From the call that sends a question, by a librdkafka with its defaults (it waits 5 ms for company), to a reader with
read_committed that has its answer; all on two cores. Counted once the replica has its spare worker and the broker is
warm: 4,000 questions before, and the first three seconds of each rate left out."""
MODEL = "keras"
ROUNDS = 3
RATES = (400, 4000)
SECONDS = 8.0
# Of each rate; what a rate begins with is not counted.
SETTLING_S = 3.0
FIRST_QUESTIONS = 4000
LIMIT_S = 90.0
LOOPS = ("bare", "AT_LEAST_ONCE", "EXACTLY_ONCE")
EXACTLY_ONCE_P50_S = 0.04


@dataclass(frozen=True)
class Answering:
    """Somebody answers."""

    target: str
    """The topic of the answers."""
    settle: Callable[[], None]
    """Returns when it does nothing else any more."""


# Loop, topic and number of the questions → who answers them, while it does.
Answerer = Callable[[str, str, int], AbstractContextManager[Answering]]


@dataclass(frozen=True)
class Times:
    """Seconds within which half of the answers, and all but one of a hundred, were there."""

    p50_s: float
    p99_s: float


def measure() -> list[Ratio]:
    """Both quantiles at both rates: of both guarantees, against the bare loop."""
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as state:
        kafka = KafkaSettings(state.kafka)
        with connect(state.address, timeout_s=60) as channel:
            result = trained(kafka, channel, MODEL)
            weights = download(channel, result, Path(folder))

            @contextmanager
            def answerer(loop: str, source: str, count: int) -> Iterator[Answering]:
                if loop == "bare":
                    with _bare(kafka, source, count, weights) as target:
                        yield Answering(target, settle=lambda: None)
                else:
                    with answering(kafka, channel, source, MODEL, result.id, loop) as inference:
                        yield Answering(inference.output_topic, settle=lambda: await_spare(kafka, inference))

            rounds = [{loop: _times(kafka, loop, answerer) for loop in LOOPS} for _ in range(ROUNDS)]
    return [ratio for rate in RATES for ratio in _ratios(rate, rounds)]


def _ratios(rate: int, rounds: list[dict[str, dict[int, Times]]]) -> list[Ratio]:
    bare, at_least_once, exactly_once = ([one[loop][rate] for one in rounds] for loop in LOOPS)
    of = f"answer time at {rate:,} rows/s, rows of 28×28 through Dense128-Dense10, {MODEL}"
    own = [time.p50_s / EXACTLY_ONCE_P50_S for time in exactly_once]
    p50 = _ms([time.p50_s for time in exactly_once])
    return [
        _ratio(f"p50 {of}, AT_LEAST_ONCE, against a bare loop", "p50_s", at_least_once, bare, "≤ 1.5 ×"),
        _ratio(f"p99 {of}, AT_LEAST_ONCE, against a bare loop", "p99_s", at_least_once, bare, "≤ 2 ×"),
        Ratio(
            f"p50 {of}, EXACTLY_ONCE, to a reader with read_committed, against 40 ms", p50, "40 ms", tuple(own), "≤ 1 ×"
        ),
        _ratio(f"p99 {of}, EXACTLY_ONCE, the same, against a bare loop", "p99_s", exactly_once, bare, "–"),
    ]


def _ratio(what: str, quantile: str, ours: list[Times], bare: list[Times], target: str) -> Ratio:
    mine, theirs = ([getattr(times, quantile) for times in side] for side in (ours, bare))
    return Ratio(what, _ms(mine), _ms(theirs), tuple(a / b for a, b in zip(mine, theirs, strict=True)), target)


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f} ms"


def _times(kafka: KafkaSettings, loop: str, answerer: Answerer) -> dict[int, Times]:
    """By rate."""
    source = f"ask-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {source: PARTITIONS})
    count = FIRST_QUESTIONS + sum(int(rate * SECONDS) for rate in RATES)
    with answerer(loop, source, count) as one, Conversation(kafka, source, one.target) as conversation:
        conversation.ask(FIRST_QUESTIONS, 1000)
        conversation.await_answers(LIMIT_S)
        one.settle()
        return {rate: _at_rate(conversation, rate) for rate in RATES}


def _at_rate(conversation: "Conversation", rate: int) -> Times:
    first = conversation.asked
    conversation.ask(int(rate * SECONDS), rate)
    conversation.await_answers(LIMIT_S)
    counted = conversation.seconds()[first + int(rate * SETTLING_S) :]
    return Times(float(np.quantile(counted, 0.5)), float(np.quantile(counted, 0.99)))


class Conversation:
    """Asks on one topic and reads answers on another. A question's number is its key."""

    def __init__(self, kafka: KafkaSettings, source: str, target: str) -> None:
        self._source = source
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": "answers",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
            }
        )
        self._consumer.assign([TopicPartition(target, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        self._values = [sample.tobytes() for sample in MODELS[MODEL].samples(100)]
        self._asked_at: list[float] = []
        self._answered_at: dict[int, float] = {}
        self._ended = threading.Event()
        self._reading = threading.Thread(target=self._read, name="answers")

    def __enter__(self) -> "Conversation":
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._reading.join()
        self._consumer.close()

    @property
    def asked(self) -> int:
        """Questions so far."""
        return len(self._asked_at)

    def ask(self, count: int, rate: int) -> None:
        """Sends questions, each at its time."""
        began = time.perf_counter()
        for number in range(count):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            key = self.asked
            self._asked_at.append(time.perf_counter())
            self._producer.produce(self._source, self._values[key % 100], b"%d" % key, key % PARTITIONS)
            self._producer.poll(0)
        self._producer.flush()

    def await_answers(self, timeout_s: float) -> None:
        """Until every question has its answer."""
        deadline = time.monotonic() + timeout_s
        while len(self._answered_at) < self.asked:
            assert time.monotonic() < deadline, f"{len(self._answered_at)} answers for {self.asked} questions"
            time.sleep(0.05)

    def seconds(self) -> list[float]:
        """Of each question, in order."""
        return [self._answered_at[number] - at for number, at in enumerate(self._asked_at)]

    def _read(self) -> None:
        while not self._ended.is_set():
            for message in self._consumer.consume(1, 0.1) + self._consumer.consume(1000, 0):
                if message.error() is None:
                    self._answered_at.setdefault(int(message.key() or b""), time.perf_counter())


@contextmanager
def _bare(kafka: KafkaSettings, source: str, count: int, weights: Path) -> Iterator[str]:
    target = f"bare-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS})
    command = bare_command(kafka, MODELS[MODEL].baseline, source, target, count, weights)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield target
        process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
