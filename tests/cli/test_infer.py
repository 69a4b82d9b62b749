"""`headrace infer`: what it asks of the control plane."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from cli import main
from headrace.v1 import deployment_manager_pb2_grpc, inference_pb2
from tests.cli.serving import serving


class _Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    """Remembers the inference that it was asked for."""

    asked = inference_pb2.Inference()

    def CreateInference(self, request: Any, context: grpc.ServicerContext) -> inference_pb2.Inference:
        self.asked = request.inference
        return inference_pb2.Inference(id=4, name="live", state=inference_pb2.INFERENCE_STATE_STARTING)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Manager]:
    served = _Manager()
    with serving(monkeypatch, partial(deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server, served)):
        yield served


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("--input-format raw -c data_type=uint8 --input-config data_reshape=28", {
            "inputFormat": "DATA_FORMAT_RAW", "inputConfig": {"data_type": "uint8", "data_reshape": "28"},
        }),
        ("--output-format avro", {"outputFormat": "DATA_FORMAT_AVRO"}),
        ("--labels no,yes", {"labels": {"names": ["no", "yes"]}}),
        ("--max-wait 0.5 --max-rows 7", {"batch": {"maxRows": 7, "maxWait": "0.5s"}}),
    ],
)  # fmt: skip
def test_an_option_is_a_field(manager: _Manager, words: str, fields: dict[str, Any]) -> None:
    assert main.main(["infer", "3", "-i", "questions", "-o", "answers", "--no-wait", *words.split()]) == 0
    wish = {
        "resultId": 3, "inputTopic": "questions", "outputTopic": "answers", "replicas": 1, "batch": {},
        "outputFormat": "DATA_FORMAT_JSON", "onError": "ERROR_POLICY_DEAD_LETTER",
    }  # fmt: skip
    assert manager.asked == ParseDict(wish | fields, inference_pb2.Inference())
