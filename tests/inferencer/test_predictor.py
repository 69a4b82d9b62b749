"""What a replica asks its worker."""

from pathlib import Path

import numpy as np
import orjson

from headrace.v1 import model_pb2
from headrace.v1.result_pb2 import Result
from inferencer.predictor import Predictor, Recipe
from inferencer.workers import Workers
from sandbox.session import WorkerSession
from streams.codecs import Field, Spec
from tests.frameworks.models import torch_model

CODE = torch_model(
    "self.scale = nn.Parameter(torch.tensor(10.0))",
    "left, right):\n        return torch.stack([left.sum(1), right * self.scale], 1)",
)
F4 = np.dtype(np.float32)
FIELDS = (Field("right", Spec(F4, ()), 0, 1), Field("left", Spec(F4, (2,)), 1, 3))


def test_a_model_with_several_inputs_answers_records_of_several_fields(tmp_path: Path) -> None:
    with WorkerSession.start("pytorch", folder=tmp_path / "trained") as trained:
        trained.build("", CODE)
        [saved] = trained.save(tmp_path)
    result = Result(framework=model_pb2.FRAMEWORK_PYTORCH, code=CODE)
    with (
        Workers(tmp_path / "workers", spare=False, on_output=print) as workers,
        Predictor(Recipe(result, saved.path), workers) as predictor,
    ):
        predictor.ask({"": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, FIELDS)
        answers = predictor.answer(lambda: None)
    values = [orjson.loads(answer)["values"] for answer in answers if isinstance(answer, bytes)]
    assert values == [[5, 10], [11, 40]]
