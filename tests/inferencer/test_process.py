"""A replica as a process, with a real worker, on a real broker."""

import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from cli.broker import Broker
from headrace.v1 import inference_pb2, stream_pb2
from sandbox.session import WorkerSession
from streams.codecs import codec_of
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of
from streams.outputs import AnswerReader, output_config
from streams.writer import BatchProducer
from tests.inferencer.control_plane import SmallControlPlane, Trained, served
from tests.support import eventually

# Sums up; a record that begins with -1 ends the worker, one that begins with -2 raises.
CODE = """
import os

class Adder(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
    def forward(self, x):
        if (x[:, 0] == -1).any():
            os._exit(0)
        if (x[:, 0] == -2).any():
            raise ValueError("no such record")
        return x.sum(dim=1, keepdim=True) * self.scale
    def loss_fn(self):
        return nn.MSELoss()
    def optimizer(self):
        return torch.optim.SGD(model.parameters(), lr=0.1)
    def metrics(self):
        return {"loss": Loss(self.loss_fn())}

model = Adder()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved weights of the adder."""
    folder = tmp_path_factory.mktemp("weights")
    with WorkerSession.start("pytorch", folder=tmp_path_factory.mktemp("worker")) as session:
        session.wait_ready(60)
        session.build("", CODE)
        (saved,) = session.save(folder)
    return saved.path


@pytest.fixture
def control_plane(
    kafka: KafkaSettings, topic: Callable[..., str], weights: Path, request: pytest.FixtureRequest
) -> SmallControlPlane:
    source, target = topic(partitions=2), topic(partitions=2)
    ensure_topics(kafka, {source + ".dead-letters": 1})
    inference = inference_pb2.Inference(
        id=abs(hash(source)) % 2**31,
        result_id=7,
        input_topic=source,
        output_topic=target,
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "float32", "data_reshape": "2"},
    )
    return SmallControlPlane(inference, CODE, weights)


@contextmanager
def replica(
    kafka: KafkaSettings, address: str, plane: SmallControlPlane, folder: Path, *, spare: bool = True
) -> Iterator[psutil.Popen]:
    """The process of slot 0. Whatever is left of it is killed."""
    environment = {
        **os.environ,
        "HEADRACE_ADDRESS": address,
        "HEADRACE_KAFKA": kafka.bootstrap_servers,
        "HEADRACE_INFERENCE_ID": str(plane.inference.id),
        "HEADRACE_SLOT": "0",
        "HEADRACE_ATTEMPT": "1",
        "HEADRACE_WORK_DIR": str(folder),
        "HEADRACE_SPARE_WORKER": str(int(spare)),
    }
    process = psutil.Popen([sys.executable, "-P", "-m", "inferencer"], env=environment)
    try:
        yield process
    finally:
        if process.is_running():
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def send(kafka: KafkaSettings, plane: SmallControlPlane, firsts: list[float]) -> None:
    """Records [first, 1] in turn over the partitions."""
    with BatchProducer(kafka) as producer:
        for number, first in enumerate(firsts):
            value = np.array([first, 1], np.float32).tobytes()
            producer.produce(plane.inference.input_topic, b"k", value, [("n", b"%d" % number)], number % 2)
        producer.flush()


@contextmanager
def questions(kafka: KafkaSettings, plane: SmallControlPlane) -> Iterator[list[int]]:
    """Asks some hundred a second until the block ends; gives how many of each partition were asked, in the end."""
    stop, asked = threading.Event(), list[int]()

    def ask() -> None:
        with BatchProducer(kafka) as producer:
            number = 0
            while not stop.wait(0.02):
                for partition in (0, 1) * 3:
                    value = np.array([number, 1], np.float32).tobytes()
                    headers: list[tuple[str, str | bytes | None]] = [("n", b"%d" % number)]
                    producer.produce(plane.inference.input_topic, b"k", value, headers, partition)
                    number += 1
            producer.flush()
            asked.append(number)

    thread = threading.Thread(target=ask, name="questions")
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join(30)


class Answers:
    """What the output topic holds: number of the question to values."""

    def __init__(self, follower: TopicFollower) -> None:
        self._follower = follower
        self.values: dict[int, list[float]] = {}
        self.models: dict[int, list[str]] = {0: [], 1: []}
        """Partition to the model of each answer, in order."""
        self.sources: list[str] = []
        self.count = 0

    def reached(self, count: int) -> bool:
        for message in self._follower.read(0.2):
            headers = {name: value for name, value in headers_of(message) if isinstance(value, bytes)}
            self.values[int(headers["n"])] = json.loads(message.value() or b"")["values"]
            self.sources.append(headers["headrace-source"].decode())
            self.models[message.partition() or 0].append(headers["headrace-model"].decode())
            self.count += 1
        return self.count >= count


