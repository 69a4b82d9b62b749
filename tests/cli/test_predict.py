"""`headrace predict …`: files of every kind become questions on a real broker, and their answers are shown."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cli import main
from headrace.v1 import deployment_manager_pb2_grpc, inference_pb2
from headrace.v1.stream_pb2 import DATA_FORMAT_RAW
from streams.kafka import KafkaSettings, Message
from tests.cli.serving import serving
from tests.sinks.test_inference import answering

Topic = Callable[..., str]
RAW = {"data_type": "float32", "data_reshape": "2"}


class _Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    """Has one inference."""

    inference = inference_pb2.Inference()

    def GetInference(self, request: Any, context: grpc.ServicerContext) -> inference_pb2.Inference:
        return self.inference


@pytest.fixture
def manager(kafka: KafkaSettings, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Manager]:
    """Of an inference that answers two numbers with their order: 0 where the first is the larger one."""
    served = _Manager()
    served.inference = inference_pb2.Inference(
        id=3, input_topic=topic(), output_topic=topic(), input_format=DATA_FORMAT_RAW, input_config=RAW
    )

    def order(question: Message) -> list[tuple[str, bytes]]:
        values = np.frombuffer(question.value() or b"", np.float32).tolist()
        answer = json.dumps({"values": values}).encode() if values[0] >= 0 else b"!"
        return [(served.inference.output_topic, answer)]

    with (
        serving(monkeypatch, partial(deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server, served)),
        answering(kafka, served.inference.input_topic, order),
    ):
        yield served


def predicted(kafka: KafkaSettings, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main.main(["predict", "3", *words, "--kafka", kafka.bootstrap_servers])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def a_file(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "a,b,class\n5,1,0\n2,7,1\n", ["--label", "class"]),
        ("b.csv", "a;b;class\n5;1;0\n2;7;1\n", ["--label", "class", "--delimiter", ";"]),
        ("c.csv", "5,1,0\n2,7,1\n", ["--label", "c3", "--no-header"]),
        ("d.jsonl", '{"a": 5, "b": 1, "class": 0}\n{"a": 2, "b": 7, "class": 1}\n', ["--label", "class"]),
    ],
)
def test_rows_of_a_file_are_asked_and_compared_with_their_labels(
    manager: _Manager, kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, content: str, options: list[str],
) -> None:  # fmt: skip
    printed = predicted(kafka, capsys, a_file(tmp_path, name, content), *options)
    assert "2 of 2 are right (100.0%)" in printed


def test_answers_and_dead_letters_are_told_as_a_table_and_as_json(
    manager: _Manager, kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = a_file(tmp_path, "a.csv", "a,b\n5,1\n-1,7\n")
    assert "DECODE_ERROR: too odd" in predicted(kafka, capsys, file)
    told = json.loads(predicted(kafka, capsys, file, "--json"))
    assert told["predictions"] == [{"values": [5.0, 1.0]}, {"values": None}]


def test_an_inference_that_has_ended_is_not_asked(
    manager: _Manager, kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.inference.state = inference_pb2.INFERENCE_STATE_STOPPED
    assert main.main(["predict", "3", a_file(tmp_path, "a.csv", "a,b\n5,1\n")]) == 1
    assert "nobody would answer" in capsys.readouterr().err
