"""A whole run: topics, replicas, a load, readers, and in the end the verdict."""

import itertools
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from headrace.process import EXIT_BUG
from headrace.v1 import inference_pb2, model_pb2, stream_pb2
from streams.answers import inference_group
from streams.kafka import KafkaSettings, ensure_topics, log_ends
from tests.inferencer.control_plane import SmallControlPlane, Trained, served
from tests.inferencer.faults.fleet import Fleet
from tests.inferencer.faults.load import INPUT_CONFIG, MODEL, Load, Sending, model_code
from tests.inferencer.faults.oracle import (
    LiveReader,
    Verdict,
    committed_offsets,
    judge_committed,
    judge_open,
    judge_outcomes,
    read_all,
)
from tests.support import eventually

FIRST_RESULT = 1
# More than the timeout of the replicas' transactions.
TRANSACTIONS_END_S = 45.0
_ids = itertools.count(1)


@dataclass
class Setting:
    """What a trial is made of."""

    load: Load
    seed: int = 0
    replicas: int = 2
    backlog: int = 20_000
    fails: float = 0.0
    """How likely each process is to be told to die at a failpoint."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of the replicas: the conditions of `child`."""
    guarantee: inference_pb2.Guarantee = inference_pb2.GUARANTEE_EXACTLY_ONCE
    max_rows: int = 256
    seconds: float = 0.0
    """That each batch takes."""
    template: str = MODEL
    kafka_of_replicas: str = ""
    """Where they are told that Kafka is; empty: where it is."""


