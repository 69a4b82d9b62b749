"""`headrace inference dead-letters`: what people see of them."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from cli import main
from headrace.v1 import deployment_manager_pb2_grpc, inference_pb2, predictions_pb2, predictions_pb2_grpc
from tests.cli.serving import serving

RAISED = 'Traceback:\n  File "model.py", line 3\r\nValueError: ' + "bad " * 250


class _Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    def GetInference(self, request: Any, context: grpc.ServicerContext) -> inference_pb2.Inference:
        return inference_pb2.Inference(id=3, input_topic="in")


class _Predictions(predictions_pb2_grpc.PredictionsServicer):
    """Has one dead letter, of a model that raises."""

    def ListDeadLetters(self, request: Any, context: grpc.ServicerContext) -> predictions_pb2.ListDeadLettersResponse:
        letter = predictions_pb2.DeadLetter(reason="CODE_ERROR", message=RAISED, value="x" * 2000)
        return predictions_pb2.ListDeadLettersResponse(dead_letters=[letter])


@pytest.fixture
def _served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    predictions = partial(predictions_pb2_grpc.add_PredictionsServicer_to_server, _Predictions())
    with serving(
        monkeypatch,
        partial(deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server, _Manager()),
        predictions,
    ):
        yield


@pytest.mark.usefixtures("_served")
def test_a_long_message_is_cut_in_the_table_and_whole_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["inference", "dead-letters", "3"]) == 0
    printed = capsys.readouterr().out
    # The table folds cells to its width.
    assert len(printed.splitlines()) < 12
    assert printed.count("…") == 2
    assert main.main(["inference", "dead-letters", "3", "--json"]) == 0
    (letter,) = json.loads(capsys.readouterr().out)["deadLetters"]
    assert (letter["message"], len(letter["value"])) == (RAISED, 2000)
