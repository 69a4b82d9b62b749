"""One worker per framework for all tests: the import is what takes time. Never a framework in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.session import WorkerSession
from tests.frameworks.models import KERAS, TORCH, Models


class Bench:
    """A worker with its framework, and the models that tests build in it."""

    def __init__(self, models: Models, folder: Path) -> None:
        self.models = models
        self._folder = folder
        self._session: WorkerSession | None = None

    @property
    def worker(self) -> WorkerSession:
        """The worker; a new one when a test has ended it."""
        if self._session is None or not self._session.alive:
            self.close()
            self._session = WorkerSession.start(self.models.framework, folder=self._folder)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


@pytest.fixture(scope="session")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    """By framework."""
    made: dict[str, Bench] = {
        models.framework: Bench(models, tmp_path_factory.mktemp("worker")) for models in (KERAS, TORCH)
    }
    yield made
    for bench in made.values():
        bench.close()


@pytest.fixture(scope="session", params=["tensorflow", "pytorch"])
def bench(request: pytest.FixtureRequest, benches: dict[str, Bench]) -> Bench:
    """For tests over both frameworks."""
    return benches[request.param]


@pytest.fixture
def worker(bench: Bench) -> WorkerSession:
    return bench.worker


@pytest.fixture
def models(bench: Bench) -> Models:
    return bench.models


@pytest.fixture
def keras_worker(benches: dict[str, Bench]) -> WorkerSession:
    return benches["tensorflow"].worker


@pytest.fixture
def torch_worker(benches: dict[str, Bench]) -> WorkerSession:
    return benches["pytorch"].worker
