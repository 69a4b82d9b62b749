"""The model of a running inference is replaced while data flow: by command, by an alias that moves, and back again. And
its answers may stand on another Kafka cluster.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, ensure_topics, headers_of
from streams.writer import BatchProducer
from tests.e2e.conftest import Platform
from tests.support import eventually, on_thread

KERAS = """
model = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
"""
TORCH = """
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
    def forward(self, x):
        return self.linear(x)
    def loss_fn(self):
        return nn.CrossEntropyLoss()
    def optimizer(self):
        return torch.optim.SGD(model.parameters(), lr=0.1)
    def metrics(self):
        return {"loss": Loss(self.loss_fn())}

model = Network()
"""
CODES = {"tensorflow": KERAS, "pytorch": TORCH}
PARTITIONS = 4
PAUSE_S = 0.02
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def versions(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Framework → results of two versions, all trained on the same stream."""
    folder = tmp_path_factory.mktemp("swaps")
    for framework, code in CODES.items():
        (folder / framework).write_text(code)
        platform.done("model", "create", f"swap-{framework}", "-f", framework, "--code", str(folder / framework))
    platform.done("configuration", "create", "swaps", *[f"swap-{framework}" for framework in CODES])
    first = platform.json("train", "swaps")
    points = folder / "points.csv"
    points.write_text("x,y,class\n" + "\n".join(f"{n % 2},{n % 3},{n % 2}" for n in range(64)) + "\n")
    platform.done("send", str(points), "-t", "swaps", "-d", first["id"], "--label", "class")
    _await_trained(platform, first)
    stream = platform.json("deployment", "show", first["id"])["streamId"]
    second = platform.json("train", "swaps", "--stream", stream)
    _await_trained(platform, second)
    pairs = zip(first["resultIds"], second["resultIds"], strict=True)
    return {framework: [int(one) for one in pair] for framework, pair in zip(CODES, pairs, strict=True)}


def _await_trained(platform: Platform, deployment: Any) -> None:
    for result_id in deployment["resultIds"]:
        assert "finished" in platform.done("result", "watch", result_id, timeout_s=180)