class Quiet:
    """Whether what `look` says has changed, and then stayed the same for so long."""

    def __init__(self, look: Callable[[], object], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._last, self._since = look(), math.inf

    @property
    def is_over(self) -> bool:
        """Looks again."""
        if (now := self._look()) != self._last:
            self._last, self._since = now, time.monotonic()
        return time.monotonic() - self._since > self._seconds


class Trial:
    """Running. `finish` ends it and judges."""

    def __init__(
        self, kafka: KafkaSettings, setting: Setting, plane: SmallControlPlane, fleet: Fleet, reader: LiveReader
    ) -> None:
        self.kafka, self.setting, self.plane, self.fleet, self.reader = kafka, setting, plane, fleet, reader
        self.load = setting.load
        self.swaps = 0
        self._parts: list[Fleet | LiveReader | Sending] = [fleet, reader]

    @property
    def source(self) -> str:
        """The input topic."""
        return str(self.plane.inference.input_topic)

    @property
    def targets(self) -> list[str]:
        """The output topic and that of the dead letters."""
        return [str(self.plane.inference.output_topic), self.source + ".dead-letters"]

    @property
    def group(self) -> str:
        return inference_group(self.plane.inference)

    @property
    def is_committed(self) -> bool:
        """Whether the group stands at the end of the load."""
        return all(offset >= self.load.count for offset in self._committed().values())

    @property
    def hidden_offsets(self) -> int:
        """Behind which a transaction is open."""
        ends = [one for topic in self.targets for one in log_ends(self.kafka, topic).values()]
        return sum(one.high - one.stable for one in ends)

    def swap(self) -> None:
        """Wishes for another model than the one that was wished for last."""
        self.swaps += 1
        version = FIRST_RESULT + self.swaps
        code = model_code(version, seconds=self.setting.seconds, template=self.setting.template)
        self.plane.others[version] = Trained(version, code)
        self.plane.inference.result_id = version

    @contextmanager
    def sending(self, progress: Callable[[], float] = lambda: 1.0) -> Iterator[Sending]:
        """While the block runs, the load is sent: such a part of it, and at most `backlog` ahead of the answers."""

        def allowed() -> int:
            return min(self.reader.count + self.setting.backlog, round(progress() * self.load.total))

        with Sending(self.load, self.kafka, self.source, allowed) as sending:
            self._parts.append(sending)
            yield sending

    def await_count(self, count: int, timeout_s: float = 60.0) -> None:
        """Until so many outcomes are read. Raises what has failed in the harness meanwhile."""

        def is_there() -> bool:
            self.check()
            return self.reader.count >= count

        eventually(is_there, timeout_s=timeout_s)

    def check(self) -> None:
        """Raises what has failed in the harness."""
        for part in self._parts:
            if part.failure is not None:
                raise part.failure

    def finish(self, timeout_s: float = 60.0, quiet_s: float = math.inf) -> Verdict:
        """Stops the replicas, reads all anew and judges, once every record is answered.

        Or once the time is over, or nothing has moved for `quiet_s`: the verdict says what is missing then.
        """
        self._await_end(timeout_s, Quiet(lambda: (self._committed(), self.reader.count), quiet_s))
        self.fleet.stop()
        if self.fleet.may_have_left_open:
            self._await_timed_out_transactions()
        verdict = Verdict()
        judge_open(verdict, self.kafka, self.targets)
        final = [outcome for topic in self.targets for outcome in read_all(self.kafka, topic)]
        with suppress(AssertionError):
            eventually(lambda: self.reader.count >= len(final), timeout_s=10)
        live = [outcome for topic in self.targets for outcome in self.reader.outcomes[topic]]
        judge_outcomes(verdict, self.load, live, final)
        judge_committed(verdict, self.load, self._committed())
        for command in self.fleet.left_over():
            verdict.count("left_over", command)
        for _ in range(self.fleet.endings.codes[EXIT_BUG]):
            verdict.count("bugs", self.fleet.last_words)
        return verdict

    def _await_timed_out_transactions(self) -> None:
        """Kafka ends what was left open by a process that was killed and has no successor."""
        with suppress(AssertionError):
            eventually(lambda: not self.hidden_offsets, timeout_s=TRANSACTIONS_END_S, every_s=0.2)

    def _await_end(self, timeout_s: float, quiet: Quiet) -> None:
        def is_over() -> bool:
            self.check()
            return self.is_committed or quiet.is_over

        with suppress(AssertionError):
            eventually(is_over, timeout_s=timeout_s, every_s=0.2)

    def _committed(self) -> dict[int, int]:
        return committed_offsets(self.kafka, self.group, self.source, self.load.partitions)


@contextmanager
def trial(kafka: KafkaSettings, folder: Path, setting: Setting, source: str = "") -> Iterator[Trial]:
    """Everything but the load; the replicas run when the block begins, but are not ready yet.

    source: the input topic of another trial, to be read by this one as well.
    """
    with ExitStack() as stack:
        plane = _plane(kafka, folder, setting, source)
        targets = [plane.inference.output_topic, plane.inference.input_topic + ".dead-letters"]
        address = stack.enter_context(served(plane))
        environment = {
            "HEADRACE_ADDRESS": address,
            "HEADRACE_KAFKA": setting.kafka_of_replicas or kafka.bootstrap_servers,
            **setting.environment,
        }
        reader = stack.enter_context(LiveReader(kafka, targets))
        fleet = Fleet(folder / "home", environment, plane.inference.id, seed=setting.seed, fails=setting.fails)
        stack.enter_context(fleet)
        fleet.scale(setting.replicas)
        yield Trial(kafka, setting, plane, fleet, reader)


def _plane(kafka: KafkaSettings, folder: Path, setting: Setting, source: str) -> SmallControlPlane:
    number, run = next(_ids), uuid.uuid4().hex[:8]
    source, target, partitions = source or f"faults-{run}-in", f"faults-{run}-out", setting.load.partitions
    ensure_topics(kafka, {source: partitions, target: partitions, source + ".dead-letters": 1})
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.bin"
    weights.write_bytes(b"none")
    inference = inference_pb2.Inference(
        id=int(run, 16) % 2**30 + number,
        result_id=FIRST_RESULT,
        input_topic=source,
        output_topic=target,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config=INPUT_CONFIG,
        guarantee=setting.guarantee,
    )
    inference.batch.max_rows = setting.max_rows
    code = model_code(FIRST_RESULT, seconds=setting.seconds, template=setting.template)
    return SmallControlPlane(
        inference, code, weights, model_pb2.FRAMEWORK_PYTORCH, {FIRST_RESULT: Trained(FIRST_RESULT, code)}
    )
