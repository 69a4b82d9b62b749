"""`headrace train …` against a server of the API: what its options ask for."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from cli import main
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2_grpc,
    deployment_pb2,
    model_pb2,
    model_registry_pb2,
    model_registry_pb2_grpc,
)
from tests.cli.serving import serving

KERAS, TORCH = 1, 2


class _Registry(model_registry_pb2_grpc.ModelRegistryServicer):
    """Two configurations, `keras` and `torch`, with a model each of the same id."""

    def ListConfigurations(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = configuration_pb2.Configuration(
            id={"keras": KERAS, "torch": TORCH}[request.name], name=request.name, model_ids=[KERAS]
        )
        found.model_ids[0] = found.id
        return model_registry_pb2.ListConfigurationsResponse(configurations=[found])

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> model_pb2.Model:
        frameworks = {KERAS: model_pb2.FRAMEWORK_TENSORFLOW, TORCH: model_pb2.FRAMEWORK_PYTORCH}
        return model_pb2.Model(id=request.id, framework=frameworks[request.id])


class _Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    """Remembers what it was asked for last."""

    asked = deployment_pb2.Deployment()

    def CreateDeployment(self, request: Any, context: grpc.ServicerContext) -> deployment_pb2.Deployment:
        self.asked = request.deployment
        return deployment_pb2.Deployment(id=5)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Manager]:
    served = _Manager()
    registry = partial(model_registry_pb2_grpc.add_ModelRegistryServicer_to_server, _Registry())
    with serving(
        monkeypatch, partial(deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server, served), registry
    ):
        yield served


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--batch-size 7", {"batchSize": 7}),
        ("--fit epochs=2 --evaluate verbose=0", {"tensorflow": {"fitArgs": "epochs=2", "evaluateArgs": "verbose=0"}}),
        ("--torch-fit max_epochs=2", {"pytorch": {"fitArgs": "max_epochs=2"}}),
        ("--torch-evaluate batch_size=9", {"pytorch": {"evaluateArgs": "batch_size=9"}}),
        ("--seed 42", {"seed": 42}),
        ("--ordered", {"split": "SPLIT_ORDERED"}),
        ("--confusion-matrix", {"confusionMatrix": True}),
        ("--decode-error-limit 0.25", {"decodeErrorLimit": 0.25}),
        ("--accept-count-mismatch", {"countMismatch": "COUNT_MISMATCH_ACCEPT"}),
        ("--keep-integers", {"keepIntegers": True}),
        ("--checkpoint-interval 0.5", {"checkpointInterval": "0.500s"}),
        ("--deadline 1.5", {"deadline": "1.5s"}),
    ],
)
def test_an_option_is_a_setting(manager: _Manager, words: str, settings: dict[str, Any]) -> None:
    assert main.main(["train", "keras", *words.split()]) == 0
    wish = {"configurationId": KERAS, "settings": {"tensorflow": {}, "pytorch": {}, **settings}}
    assert manager.asked == ParseDict(wish, deployment_pb2.Deployment())


def test_what_it_is_trained_on_and_what_it_is_called(manager: _Manager) -> None:
    assert main.main(["train", "keras", "--stream", "3", "--description", "the third"]) == 0
    assert (manager.asked.stream_id, manager.asked.description) == (3, "the third")
    assert main.main(["train", "keras", "--allow-topic", "digits", "--allow-topic", "letters"]) == 0
    assert list(manager.asked.allowed_topics) == ["digits", "letters"]


def test_arguments_of_fit_are_for_pytorch_where_there_is_nothing_else(manager: _Manager) -> None:
    assert main.main(["train", "torch", "--fit", "max_epochs=3", "--evaluate", "batch_size=2"]) == 0
    wish = {
        "configurationId": TORCH,
        "settings": {"pytorch": {"fitArgs": "max_epochs=3", "evaluateArgs": "batch_size=2"}},
    }
    assert manager.asked == ParseDict(wish, deployment_pb2.Deployment())


def test_a_result_is_trained_again_by_its_id_alone(manager: _Manager) -> None:
    assert main.main(["train", "--from-result", "8", "--description", "again"]) == 0
    assert manager.asked == deployment_pb2.Deployment(from_result_id=8, description="again")


@pytest.mark.parametrize("words", ["keras", "--stream 3", "--batch-size 8", "--allow-topic digits", "--ordered"])
def test_what_a_result_says_already_is_wrong_usage(
    manager: _Manager, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main.main(["train", *words.split(), "--from-result", "8"]) == 2
    assert "only --description, --wait and --json go with it" in capsys.readouterr().err
    assert not manager.asked.from_result_id
