"""Records of several fields on their way from Kafka into a model with several inputs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import from_status
from headrace.v1 import model_pb2, stream_pb2
from headrace.v1.deployment_pb2 import TrainingSettings
from streams.kafka import KafkaSettings
from tests.frameworks.models import torch_model
from tests.trainer import digits
from tests.trainer.platform import Platform, Trainer

WINES = [{"alcohol": 0.1 * n, "bottle": n, "colours": [0.5, n % 3, 1.0]} for n in range(60)]


@pytest.fixture
def stream(kafka: KafkaSettings, topic: Callable[..., str]) -> stream_pb2.Stream:
    name = topic()
    counts = digits.send(kafka, name, 1, [(b"%d" % (n % 3), json.dumps(wine).encode()) for n, wine in enumerate(WINES)])
    stream = digits.stream_of(name, counts, input_format=stream_pb2.DATA_FORMAT_JSON)
    stream.input_config.clear()
    stream.input_config["label_type"] = "int64"
    return stream


@pytest.mark.parametrize(
    ("parameters", "ending"),
    [("alcohol, colours", "FINISHED"), ("alcohol, colour", "FAILED")],
    ids=["fields of these names", "a field that is not there"],
)
def test_a_model_with_several_inputs_takes_the_fields_of_their_names(
    platform: Platform, stream: stream_pb2.Stream, kafka: KafkaSettings, tmp_path: Path, parameters: str, ending: str
) -> None:
    first, second = parameters.split(", ")
    code = torch_model(
        "self.net = nn.Linear(4, 3)",
        f"{parameters}):\n        return self.net(torch.cat([{first}[:, None], {second}], 1))",
    )
    result = platform.create(model_pb2.FRAMEWORK_PYTORCH, code, TrainingSettings(batch_size=16), stream)
    trainer = Trainer(platform, kafka.bootstrap_servers, tmp_path, result_id=result)
    trainer.wait()
    assert trainer.states[-1] == ending, trainer.log.read_text()
    # What the records decided is kept, so that an inference decodes its questions alike.
    assert trainer.outcome.stream.input_config["data_fields"].split() == ["alcohol", "bottle", "colours"]
    if ending == "FINISHED":
        assert "not used: bottle" in trainer.log.read_text()
        assert {"training", "validation", "test"} == set(trainer.outcome.metrics.splits)
    else:
        error = from_status(trainer.events[-1].state_change.error)
        assert error.reason_name == "SCHEMA_MISMATCH"
        assert error.metadata == {
            "expected": "alcohol, colour",
            "actual": "alcohol (any), bottle (any), colours (any, 3)",
        }
