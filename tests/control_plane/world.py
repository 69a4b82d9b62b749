"""A reconciler at work on real processes, in a thread of the test."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from control_plane.cluster import AsyncCluster, Observed
from control_plane.local import LocalCluster
from control_plane.names import replica_name, trainer_name
from control_plane.reconciler import Place, Reconciler, reconciling
from control_plane.store import Store, deployments, inferences, reports, results, streams
from headrace.v1 import (
    deployment_pb2,
    inference_pb2,
    model_pb2,
    result_collector_pb2,
    result_pb2,
    stream_catalog_pb2,
    stream_pb2,
)
from tests.control_plane.actors import actor
from tests.control_plane.conftest import new_training
from tests.support import eventually

T = TypeVar("T")

RAW = {"data_type": "uint8", "data_reshape": "8 8", "label_type": "uint8", "label_reshape": ""}


class World:
    """What a test looks at and tells."""

    def __init__(self, home: Path, store: Store) -> None:
        self.home, self.store = home, store
        self.cluster = LocalCluster(home, command=actor)
        self._numbers = itertools.count()

    @contextmanager
    def reconciled(self, max_trainings: int = 2, *, stop_workloads: bool = False) -> Iterator[None]:
        """A reconciler runs until the block ends."""
        place = Place("127.0.0.1:1", "127.0.0.1:1", max_trainings, stop_workloads)
        ready, stop = threading.Event(), threading.Event()

        async def run() -> None:
            async with reconciling(Reconciler(self.store, AsyncCluster(self.cluster), place)):
                ready.set()
                await asyncio.to_thread(stop.wait)

        thread = threading.Thread(target=lambda: asyncio.run(run()), name="reconciler")
        thread.start()
        ready.wait(10)
        try:
            yield
        finally:
            stop.set()
            thread.join(30)

    def read(self, query: Callable[[], T]) -> T:
        return self.store.read_now(query)

    def write(self, query: Callable[[], T]) -> T:
        return self.store.write_now(query)

    def training(self, *names: str, stream: bool = True) -> Sequence[int]:
        """The results of a new deployment that is not started yet."""
        stream_id = self.stream(names[0]) if stream else 0
        return list(self.write(lambda: new_training(*names, stream_id=stream_id, start=False)).result_ids)

    def stream(
        self,
        key: str,
        deployment_id: int = 0,
        *,
        incremental: bool = False,
        topic: str = "no-such-topic",
        partition: int = 0,
        topic_ids: Mapping[str, str] | None = None,
    ) -> int:
        """Record an announcement; returns the stream's id."""
        offset = len(self.read(lambda: streams.page(before_id=None, limit=1000)))
        request = stream_catalog_pb2.RecordStreamRequest(
            source=stream_pb2.StreamSource(topic="control", partition=0, offset=offset),
            dialect=stream_pb2.DIALECT_HEADRACE,
            announcement=stream_pb2.StreamAnnouncement(
                message_id=f"{key} {offset}",
                deployment_id=deployment_id,
                ranges=[stream_pb2.OffsetRange(topic=topic, partition=partition, start=0, end=10)],
                topic_ids=topic_ids,
                input_format=stream_pb2.DATA_FORMAT_RAW,
                incremental=incremental,
            ),
        )
        recorded = self.write(lambda: streams.record(request)).stream
        assert recorded is not None
        return recorded.id

    def result(self, id: int) -> result_pb2.Result:
        return self.read(lambda: results.get(id))

    def deployment_of(self, result_id: int) -> deployment_pb2.Deployment:
        return self.read(lambda: deployments.get(results.get(result_id).deployment_id))

    def report(self, result_id: int, *changes: result_collector_pb2.StateChange) -> None:
        """As its present attempt."""
        result = self.result(result_id)

        def store() -> None:
            first = reports.position(result_id, result.attempt).acked_seq + 1
            events = [
                result_collector_pb2.ReportRequest(
                    result_id=result_id, attempt=result.attempt, seq=first + number, state_change=change
                )
                for number, change in enumerate(changes)
            ]
            reports.store(result_id, result.attempt, events)

        self.write(store)

    def finish(self, result_id: int) -> None:
        """As a trainer does: the model is stored, then FINISHED is, then the process ends."""
        attempt = self.result(result_id).attempt
        artifact = result_pb2.Artifact(name="model.keras", sha256="0" * 64, size_bytes=1)
        self.write(lambda: results.add_artifact(result_id, attempt, artifact))
        self.report(result_id, result_collector_pb2.StateChange(state=deployment_pb2.STATE_FINISHED))
        self.tell(trainer_name(result_id, attempt), 0)

    def tell(self, name: str, code: int) -> None:
        """Have a workload end."""
        work = f"result-{name.split('-')[1]}" if name.startswith("train") else name.replace("infer", "inference")
        folder = self.home / "work" / work
        (folder / "do.new").write_text(str(code))
        (folder / "do.new").rename(folder / "do")  # whole, whenever it is looked for

    def trainer(self, result_id: int) -> Observed | None:
        """The process of the present attempt."""
        name = trainer_name(result_id, self.result(result_id).attempt)
        found = self.cluster.list().workloads.get(name)
        return found if found is not None and found.is_running and self.log(name) else None

    def trains(self, result_id: int, attempt: int = 1) -> Observed:
        """Wait until this attempt runs."""
        found = eventually(lambda: self.result(result_id).attempt == attempt and self.trainer(result_id))
        assert isinstance(found, Observed)
        return found

    def trainers(self) -> set[int]:
        """The results that have a running process."""
        seen = self.cluster.list().workloads
        return {int(name.split("-")[1]) for name, one in seen.items() if name.startswith("train") and one.is_running}

    def log(self, name: str) -> str:
        return self.cluster.read_logs(name, 0).data.decode()

    def finished(
        self, name: str, config: Mapping[str, str] = RAW, *, outputs: Mapping[str, Sequence[int]] | None = None
    ) -> int:
        """A finished result of a new model, trained on RAW records. outputs: name to the shape of a row."""
        specs = [model_pb2.TensorSpec(name=one, shape=[-1, *shape]) for one, shape in (outputs or {}).items()]
        signature = model_pb2.Signature(outputs=specs)
        (result_id,) = self.write(lambda: new_training(name, signature=signature)).result_ids
        return self._finished(result_id, config)

    def next_version(self, result_id: int) -> int:
        """Another finished result of the same model."""
        before = self.deployment_of(result_id)
        wish = deployment_pb2.Deployment(configuration_id=before.configuration_id, settings=before.settings)
        (again,) = self.write(lambda: deployments.create(wish)).result_ids
        self.write(lambda: results.start_attempt(again))
        return self._finished(again, RAW)

    def _finished(self, result_id: int, config: Mapping[str, str]) -> int:
        stream = stream_pb2.Stream(input_format=stream_pb2.DATA_FORMAT_RAW, input_config=config)
        outcome = result_collector_pb2.Outcome(stream=stream)
        finish = result_collector_pb2.StateChange(state=deployment_pb2.STATE_FINISHED)
        events = [
            result_collector_pb2.ReportRequest(result_id=result_id, attempt=1, seq=1, outcome=outcome),
            result_collector_pb2.ReportRequest(result_id=result_id, attempt=1, seq=2, state_change=finish),
        ]
        artifact = result_pb2.Artifact(name="model.keras", sha256="0" * 64, size_bytes=1)
        self.write(lambda: results.add_artifact(result_id, 1, artifact))
        self.write(lambda: reports.store(result_id, 1, events))
        return result_id

    def inference(self, replicas: int = 1) -> inference_pb2.Inference:
        """A new one, of a new finished result."""
        number = next(self._numbers)
        wish = inference_pb2.Inference(
            name=f"inference {number}",
            result_id=self.finished(f"served {number}"),
            replicas=replicas,
            input_topic="in",
            output_topic="out",
        )
        return self.write(lambda: inferences.create(wish))

    def replica(self, id: int, slot: int) -> Observed | None:
        """The slot's process once it has begun."""
        name = replica_name(id, slot)
        found = self.cluster.list().workloads.get(name)
        begun = found is not None and found.is_running and f"begun {found.attempt}\n" in self.log(name)
        return found if begun else None

    def answers(self, id: int, slot: int, attempt: int = 1) -> Observed:
        """Wait until this attempt of the slot runs, and say so as it would."""
        found = eventually(lambda: (one := self.replica(id, slot)) is not None and one.attempt == attempt and one)
        assert isinstance(found, Observed)
        said = inference_pb2.ReplicaState(slot=slot, state=inference_pb2.INFERENCE_STATE_RUNNING)
        self.write(lambda: inferences.report_replica(id, attempt, said))
        return found

    def state_of(self, id: int) -> int:
        return self.read(lambda: inferences.get(id)).state
