"""Every example does what its README says: its producer sends, and both of its models learn from the same stream.

A training costs the import of its framework: that both models of every example learn is for the long form. The short
one trains both of the digits and one of each other; the registry builds those that it does not train, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from sklearn.datasets import load_diabetes

from cli.deployment import watch_deployment
from headrace.client import connect
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_pb2,
    model_pb2,
    model_registry_pb2,
    result_collector_pb2,
    stream_catalog_pb2,
    stream_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.e2e.conftest import Platform

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = {model_pb2.FRAMEWORK_TENSORFLOW: "keras_model.py", model_pb2.FRAMEWORK_PYTORCH: "torch_model.py"}
Framework = model_pb2.Framework
TRAINED: Mapping[str, list[Framework]] = {
    "breast_cancer": [model_pb2.FRAMEWORK_PYTORCH],
    "wine": [model_pb2.FRAMEWORK_TENSORFLOW],
    "diabetes": [model_pb2.FRAMEWORK_PYTORCH],
    "kafka_ml_producer": [model_pb2.FRAMEWORK_TENSORFLOW],
}
DEADLINE_S = 240.0


@dataclass(frozen=True)
class Example:
    """An example's folder, and what comes of it.

    bounds: metric → what the test split has to be better than: more for an accuracy, less for a loss.
    """

    folder: str
    data_format: stream_pb2.DataFormat
    records: int
    epochs: int
    batch_size: int
    bounds: Mapping[str, float]
    dialect: stream_pb2.Dialect = stream_pb2.DIALECT_HEADRACE


def _clearly_better_than_the_mean() -> float:
    """Who always says the mean has a squared error of the variance."""
    return 0.75 * float(load_diabetes().target.var())


CASES = [
    Example("digits", stream_pb2.DATA_FORMAT_RAW, 1797, 8, 32, {"accuracy": 0.9}),
    Example("breast_cancer", stream_pb2.DATA_FORMAT_AVRO, 569, 15, 32, {"accuracy": 0.9}),
    Example("wine", stream_pb2.DATA_FORMAT_JSON, 178, 25, 16, {"accuracy": 0.85}),
    Example("diabetes", stream_pb2.DATA_FORMAT_PROTOBUF, 442, 25, 32, {"loss": _clearly_better_than_the_mean()}),
    Example(
        "kafka_ml_producer", stream_pb2.DATA_FORMAT_RAW, 150, 25, 16, {"accuracy": 0.85}, stream_pb2.DIALECT_KAFKA_ML
    ),
]


@pytest.fixture
def channel(platform: Platform) -> Iterator[grpc.Channel]:
    with connect(platform.state.address) as connected:
        yield connected


@pytest.mark.parametrize("example", CASES, ids=lambda example: example.folder)
def test_an_example_teaches_its_models(platform: Platform, channel: grpc.Channel, example: Example) -> None:
    _check_example(platform, channel, example, TRAINED.get(example.folder, list(MODELS)))


@pytest.mark.chaos
@pytest.mark.parametrize("example", CASES, ids=lambda example: example.folder)
def test_an_example_teaches_both_frameworks(platform: Platform, channel: grpc.Channel, example: Example) -> None:
    _check_example(platform, channel, example, list(MODELS))


def _check_example(platform: Platform, channel: grpc.Channel, example: Example, trained: list[Framework]) -> None:
    deployment = _deploy(channel, example, trained)
    _send(platform, example, deployment.id)
    watch_deployment(channel, deployment, quiet=True, timeout_s=DEADLINE_S)
    results = ResultCollectorStub(channel)
    assert len(deployment.result_ids) == len(trained)
    for result_id in deployment.result_ids:
        result = results.GetResult(result_collector_pb2.GetResultRequest(id=result_id))
        assert result.state == deployment_pb2.STATE_FINISHED, result.error
        sizes = result.split_sizes
        assert sizes.training + sizes.validation + sizes.test == example.records
        _check_metrics(result.metrics.splits["test"].values, example)
    _check_stream(channel, example, deployment.id)


def _deploy(channel: grpc.Channel, example: Example, trained: list[Framework]) -> deployment_pb2.Deployment:
    """A training of the example's models of these frameworks; both are created."""
    registry, model_ids = ModelRegistryStub(channel), {}
    for framework, file in MODELS.items():
        code = (EXAMPLES / example.folder / file).read_text()
        model = model_pb2.Model(name=f"example-{example.folder}-{file[:5]}", framework=framework, code=code)
        create_model = model_registry_pb2.CreateModelRequest(model=model)
        model_ids[framework] = registry.CreateModel(create_model, timeout=120).id
    chosen = [model_ids[framework] for framework in trained]
    configuration = configuration_pb2.Configuration(name=f"example-{example.folder}", model_ids=chosen)
    request = model_registry_pb2.CreateConfigurationRequest(configuration=configuration)
    deployment = deployment_pb2.Deployment(
        configuration_id=registry.CreateConfiguration(request).id,
        settings=deployment_pb2.TrainingSettings(
            batch_size=example.batch_size,
            seed=3,
            tensorflow=deployment_pb2.FrameworkArguments(fit_args=f"epochs={example.epochs}"),
            pytorch=deployment_pb2.FrameworkArguments(fit_args=f"max_epochs={example.epochs}"),
        ),
    )
    create = deployment_manager_pb2.CreateDeploymentRequest(deployment=deployment)
    return DeploymentManagerStub(channel).CreateDeployment(create, timeout=60)  # type: ignore[no-any-return]


def _send(platform: Platform, example: Example, deployment_id: int) -> None:
    """Run the example's producer as its README says."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / example.folder / "send.py", str(deployment_id), platform.state.kafka],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Sent {example.records}" in done.stdout


def _check_metrics(values: Mapping[str, float], example: Example) -> None:
    for metric, bound in example.bounds.items():
        assert values[metric] < bound if metric == "loss" else values[metric] > bound, values


def _check_stream(channel: grpc.Channel, example: Example, deployment_id: int) -> None:
    catalog = StreamCatalogStub(channel)
    (stream,) = catalog.ListStreams(stream_catalog_pb2.ListStreamsRequest(deployment_id=deployment_id)).streams
    assert (stream.input_format, stream.dialect) == (example.data_format, example.dialect)
    assert stream.record_count == example.records
    head = catalog.GetStreamHead(stream_catalog_pb2.GetStreamHeadRequest(id=stream.id, record_count=3), timeout=60)
    assert len(head.records) == 3
    assert all(record.sample and record.label and not record.decode_error for record in head.records)