@dataclass
class Flow:
    """Questions that are sent all the time, and the answers to them."""

    kafka: KafkaSettings
    source: str
    target: str
    sent: int = 0
    versions: dict[str, bytes] = field(default_factory=dict)
    """Source of each question to the model that answered."""
    sources: Counter[str] = field(default_factory=Counter)
    in_order: list[str] = field(default_factory=list)
    traced: set[Any] = field(default_factory=set)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the block; then every question is answered."""
        with on_thread(self._send, "questions"):
            yield

    def _send(self, stop: threading.Event) -> None:
        with BatchProducer(self.kafka) as producer:
            while not stop.wait(PAUSE_S):
                for partition in range(PARTITIONS):
                    value = np.array([self.sent % 5, partition], np.float32).tobytes()
                    producer.produce(self.source, None, value, [("traceparent", TRACE.encode())], partition)
                    self.sent += 1
                producer.flush()

    def read(self) -> None:
        """Every answer, once as many are there as questions, and no more come."""
        with TopicFollower(self.kafka, self.target, {}) as follower:
            eventually(lambda: self._read(follower), timeout_s=60)

    def _read(self, follower: TopicFollower) -> bool:
        batch = follower.read(0.5)
        for message in batch:
            headers = dict(headers_of(message))
            source, model = headers["headrace-source"], headers["headrace-model"]
            assert isinstance(source, bytes)
            assert isinstance(model, bytes)
            self.sources[source.decode()] += 1
            self.versions[source.decode()] = model
            self.in_order.append(source.decode())
            self.traced.add(headers.get("traceparent"))
        return self.sources.total() >= self.sent and not batch

    def of_partition(self, number: int) -> list[bytes]:
        """The models that answered its questions, in the order of the answers."""
        return [self.versions[one] for one in self.in_order if one.split("/")[1] == str(number)]

    def assert_once_and_in_order(self) -> None:
        assert self.sources.total() == len(self.sources) == self.sent
        for number in range(PARTITIONS):
            offsets = [int(one.split("/")[2]) for one in self.in_order if one.split("/")[1] == str(number)]
            assert offsets == sorted(offsets)


def flow_of(platform: Platform, name: str) -> Flow:
    kafka = KafkaSettings(platform.state.kafka)
    ensure_topics(kafka, {f"{name}-in": PARTITIONS})
    return Flow(kafka, f"{name}-in", f"{name}-out")


def runs(models: Sequence[bytes]) -> list[bytes]:
    """Without repetitions."""
    return [one for number, one in enumerate(models) if number == 0 or models[number - 1] != one]


@pytest.mark.parametrize("framework", CODES)
def test_a_model_is_replaced_and_rolled_back_while_data_flow(
    platform: Platform, versions: dict[str, list[int]], framework: str
) -> None:
    first, second = versions[framework]
    name = f"swap-{framework}"
    flow = flow_of(platform, name)
    platform.done("infer", str(first), "-i", flow.source, "-o", flow.target, "--name", name)
    with flow.running():
        artifact = stored_artifact(platform, second)
        whole = artifact.read_bytes()
        artifact.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused = platform.headrace("inference", "update", name, "--result", str(second))
        assert refused.returncode == 1
        assert f"version 2 of {name} cannot be loaded, so version 1 goes on answering" in refused.stderr
        assert "DIGEST_MISMATCH" in refused.stderr
        shown = platform.json("inference", "show", name)
        assert shown["answeringResultId"] == str(first)
        assert (shown["resultId"], shown["replicaStates"][0]["resultId"]) == (str(second), str(first))
        in_use = platform.headrace("result", "delete", str(first))
        assert in_use.returncode == 1
        assert "inference" in in_use.stderr
        artifact.write_bytes(whole)
        back = platform.done("inference", "update", name, "--result", str(first))
        assert f"answers with {name} version 1" in back
        assert "version 2" in platform.done("inference", "update", name, "--result", str(second))
        platform.done("inference", "update", name, "--result", str(first))
    flow.read()
    platform.done("inference", "stop", name)
    flow.assert_once_and_in_order()
    one, two = f"{name}/1".encode(), f"{name}/2".encode()
    assert runs(flow.of_partition(0)) == [one, two, one]
    assert flow.traced == {TRACE.encode()}


def stored_artifact(platform: Platform, result_id: int) -> Path:
    digest = platform.json("result", "show", str(result_id))["artifacts"][0]["sha256"]
    (found,) = [path for path in platform.home.glob("artifacts/**/*") if digest in path.name and path.is_file()]
    return found


def test_an_alias_that_moves_swaps_the_model_of_every_replica_also_across_a_rebalance(
    platform: Platform, versions: dict[str, list[int]]
) -> None:
    first, second = versions["pytorch"]
    flow = flow_of(platform, "swap-alias")
    platform.done("model", "alias", "set", "swap-pytorch", "champion", str(first))
    words = ["infer", "swap-pytorch@champion", "-i", flow.source, "-o", flow.target, "--name", "swap-alias"]
    platform.done(*words)
    with flow.running():
        platform.done("model", "alias", "set", "swap-pytorch", "champion", "v2")
        platform.done("inference", "scale", "swap-alias", "2")

        def follows() -> bool:
            replicas = platform.json("inference", "show", "swap-alias")["replicaStates"]
            answer = [one["resultId"] for one in replicas if one["partitions"] and one["ready"]]
            return answer == [str(second)] * 2

        eventually(follows, timeout_s=60, every_s=0.5)
    flow.read()
    platform.done("inference", "stop", "swap-alias")
    flow.assert_once_and_in_order()
    for number in range(PARTITIONS):
        answered = flow.of_partition(number)
        assert answered[0] == b"swap-pytorch/1"
        assert answered[-1] == b"swap-pytorch/2"


def test_an_inference_across_two_clusters_is_warned_about(platform: Platform, versions: dict[str, list[int]]) -> None:
    trained = versions["pytorch"][0]
    platform.done("kafka-cluster", "create", "twin", platform.state.kafka)
    assert platform.state.kafka in platform.done("kafka-cluster", "list")
    words = ["-i", "twin-in", "-o", "twin-out", "--name", "twin", "--output-cluster", "twin", "--no-wait"]
    created = platform.headrace("infer", str(trained), *words)
    assert created.returncode == 0
    assert "no transaction spans both, so a crash may repeat answers" in created.stderr
    assert "at-least-once" in platform.done("inference", "show", "twin")
    refused = platform.headrace("infer", str(trained), *words[:-1], "--guarantee", "exactly-once")
    assert refused.returncode == 1
    assert "no transaction spans two Kafka clusters" in refused.stderr
    assert platform.headrace("kafka-cluster", "delete", "twin").returncode == 1
    platform.done("inference", "delete", "twin", "--force")
    platform.done("kafka-cluster", "delete", "twin")
