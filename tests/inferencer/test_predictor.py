"""What a replica asks its worker."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2, model_pb2
from headrace.v1.inference_pb2 import AnswerLabels, Inference
from headrace.v1.result_pb2 import Result
from inferencer.answers import Refusal, encoder_of
from inferencer.predictor import Answers, Predictor, Recipe, RowsMismatch
from inferencer.workers import Workers
from sandbox import session
from sandbox.session import WorkerSession
from streams.codecs import Field, Spec
from tests.frameworks.models import torch_model
from tests.inferencer.worker_processes import workers_in
from tests.sandbox.workers import plain_command
from tests.support import eventually

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
    assert values(answers) == [[5, 10], [11, 40]]


# A record that begins with -3 hangs.
HANGING = torch_model(
    "self.scale = nn.Parameter(torch.tensor(10.0))",
    "x):\n        while (x[:, 0] == -3).any(): pass\n        return x * self.scale",
)


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A model that a record can hang."""
    with WorkerSession.start("pytorch", folder=tmp_path_factory.mktemp("trained")) as trained:
        trained.build("", HANGING)
        [saved] = trained.save(tmp_path_factory.mktemp("weights"))
    return Recipe(Result(framework=model_pb2.FRAMEWORK_PYTORCH, code=HANGING), saved.path)


def values(answers: Answers) -> list[list[float] | str]:
    return [orjson.loads(answer)["values"] if isinstance(answer, bytes) else answer.reason_name for answer in answers]


def test_a_record_that_hangs_the_model_is_refused_and_the_group_is_served_meanwhile(
    hanging: Recipe, tmp_path: Path
) -> None:
    alive: list[int] = []
    with (
        Workers(tmp_path, on_output=print) as workers,
        Predictor(hanging, workers, batch_timeout_s=2) as predictor,
    ):
        predictor.ask({"": np.array([[1], [-3], [2]], np.float32)})
        answers = predictor.answer(lambda: alive.append(1))
    assert values(answers) == [[10], "DEADLINE", [20]]
    assert isinstance(answers[1], Refusal)
    assert answers[1].message == "the model did not answer within 2 s"
    assert len(alive) >= 2


def test_a_model_whose_answers_the_inference_cannot_encode_is_refused_when_it_is_warmed(
    hanging: Recipe, tmp_path: Path
) -> None:
    encode = encoder_of(Inference(labels=AnswerLabels(names=["cat", "dog"])))
    with Workers(tmp_path, spare=False, on_output=print) as workers, Predictor(hanging, workers, encode) as predictor:
        predictor.warm({"": np.zeros((1, 2), np.float32)})
        with pytest.raises(InvalidArgument, match="2 labels") as caught:
            predictor.warm({"": np.zeros((1, 3), np.float32)})
    assert caught.value.reason == error_pb2.REASON_SCHEMA_MISMATCH


def test_a_worker_that_is_killed_like_the_one_before_it_is_replaced_as_well(hanging: Recipe, tmp_path: Path) -> None:
    killed: list[psutil.Process] = []

    def kill() -> None:
        if len(killed) < 2 and (running := workers_in(tmp_path)):
            killed.extend(running)
            running[0].kill()

    with Workers(tmp_path, spare=False, on_output=print) as workers, Predictor(hanging, workers) as predictor:
        kill()
        predictor.ask({"": np.array([[1], [2]], np.float32)})
        assert values(predictor.answer(kill)) == [[10], [20]]
    assert len(killed) == 2


