"""What every package's tests share: one real Kafka broker for the whole session."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.broker import Broker
from streams.kafka import KafkaSettings, ensure_topics

# Tests of compaction and of expiry cannot wait for the production values.
FAST_BROKER = {
    "log.cleaner.backoff.ms": "100",
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "100",
    "log.segment.delete.delay.ms": "100",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
}

# One whole platform; a worker of each framework.
SHARED_BY_FOLDER = ("e2e", "frameworks")
LONGEST = ("e2e", "trainer", "inferencer", "frameworks", "sinks", "control_plane")


# Before the plugins: the groups of `make test` are taken from the marks when its own hook runs.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`make test`) a file stays on one of them, and so does a folder that shares what is dear.

    The folders that take longest come first: what is left at the end, when one process waits for the others, is short.
    """
    for item in items:
        shared = _folder(item) in SHARED_BY_FOLDER
        item.add_marker(pytest.mark.xdist_group(_folder(item) if shared else str(item.path)))
    items.sort(key=lambda item: LONGEST.index(_folder(item)) if _folder(item) in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """A group shows in the ids; where xdist and pytest do not fit, none does, and nothing else tells."""
    if node.config.getoption("dist") == "loadgroup" and not all("@" in one for one in ids):
        raise pytest.UsageError("the tests are not grouped: this pytest-xdist does not fit this pytest")


def _folder(item: pytest.Item) -> str:
    """Of the tests: the package that they are about."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests. A test that stops or kills its broker asks for `own_broker`."""
    with Broker(tmp_path_factory.mktemp("broker"), port=0, settings=FAST_BROKER, stop_with_parent=True) as running:
        yield running


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[[], Broker]]:
    """Makes brokers for one test alone: started and ready, killed at its end."""
    brokers: list[Broker] = []

    def make() -> Broker:
        home = tmp_path / f"broker-{len(brokers)}"
        brokers.append(Broker(home, port=0, settings=FAST_BROKER, stop_with_parent=True))
        brokers[-1].start()
        brokers[-1].wait_ready()
        return brokers[-1]

    yield make
    for made in brokers:
        made.kill()


@pytest.fixture(scope="session")
def kafka(broker: Broker) -> KafkaSettings:
    """The session's broker, for clients."""
    return KafkaSettings(broker.bootstrap_servers)


@pytest.fixture
def topic(kafka: KafkaSettings) -> Callable[..., str]:
    """Makes topics that no other test knows: `topic(partitions=1, cleanup_policy="compact", …)`."""
    run, numbers = uuid.uuid4().hex[:8], itertools.count()

    def make(partitions: int = 1, **config: str) -> str:
        name = f"test-{run}-{next(numbers)}"
        ensure_topics(kafka, {name: partitions}, config={key.replace("_", "."): v for key, v in config.items()})
        return name

    return make
