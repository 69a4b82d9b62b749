"""What a replica costs while it does nothing, and how soon one that is killed is back.

Memory is what processes have allocated (RssAnon), not the pages of files that they share: of the replica's process, its
worker, its spare one and their wardens, less what an import of the framework alone takes, for both workers.
"""

import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import grpc
import psutil

from benchmarks.answer_times import Conversation
from benchmarks.inference import PARTITIONS, answering, platform, trained
from benchmarks.replica_processes import await_spare, await_that, replica_process, tree_of, workers_of
from benchmarks.report import Ratio
from headrace.client import connect
from headrace.v1 import inference_pb2
from streams.answers import inference_group
from streams.kafka import KafkaSettings, ensure_topics

IMPORTS = {"keras": "import tensorflow, keras; keras.layers", "torch": "import torch, ignite.engine"}
MEMORY_LIMIT_MB = 120
KILLS = 5
BACK_LIMIT_S = 2.0
LIMIT_S = 90.0
MB = 1024 * 1024


def measure() -> list[Ratio]:
    """Of both frameworks."""
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "home") as state:
        kafka = KafkaSettings(state.kafka)
        with connect(state.address, timeout_s=60) as channel:
            return [ratio for name in IMPORTS for ratio in _of_framework(kafka, channel, name)]


def _of_framework(kafka: KafkaSettings, channel: grpc.Channel, name: str) -> list[Ratio]:
    result = trained(kafka, channel, name)
    source = f"ask-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, {source: PARTITIONS})
    with (
        answering(kafka, channel, source, name, result.id, "EXACTLY_ONCE") as inference,
        Conversation(kafka, source, inference.output_topic) as conversation,
    ):
        conversation.ask(100, 100)
        conversation.await_answers(LIMIT_S)
        memory = _memory(kafka, name, inference)
        returns = [_return(kafka, inference, conversation) for _ in range(KILLS)]
    return [memory, *_returns(name, returns)]


def _memory(kafka: KafkaSettings, name: str, inference: inference_pb2.Inference) -> Ratio:
    replica = replica_process(kafka, inference)
    await_spare(kafka, inference)
    workers = len(workers_of(replica))
    imported = _imported_bytes(name)
    taken = sum(_anonymous_bytes(each) for each in tree_of(replica)) - workers * imported
    return Ratio(
        f"memory (RssAnon) of an idle replica, {name}, with its worker and its spare one, beside two imports of the"
        f" framework, against {MEMORY_LIMIT_MB} MB",
        f"{taken / MB:.0f} MB beside 2 × {imported / MB:.0f} MB",
        f"{MEMORY_LIMIT_MB} MB",
        (taken / MB / MEMORY_LIMIT_MB,),
        "≤ 1 ×",
    )


def _imported_bytes(name: str) -> int:
    """RssAnon of a process that has imported the framework and nothing else."""
    code = f"{IMPORTS[name]}; import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = _anonymous_bytes(psutil.Process(process.pid))
        process.kill()
    return taken


def _return(
    kafka: KafkaSettings, inference: inference_pb2.Inference, conversation: Conversation
) -> tuple[float, float]:
    """Seconds from a SIGKILL of the replica until its slot has its partitions, and until it has answered."""
    await_spare(kafka, inference)
    before, _ = _member(kafka, inference)
    replica_process(kafka, inference).send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    conversation.ask(PARTITIONS, 1000)
    await_that(lambda: _has_partitions(kafka, inference, before), "the slot and its partitions")
    back_s = time.monotonic() - killed_at
    conversation.await_answers(LIMIT_S)
    return back_s, time.monotonic() - killed_at


def _member(kafka: KafkaSettings, inference: inference_pb2.Inference) -> tuple[str, int]:
    """The id of the only member of the inference's group, and how many partitions it has."""
    group = inference_group(inference)
    admin = kafka.admin()  # it has to live as long as its answers are waited for
    (answer,) = admin.describe_consumer_groups([group]).values()
    (member,) = answer.result(LIMIT_S).members
    return member.member_id, len(member.assignment.topic_partitions)


def _has_partitions(kafka: KafkaSettings, inference: inference_pb2.Inference, before: str) -> bool:
    """Whether another process than `before` has all of them."""
    member_id, partitions = _member(kafka, inference)
    return member_id != before and partitions == PARTITIONS


def _returns(name: str, returns: Sequence[tuple[float, float]]) -> list[Ratio]:
    whats = ("has its partitions again", "has answered what was asked meanwhile")
    return [
        Ratio(
            f"from a SIGKILL of a replica until its slot {what}, {name}, p50 of {KILLS}, against {BACK_LIMIT_S:.0f} s",
            f"{statistics.median(seconds):.2f} s",
            f"{BACK_LIMIT_S:.0f} s",
            tuple(one / BACK_LIMIT_S for one in seconds),
            "≤ 1 ×",
        )
        for what, seconds in zip(whats, zip(*returns, strict=True), strict=True)
    ]


def _anonymous_bytes(process: psutil.Process) -> int:
    (line,) = [one for one in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "RssAnon" in one]
    return int(line.split()[1]) * 1024