def test_the_spare_answers_at_once_when_the_worker_is_killed(hanging: Recipe, tmp_path: Path) -> None:
    with Workers(tmp_path, on_output=print) as workers, Predictor(hanging, workers) as predictor:
        (first,) = workers_in(tmp_path)
        home = Path(first.cwd())
        eventually(lambda: workers.has_spare, timeout_s=60)
        (spare,) = [one for one in workers_in(tmp_path) if one != first]
        first.kill()
        predictor.ask({"": np.array([[1], [2]], np.float32)})
        started = time.monotonic()
        assert values(predictor.answer(lambda: None)) == [[10], [20]]
        print(f"answered {time.monotonic() - started:.2f} s after the worker was lost")
        assert spare.is_running()
        assert not home.exists()
    assert not spare.is_running()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers without a framework, which are ready at once: a model is a function of an array."""
    monkeypatch.setattr(session, "worker_command", lambda *_, **__: plain_command())


@contextmanager
def predictor_of(code: str, folder: Path) -> Iterator[Predictor]:
    """Answers with a model of the plain worker."""
    recipe = Recipe(Result(framework=model_pb2.FRAMEWORK_PYTORCH, code=code), folder / "no weights")
    with Workers(folder, spare=False, on_output=print) as workers, Predictor(recipe, workers) as predictor:
        yield predictor


def answers_of(predictor: Predictor, rows: list[list[float]]) -> list[list[float] | str]:
    predictor.ask({"": np.array(rows, np.float32)})
    return values(predictor.answer(lambda: None))


# What a model does to the axis of its rows; what it then answers to [1, 1], [-9, 2], [3, 3] and to [4, 4] alone.
WRONG_ROWS: dict[str, tuple[str, list[list[float] | str]]] = {
    "one is lost from each batch of several": ("x[: max(1, len(x) - 1)]", [[1, 1], [-9, 2], [3, 3], [4, 4]]),
    "some are left out": ("x[x[:, 0] != -9]", [[1, 1], "SCHEMA_MISMATCH", [3, 3], [4, 4]]),
    "the only one is squeezed away": ("np.squeeze(x)", [[1, 1], [-9, 2], [3, 3], "SCHEMA_MISMATCH"]),
    "all become one": ("x.sum(0, keepdims=True)", [[1, 1], [-9, 2], [3, 3], [4, 4]]),
    "one is added": ("np.vstack([x, x[:1]])", ["SCHEMA_MISMATCH"] * 4),
}


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("does", WRONG_ROWS)
def test_no_answer_of_a_model_that_gives_another_number_of_rows_goes_to_another_record(
    tmp_path: Path, does: str
) -> None:
    expression, expected = WRONG_ROWS[does]
    with predictor_of(f"model = lambda x: {expression}", tmp_path) as predictor:
        found = answers_of(predictor, [[1, 1], [-9, 2], [3, 3]]) + answers_of(predictor, [[4, 4]])
    assert found == expected


@pytest.mark.usefixtures("plain")
def test_a_record_for_which_the_model_gives_ten_rows_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with predictor_of("model = lambda x: np.squeeze(x)", tmp_path) as predictor:
        predictor.ask({"": np.zeros((1, 10), np.float32)})
        (refusal,) = predictor.answer(lambda: None)
        with pytest.raises(RowsMismatch) as caught:
            predictor.warm({"": np.zeros((1, 10), np.float32)})
        predictor.warm({"": np.zeros((1, 1), np.float32)})  # a scalar is one answer
    assert isinstance(refusal, Refusal)
    assert refusal == Refusal(error_pb2.REASON_SCHEMA_MISMATCH, caught.value.message)
    assert caught.value.metadata == {"output": "output", "rows": "1", "found": "10"}


# A record that begins with -1 ends its worker as the kernel does, always; one that begins with -2 only once.
KILLED = """
import os, signal
from pathlib import Path

def model(x):
    if len(x) > 1:
        raise ValueError("one by one")
    if x[0, 0] == -1 or (x[0, 0] == -2 and not Path(MARK).exists()):
        Path(MARK).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x
"""


@pytest.mark.usefixtures("plain")
def test_a_single_record_whose_worker_is_killed_once_is_answered_and_one_that_ends_each_is_refused(
    tmp_path: Path,
) -> None:
    code = KILLED.replace("MARK", repr(str(tmp_path / "killed")))
    with predictor_of(code, tmp_path / "workers") as predictor:
        assert answers_of(predictor, [[1], [-2], [3]]) == [[1], [-2], [3]]
        assert answers_of(predictor, [[1], [-1], [3]]) == [[1], "WORKER_CRASHED", [3]]