def test_a_replica_answers_survives_its_worker_and_leaves_nothing(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path
) -> None:
    with (
        served(control_plane) as address,
        TopicFollower(kafka, control_plane.inference.output_topic, {}) as follower,
        replica(kafka, address, control_plane, tmp_path) as process,
    ):
        answers = Answers(follower)
        send(kafka, control_plane, [float(n) for n in range(100)])
        eventually(lambda: answers.reached(100), timeout_s=60)
        family = process.children(recursive=True)
        assert family
        for child in family:
            child.kill()
        send(kafka, control_plane, [float(n) for n in range(100)])
        eventually(lambda: answers.reached(200), timeout_s=60)
        assert answers.values == {n: [n + 1.0] for n in range(100)}
        told = eventually(lambda: [one for one in control_plane.reports if one.p50_duration.ToMicroseconds()])
        assert all(one.p50_duration.ToMicroseconds() <= one.p99_duration.ToMicroseconds() for one in told)
        family = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not [child for child in family if child.is_running()]
    assert control_plane.reports[-1].state == inference_pb2.INFERENCE_STATE_STOPPED
    assert control_plane.reports[-1].answered_count == 200


def test_a_record_that_ends_the_worker_or_raises_becomes_a_dead_letter_and_the_others_are_answered(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path
) -> None:
    firsts = [float(n) for n in range(64)]
    firsts[13], firsts[40] = -1, -2
    send(kafka, control_plane, firsts)
    with (
        served(control_plane) as address,
        TopicFollower(kafka, control_plane.inference.output_topic, {}) as follower,
        TopicFollower(kafka, control_plane.inference.input_topic + ".dead-letters", {}) as dead_letters,
        replica(kafka, address, control_plane, tmp_path),
    ):
        answers = Answers(follower)
        eventually(lambda: answers.reached(62), timeout_s=90)
        letters: list[Message] = []

        def has_both() -> bool:
            letters.extend(dead_letters.read(0.2))
            return len(letters) == 2

        eventually(has_both, timeout_s=20)
    reasons = {dict(letter.headers() or [])["n"]: letter for letter in letters}
    assert set(reasons) == {b"13", b"40"}
    assert dict(reasons[b"13"].headers() or [])["headrace-error"] == b"WORKER_CRASHED"
    assert dict(reasons[b"40"].headers() or [])["headrace-error"] == b"CODE_ERROR"
    assert set(answers.values) == set(range(64)) - {13, 40}


def test_another_model_takes_over_while_data_flow_and_one_that_cannot_be_loaded_does_not(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path
) -> None:
    plane = control_plane
    plane.others = {
        8: Trained(4, CODE.replace("* self.scale", "* self.scale + 1000")),
        10: Trained(6, CODE.replace("x.sum(dim=1, keepdim=True)", "x @ torch.ones(5, 1)")),
        11: Trained(7, CODE, damaged=True),
    }

    def refused(result_id: int, reason: str) -> bool:
        plane.inference.result_id = result_id
        last = plane.reports[-1]
        is_told = reason in str(last.error)
        return is_told and (last.state, last.result_id) == (inference_pb2.INFERENCE_STATE_RUNNING, 8)

    def answers_with(result_id: int, version: int) -> bool:
        plane.inference.result_id = result_id
        last = plane.reports[-1]
        return (last.result_id, last.model_version) == (result_id, version) and not last.HasField("error")

    with (
        served(plane) as address,
        TopicFollower(kafka, plane.inference.output_topic, {}) as follower,
        replica(kafka, address, plane, tmp_path) as process,
    ):
        answers = Answers(follower)
        with questions(kafka, plane) as asked:
            eventually(lambda: answers.reached(50), timeout_s=60)
            eventually(lambda: answers_with(8, 4), timeout_s=60)
            for result_id, reason in ((10, "SCHEMA_MISMATCH"), (11, "DIGEST_MISMATCH")):
                eventually(partial(refused, result_id, reason), timeout_s=60)
            eventually(lambda: answers_with(7, 3), timeout_s=60)
            soon = answers.count + 50
            eventually(lambda: answers.reached(soon), timeout_s=30)
        eventually(lambda: answers.reached(asked[0]), timeout_s=60)
        assert not answers.reached(asked[0] + 1)
        assert process.is_running()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(set(answers.sources)) == answers.count == asked[0]
    for models in answers.models.values():
        assert [name for name, _ in itertools.groupby(models)] == ["tiny/3", "tiny/4", "tiny/3"]
    assert {values[0] - number for number, values in answers.values.items()} == {1.0, 1001.0}


TWO_INPUTS = CODE.replace(
    "def forward(self, x):", "def forward(self, age, visits):\n        x = torch.stack([age, visits], 1)"
)


