"""Says whether each record got exactly one answer or one dead letter, in order: out ∪ dead letters = in."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import orjson
from confluent_kafka import TopicPartition

from headrace.errors import Unavailable
from headrace.v1 import error_pb2
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, headers_of, log_ends
from tests.inferencer.faults.load import REASONS, Kind, Load
from tests.support import eventually


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was read about one question, at its place in its topic."""

    topic: str
    partition: int
    offset: int
    source: tuple[int, int]
    """Partition and offset of the question."""
    stream: tuple[int, int]
    """What the question said about itself."""
    version: int
    """Of the model."""
    reason: str
    """Of a dead letter."""
    value: bytes | None


def outcome_of(message: Message) -> Outcome:
    """Of an answer or a dead letter."""
    headers = {name: value for name, value in headers_of(message) if isinstance(value, bytes)}
    _, partition, offset = headers["headrace-source"].decode().rsplit("/", 2)
    stream, number = headers.get("n", b"-1:-1").split(b":")  # a dead letter may be cut
    return Outcome(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        (int(partition), int(offset)),
        (int(stream), int(number)),
        int(headers["headrace-model"].rpartition(b"/")[2]),
        headers.get("headrace-error", b"").decode(),
        message.value(),
    )


class LiveReader:
    """Reads committed outcomes of several topics while they come, on a thread of its own. A context manager."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._kafka, self._topics = kafka, topics
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[topic], name=f"read-{topic}") for topic in topics]
        self.outcomes: dict[str, list[Outcome]] = {topic: [] for topic in topics}
        self.failure: Exception | None = None

    def __enter__(self) -> "LiveReader":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        """Outcomes so far."""
        return sum(map(len, self.outcomes.values()))

    def _run(self, topic: str) -> None:
        try:
            while not self._stop.is_set():
                self._follow(topic)
        except Exception as error:
            self.failure = error

    def _follow(self, topic: str) -> None:
        """Until asked to end, or the broker is killed: then from where it was on."""
        try:
            with TopicFollower(self._kafka, topic, self._positions(topic)) as follower:
                while not self._stop.is_set():
                    self.outcomes[topic] += map(outcome_of, follower.read(0.1, 5000))
        except Unavailable:
            pass

    def _positions(self, topic: str) -> dict[int, int]:
        return {outcome.partition: outcome.offset + 1 for outcome in self.outcomes[topic]}


def read_all(kafka: KafkaSettings, topic: str) -> list[Outcome]:
    """Everything that is committed, read anew."""
    ends = {number: one.stable for number, one in log_ends(kafka, topic).items()}
    consumer = kafka.consumer({"enable.partition.eof": True, "fetch.wait.max.ms": 50})
    consumer.assign([TopicPartition(topic, number, 0) for number in ends])
    found: list[Message] = []
    unfinished = {number for number, end in ends.items() if end}

    def finished() -> bool:
        for message in consumer.consume(5000, 0.2):
            if message.error() is None:
                found.append(message)
            else:
                unfinished.discard(message.partition() or 0)
        return not unfinished

    try:
        eventually(finished, timeout_s=120, every_s=0)
    finally:
        consumer.close()
    return [outcome_of(message) for message in found]


def committed_offsets(kafka: KafkaSettings, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Where the group stands; -1001 where it has committed nothing. A broker that was killed takes its time."""
    consumer = kafka.consumer({"group.id": group})
    try:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return {one.partition: one.offset for one in consumer.committed(asked, timeout=60)}
    finally:
        consumer.close()


@dataclass
class Verdict:
    """Numbers of records; all zero where the promise was kept."""

    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    wrong: int = 0
    """An answer in place of a dead letter, another reason, another value than the question's."""
    unseen: int = 0
    """Read by only one of the two readers: the one that followed, or the one that read anew."""
    uncommitted: int = 0
    """Partitions whose committed offset is not behind the last record."""
    hanging: int = 0
    """Offsets that an open transaction hides from readers."""
    left_over: int = 0
    """Processes that outlived their replica."""
    bugs: int = 0
    """Processes that ended by an error that nobody expects, or because they stood still."""
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything is as promised."""
        return not any(getattr(self, one.name) for one in fields(self))

    @property
    def total(self) -> int:
        """Of all that is wrong."""
        return sum(getattr(self, one.name) for one in fields(self) if one.name != "examples")

    def forgive(self, *kinds: str) -> None:
        """These are as promised: at least once may answer again."""
        for kind in kinds:
            setattr(self, kind, 0)
        self.examples = [one for one in self.examples if one.partition(":")[0] not in kinds]

    def count(self, kind: str, about: object) -> None:
        """One more."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 12:
            self.examples.append(f"{kind}: {about}")


def judge_outcomes(verdict: Verdict, load: Load, live: Sequence[Outcome], final: Sequence[Outcome]) -> None:
    """Counts what is wrong with what was read."""
    _judge_readers(verdict, live, final)
    _judge_places(verdict, load, final)
    _judge_order(verdict, final)
    for outcome in final:
        if problem := _problem(load, outcome):
            verdict.count("wrong", f"{problem}: {outcome}")


def judge_committed(verdict: Verdict, load: Load, offsets: dict[int, int]) -> None:
    """The committed offset is that of the last record, plus one."""
    for partition, offset in offsets.items():
        if offset != load.count:
            verdict.count("uncommitted", f"partition {partition} at {offset}, not {load.count}")


def judge_open(verdict: Verdict, kafka: KafkaSettings, topics: Iterable[str]) -> None:
    """No transaction is open once every replica has ended."""
    for topic in topics:
        for partition, ends in log_ends(kafka, topic).items():
            if hidden := ends.high - ends.stable:
                verdict.count("hanging", f"{topic}/{partition} hides {hidden} offsets behind {ends.stable}")


def _judge_readers(verdict: Verdict, live: Sequence[Outcome], final: Sequence[Outcome]) -> None:
    places = [{(one.topic, one.partition, one.offset): one for one in read} for read in (live, final)]
    for place in places[0].keys() ^ places[1].keys():
        verdict.count("unseen", place)


def _judge_places(verdict: Verdict, load: Load, final: Sequence[Outcome]) -> None:
    times = defaultdict(list)
    for outcome in final:
        times[outcome.stream].append(outcome)
    for partition in range(load.partitions):
        for number in range(load.count):
            found = times.get((partition, number), [])
            if not found:
                verdict.count("lost", (partition, number))
            for extra in found[1:]:
                verdict.count("doubled", (found[0], extra))


def _judge_order(verdict: Verdict, final: Sequence[Outcome]) -> None:
    last: dict[tuple[str, int, int], int] = {}
    for outcome in sorted(final, key=lambda one: (one.topic, one.partition, one.offset)):
        partition, offset = outcome.source
        place = (outcome.topic, outcome.partition, partition)
        if offset < last.get(place, -1):
            verdict.count("reordered", (last[place], outcome))
        last[place] = offset


def _problem(load: Load, outcome: Outcome) -> str:
    partition, number = outcome.stream
    if outcome.source != outcome.stream:
        return "another source"
    kind = Kind(load.kinds[partition][number])
    if kind is not Kind.GOOD:
        expected = error_pb2.Reason.Name(REASONS[kind]).removeprefix("REASON_")
        return "" if outcome.reason == expected else f"not {expected}"
    if outcome.reason:
        return "a good record was refused"
    is_right = orjson.loads(outcome.value or b"")["values"] == [number, outcome.version]
    return "" if is_right else "another answer"
