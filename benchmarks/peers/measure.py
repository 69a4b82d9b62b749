"""Rows per second of one replica, exactly once, against the same job done by others with the same Keras model.

All answer the same bytes with the same artefact, and the brokers' clock times their answers. Each of the others is used
as its documentation has it, with its own way of batching where it has one. Slow ones get fewer questions.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.inference import PARTITIONS, download, platform, trained
from benchmarks.peers.answering import STARTED
from benchmarks.peers.environment import NotInstallableError, python_of
from benchmarks.reading import fill, stream_of
from benchmarks.report import Ratio
from headrace.client import connect
from headrace.v1 import deployment_manager_pb2, inference_pb2, stream_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, ensure_topics

ABOUT = """\
Bytewax and Pathway, used as their documentation has it, give whole batches to the same Keras function, in one process
and without transactions, which is close to the bare loop of `inference`. On two cores, which the broker and whoever
reads share, that loop (78,623 rows/s there, in another run) reaches 1.6 and 1.7 times their rate: three times would be
about twice as fast as reading, the model and writing alone."""

ROWS = 100_000
ROUNDS = 3
LIMIT_S = 120.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """Somebody else who does the job: a module of this package, and what its environment needs."""

    name: str
    module: str
    requirements: tuple[str, ...]
    """Empty: it runs in ours."""
    rows: int
    target: str


PEERS = (
    Peer(
        "the loop that everybody starts with (poll one, `model.predict`, produce, flush)", "naive", (), 100, "≥ 1,000 ×"
    ),
    Peer("Quix Streams 3.28 (`apply`)", "quix", ("quixstreams==3.28.1",), 5_000, "≥ 5 ×"),
    Peer(
        "Bytewax 0.21 (`flat_map_batch`, recovery on)",
        "bytewax",
        ("bytewax==0.21.1", "confluent-kafka==2.16.1"),
        ROWS,
        "≥ 3 ×",
    ),
    Peer("Pathway 0.33 (UDF with `max_batch_size`, persistence on)", "pathway", ("pathway==0.33.0",), ROWS, "≥ 3 ×"),
)


def measure() -> list[Ratio]:
    """One ratio a peer; those that cannot be installed are told of and left out."""
    ways = _installed()
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as state:
        kafka = KafkaSettings(state.kafka)
        sources = {rows: _filled(kafka, rows) for rows in {ROWS, *(peer.rows for peer in ways)}}
        with connect(state.address, timeout_s=60) as channel:
            result = trained(kafka, channel, "keras")
            model = download(channel, result, Path(folder))
            rounds = [
                (
                    _ours(kafka, channel, sources[ROWS], result.id),
                    {peer: _theirs(kafka, sources[peer.rows], peer, python, model) for peer, python in ways.items()},
                )
                for _ in range(ROUNDS)
            ]
    return [_ratio(peer, [ours for ours, _ in rounds], [theirs[peer] for _, theirs in rounds]) for peer in ways]


def _installed() -> dict[Peer, Path]:
    """Each peer that this machine can have, with the interpreter that has it."""
    found: dict[Peer, Path] = {}
    for peer in PEERS:
        try:
            found[peer] = python_of(peer.requirements) if peer.requirements else Path(sys.executable)
        except NotInstallableError as error:
            print(f"{peer.name} is left out: {error}", flush=True)
    return found


def _ratio(peer: Peer, ours: list[float], theirs: list[float]) -> Ratio:
    return Ratio(
        f"answering rows of 28×28 through Dense128-Dense10, keras, one replica, EXACTLY_ONCE, {ROWS:,} rows, against"
        f" {peer.name}, {peer.rows:,} rows",
        f"{statistics.median(ours):,.0f} rows/s",
        f"{statistics.median(theirs):,.0f} rows/s",
        tuple(mine / other for mine, other in zip(ours, theirs, strict=True)),
        peer.target,
    )


def _filled(kafka: KafkaSettings, rows: int) -> str:
    source = f"peers-{rows}-{uuid.uuid4().hex[:8]}"
    fill(kafka, source, rows)
    return source


def _answers_topic(kafka: KafkaSettings) -> str:
    """Timed by the broker: some copy the question's time to the answer."""
    target = f"answers-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {target: PARTITIONS}, config={"message.timestamp.type": "LogAppendTime"})
    return target


def _ours(kafka: KafkaSettings, channel: grpc.Channel, source: str, result_id: int) -> float:
    """From the first answer to the last."""
    manager, target = DeploymentManagerStub(channel), _answers_topic(kafka)
    wish = inference_pb2.Inference(
        name=target,
        result_id=result_id,
        input_topic=source,
        output_topic=target,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config=dict(stream_of([], 0).input_config),
        start=inference_pb2.START_POSITION_EARLIEST,
    )
    created = manager.CreateInference(deployment_manager_pb2.CreateInferenceRequest(inference=wish), timeout=60)
    times = _times(kafka, target, ROWS)
    manager.DeleteInference(deployment_manager_pb2.DeleteInferenceRequest(id=created.id, force=True), timeout=60)
    return (ROWS - 1) / (max(times) - min(times))


def _theirs(kafka: KafkaSettings, source: str, peer: Peer, python: Path, model: Path) -> float:
    """From when the first question was with the model to the last answer."""
    target = _answers_topic(kafka)
    with tempfile.TemporaryDirectory() as folder:
        words = [f"benchmarks.peers.{peer.module}_job", kafka.bootstrap_servers, source, target, str(model), folder]
        with _running([str(python), "-P", "-m", *words]) as started_at:
            times = _times(kafka, target, peer.rows)
            return peer.rows / (max(times) - started_at())


@contextmanager
def _running(command: list[str]) -> Iterator[Callable[[], float]]:
    """A job, killed at the end of the block; gives what tells when it began to answer."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        try:
            yield lambda: _started_at(job)
        finally:
            job.kill()


def _started_at(job: subprocess.Popen[bytes]) -> float:
    assert job.stdout is not None
    for line in job.stdout:
        if STARTED.encode() in line:
            return float(json.loads(line)[STARTED])
    raise AssertionError("the job did not tell when it began")


def _times(kafka: KafkaSettings, target: str, rows: int) -> list[float]:
    """When each answer was written, in seconds; every question has exactly one."""
    deadline = time.monotonic() + LIMIT_S
    times: list[float] = []
    with TopicFollower(kafka, target, {}) as follower:
        while len(times) < rows and time.monotonic() < deadline:
            times += [message.timestamp()[1] / 1000 for message in follower.read(1.0, 5000)]
    assert len(times) == rows, f"{len(times)} answers for {rows} questions"
    return times
