"""Trainers that a real control plane starts, and starts again."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.client import connect
from headrace.v1 import deployment_pb2, model_pb2, result_pb2
from headrace.v1.model_registry_pb2 import UpdateModelRequest
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2 import DownloadArtifactRequest, GetResultRequest, ListEpochsRequest
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.stream_catalog_pb2 import DeleteStreamRequest
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from streams.kafka import KafkaSettings
from tests.support import eventually
from tests.trainer import digits
from tests.trainer.control_plane import (
    EPOCHS,
    LONG_S,
    announce,
    create_training,
    epochs_of,
    finished,
    patiently,
    running,
    train_again,
)


def test_kills_of_control_plane_and_trainer_cost_no_epoch(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path
) -> None:
    fail = "after_epoch:exit@2,before_upload:exit@1"
    with ExitStack() as stack:
        plane = stack.enter_context(running(tmp_path, kafka.bootstrap_servers, fail))
        channel = stack.enter_context(connect(plane.address))
        results = ResultCollectorStub(channel)
        deployment_id = create_training(channel, model_pb2.FRAMEWORK_PYTORCH)

        def reached(state: "deployment_pb2.State") -> result_pb2.Result | None:
            result: result_pb2.Result = patiently(lambda: results.GetResult(GetResultRequest(id=1)))
            assert result.state != deployment_pb2.STATE_FAILED, result.error
            return result if result.state == state else None

        eventually(lambda: reached(deployment_pb2.STATE_WAITING), timeout_s=LONG_S)
        plane.process.kill()
        plane.process.wait()
        plane.start()
        name = topic(partitions=2)
        stream = digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
        patiently(lambda: announce(channel, deployment_id, stream))
        result = eventually(lambda: reached(deployment_pb2.STATE_FINISHED), timeout_s=LONG_S)

        assert result is not None
        assert result.attempt == 3, "one attempt died in an epoch, one before its upload"
        epochs = results.ListEpochs(ListEpochsRequest(result_id=result.id)).epochs
        assert [epoch.number for epoch in epochs] == list(range(1, EPOCHS + 1))
        assert set(result.metrics.splits) == {"training", "validation", "test"}
        (artifact,) = result.artifacts
        chunks = results.DownloadArtifact(DownloadArtifactRequest(result_id=result.id, name=artifact.name))
        assert hashlib.sha256(b"".join(chunk.data for chunk in chunks)).hexdigest() == artifact.sha256


@pytest.mark.chaos
def test_all_models_of_a_deployment_train_from_records_that_are_read_once(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Path
) -> None:
    name = topic(partitions=2)
    stream = digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
    with running(tmp_path, kafka.bootstrap_servers) as plane, connect(plane.address) as channel:
        deployment_id = create_training(channel, *[model_pb2.FRAMEWORK_PYTORCH] * 10)
        announce(channel, deployment_id, stream)
        results = [finished(channel, result_id) for result_id in range(1, 11)]
        assert len({result.reading_time.ToNanoseconds() for result in results}) == 1, "that of the one reading"
        eventually(lambda: not list(tmp_path.glob("work/*")))


# That Keras repeats itself is seen by the end-to-end test of the commands, too.
@pytest.mark.parametrize(
    "frameworks",
    [
        (model_pb2.FRAMEWORK_PYTORCH,),
        pytest.param((model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH), marks=pytest.mark.chaos),
    ],
    ids=["torch", "both"],
)
def test_a_result_trained_again_has_the_same_numbers(
    kafka: KafkaSettings,
    topic: Callable[..., str],
    tmp_path: Path,
    frameworks: tuple[model_pb2.Framework, ...],
) -> None:
    ids = range(1, len(frameworks) + 1)
    with ExitStack() as stack:
        plane = stack.enter_context(running(tmp_path, kafka.bootstrap_servers))
        channel = stack.enter_context(connect(plane.address))
        deployment_id = create_training(channel, *frameworks)
        name = topic(partitions=2)
        stream = digits.stream_of(name, digits.send(kafka, name, 2, digits.records()))
        recorded = announce(channel, deployment_id, stream)
        firsts = [finished(channel, result_id) for result_id in ids]
        # The model is another by now, and nobody remembers the announcement.
        for model_id in ids:
            change = UpdateModelRequest(model=model_pb2.Model(id=model_id, code="model = None"))
            ModelRegistryStub(channel).UpdateModel(change)
        StreamCatalogStub(channel).DeleteStream(DeleteStreamRequest(id=recorded.stream.id))
        again_ids = [train_again(channel, first.id) for first in firsts]
        agains = [finished(channel, result_id) for result_id in again_ids]

        for framework, first, again in zip(frameworks, firsts, agains, strict=True):
            assert (again.framework, again.version) == (framework, 2)
            assert again.stream == first.stream
            assert again.confusion_matrix == first.confusion_matrix
            assert set(again.metrics.splits) == {"training", "validation", "test"}
            assert again.metrics == first.metrics, "bit for bit"
            assert epochs_of(channel, again.id) == epochs_of(channel, first.id)