@pytest.mark.parametrize("data_format", [stream_pb2.DATA_FORMAT_AVRO, stream_pb2.DATA_FORMAT_JSON])
def test_records_with_named_fields_are_answered_in_the_format_that_the_inference_says(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path, data_format: stream_pb2.DataFormat
) -> None:
    control_plane.code = TWO_INPUTS
    inference = control_plane.inference
    rows = {"visits": np.arange(20, dtype=np.float32), "age": np.full(20, 40, np.float32)}
    codec = codec_of(data_format, rows)
    inference.input_format, inference.output_format = data_format, data_format
    inference.input_config.clear()
    inference.input_config.update(codec.config)
    inference.output_config.update(output_config(data_format, {"output": (1,)}))
    with BatchProducer(kafka) as producer:
        for number, value in enumerate(codec.encode_samples(rows)):
            producer.produce(inference.input_topic, b"%d" % number, value, [("trace", b"7")], number % 2)
        producer.flush()
    reader = AnswerReader(data_format, inference.output_config)
    found: dict[bytes, list[float]] = {}
    with (
        served(control_plane) as address,
        TopicFollower(kafka, inference.output_topic, {}) as follower,
        replica(kafka, address, control_plane, tmp_path, spare=False),
    ):

        def answered() -> bool:
            for message in follower.read(0.2):
                assert dict(message.headers() or [])["trace"] == b"7"
                found[message.key() or b""] = reader.values(message.value())
            return len(found) == 20

        eventually(answered, timeout_s=60)
    assert found == {b"%d" % number: [number + 40.0] for number in range(20)}


def test_code_that_does_not_fit_the_weights_fails_for_good_and_says_why(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path
) -> None:
    control_plane.code = "model = nn.Linear(2, 1"
    with served(control_plane) as address, replica(kafka, address, control_plane, tmp_path) as process:
        assert process.wait(60) == 10
    assert control_plane.reports[-1].state == inference_pb2.INFERENCE_STATE_FAILED
    assert "CODE_ERROR" in str(control_plane.reports[-1].error)


def test_a_replica_serves_its_metrics_where_it_says(
    kafka: KafkaSettings, control_plane: SmallControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_METRICS_LISTEN", "127.0.0.1:0")
    send(kafka, control_plane, [1, 2, float("nan")])
    with served(control_plane) as address, replica(kafka, address, control_plane, tmp_path):

        def ready() -> inference_pb2.ReplicaState | None:
            told = control_plane.reports[-1:]
            return told[0] if told and told[0].ready and told[0].dead_letter_count else None

        told = eventually(ready, timeout_s=60)
        assert told is not None
        url = f"http://{told.metrics_address}"
        assert httpx.get(f"{url}/readyz").status_code == 200
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    values = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    expected = {
        "live": 1, "ready": 1, "answered_total": 2, "refused_total": 1, "model_version": 3,
        'lag{partition="0"}': 0, 'lag{partition="1"}': 0, "batch_rows_sum": 3,
    }  # fmt: skip
    assert {name: values[f"headrace_inference_{name}"] for name in expected} == expected
    for name in ("transactions_total", "answer_seconds_count", 'phase_seconds_count{phase="predict"}'):
        assert values[f"headrace_inference_{name}"] > 0
    assert {"headrace_inference_aborts_total", "headrace_inference_rebalances_total"} <= values.keys()


def test_answers_on_another_cluster_come_at_least_once_and_dead_letters_stay_with_their_questions(
    kafka: KafkaSettings, own_broker: Callable[[], Broker], control_plane: SmallControlPlane, tmp_path: Path
) -> None:
    other = KafkaSettings(own_broker().bootstrap_servers)
    inference = control_plane.inference
    inference.output_kafka_cluster, control_plane.clusters["east"] = "east", other.bootstrap_servers
    inference.guarantee = inference_pb2.GUARANTEE_AT_LEAST_ONCE
    inference.output_topic = "answers"
    ensure_topics(other, {"answers": 2})
    send(kafka, control_plane, [*range(49), float("nan")])
    with served(control_plane) as address, replica(kafka, address, control_plane, tmp_path) as process:
        with TopicFollower(other, "answers", {}) as follower:
            answers = list[Message]()
            eventually(lambda: answers.extend(follower.read(0.5)) or len(answers) >= 49, timeout_s=60)  # type: ignore[func-returns-value]
        with TopicFollower(kafka, f"{inference.input_topic}.dead-letters", {}) as follower:
            (dead,) = eventually(lambda: follower.read(0.5), timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert sorted(int(dict(headers_of(one))["n"] or 0) for one in answers) == list(range(49))
    assert dict(headers_of(dead))["headrace-error"] == b"NAN_OUTPUT"
    assert dict(headers_of(dead))["n"] == b"49"
