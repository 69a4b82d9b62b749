"""A control plane that keeps everything in memory: real servicers on a real server, for the gateway and its pages.

A test changes it (`train`, `enter`, `epoch`, `answer`, …) in the loop that serves it, and all who watch are told.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.api import httpbody_pb2

from headrace.errors import HeadraceError, NotFound
from headrace.server import serving
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_manager_pb2_grpc,
    deployment_pb2,
    error_pb2,
    inference_pb2,
    model_pb2,
    model_registry_pb2,
    model_registry_pb2_grpc,
    predictions_pb2,
    predictions_pb2_grpc,
    result_collector_pb2,
    result_collector_pb2_grpc,
    result_pb2,
    stream_pb2,
)

ENDED = frozenset({deployment_pb2.STATE_FINISHED, deployment_pb2.STATE_FAILED, deployment_pb2.STATE_CANCELLED})
INFERENCE_ENDED = frozenset({inference_pb2.INFERENCE_STATE_STOPPED, inference_pb2.INFERENCE_STATE_FAILED})
T = TypeVar("T")
MetricsBySplit = Mapping[str, Mapping[str, float]]


class ControlPlane:
    """Its state, and how a test changes it."""

    def __init__(self) -> None:
        self.port = 0
        self.models: dict[int, model_pb2.Model] = {}
        self.configurations: dict[int, configuration_pb2.Configuration] = {}
        self.deployments: dict[int, deployment_pb2.Deployment] = {}
        self.results: dict[int, result_pb2.Result] = {}
        self.inferences: dict[int, inference_pb2.Inference] = {}
        self.events: list[result_pb2.ResultEvent] = []
        self.answers: dict[int, list[predictions_pb2.Prediction]] = {}
        self.dead_letters: list[predictions_pb2.DeadLetter] = []
        self.replayed: list[int] = []
        self.logs: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self.files: dict[tuple[int, str], bytes] = {}
        self.watchers = 0
        self._changed = asyncio.Event()
        self._watch_number = 0

    # ---- what a test does --------------------------------------------------------------------------------------

    def train(self, *names: str, **fields: Any) -> deployment_pb2.Deployment:
        """A new training of models with these names."""
        model_ids = [self._model(name) for name in names]
        configuration = configuration_pb2.Configuration(
            id=len(self.configurations) + 1, name="-and-".join(names), model_ids=model_ids
        )
        self.configurations[configuration.id] = configuration
        deployment = deployment_pb2.Deployment(
            id=len(self.deployments) + 1,
            configuration_id=configuration.id,
            state=deployment_pb2.STATE_CREATED,
            **fields,
        )
        deployment.create_time.GetCurrentTime()
        self.deployments[deployment.id] = deployment
        for name, model_id in zip(names, model_ids, strict=True):
            result = result_pb2.Result(
                id=len(self.results) + 1,
                deployment_id=deployment.id,
                model_id=model_id,
                model_name=name,
                attempt=1,
                settings=deployment.settings,
            )
            self.results[result.id] = result
            deployment.result_ids.append(result.id)
            self.enter(result.id, deployment_pb2.STATE_CREATED)
        return deployment

    def enter(self, result_id: int, state: deployment_pb2.State, error: HeadraceError | None = None) -> None:
        """A result goes to another state; its deployment follows."""
        result = self.results[result_id]
        result.state = state
        if error is not None:
            result.error.CopyFrom(error.to_status())
        if state == deployment_pb2.STATE_STARTING:
            result.start_time.GetCurrentTime()
        if state in ENDED:
            result.end_time.GetCurrentTime()
        self._derive(self.deployments[result.deployment_id])
        self._add_event(result_id, result=result)

    def progress(self, result_id: int, **fields: Any) -> None:
        """Progress of a result; only the latest stays stored."""
        result = self.results[result_id]
        result.progress.CopyFrom(result_pb2.Progress(phase=result.state, **fields))
        self.events = [
            event
            for event in self.events
            if not (event.result_id == result_id and event.WhichOneof("kind") == "progress")
        ]
        self._add_event(result_id, progress=result.progress)

    def epoch(self, result_id: int, number: int, metrics: MetricsBySplit) -> None:
        """An epoch ended."""
        epoch = result_pb2.Epoch(result_id=result_id, attempt=self.results[result_id].attempt, number=number)
        epoch.end_time.GetCurrentTime()
        for split, values in metrics.items():
            epoch.metrics.splits[split].values.update(values)
            self.results[result_id].metrics.splits[split].CopyFrom(epoch.metrics.splits[split])
        self._add_event(result_id, epoch=epoch)

    def infer(self, result_id: int, **fields: Any) -> inference_pb2.Inference:
        """A new inference of a result."""
        result = self.results[result_id]
        inference = inference_pb2.Inference(
            id=len(self.inferences) + 1,
            result_id=result_id,
            model_id=result.model_id,
            model_name=result.model_name,
            model_version=result.version or 1,
            state=inference_pb2.INFERENCE_STATE_STARTING,
            **fields,
        )
        inference.create_time.GetCurrentTime()
        self.inferences[inference.id] = inference
        self.answers[inference.id] = []
        return inference

    def report(self, inference_id: int, *replicas: inference_pb2.ReplicaState) -> None:
        """The replicas say how they are."""
        inference = self.inferences[inference_id]
        del inference.replica_states[:]
        inference.replica_states.extend(replicas)
        self._notify()

    def enter_inference(
        self, inference_id: int, state: inference_pb2.InferenceState, error: HeadraceError | None = None
    ) -> None:
        """An inference goes to another state."""
        inference = self.inferences[inference_id]
        inference.state = state
        if error is not None:
            inference.error.CopyFrom(error.to_status())
        self._notify()

    def answer(
        self, inference_id: int, values: Sequence[float], offset: int, partition: int = 0, **fields: Any
    ) -> None:
        """An inference answered a record."""
        inference = self.inferences[inference_id]
        prediction = predictions_pb2.Prediction(
            values=values,
            source={"topic": inference.input_topic, "partition": partition, "offset": offset},
            model=f"{inference.model_name}/{inference.model_version}",
            **fields,
        )
        prediction.time.GetCurrentTime()
        self.answers[inference_id].append(prediction)
        self._notify()

    def log(self, kind: str, id: int, workload: str, *lines: str) -> None:
        """A process of a `deployment` or an `inference` wrote lines."""
        self.logs.setdefault((kind, id), []).extend((workload, line) for line in lines)
        self._notify()

    def refuse(self, deployment_id: int, refused: stream_pb2.RefusedAnnouncement) -> None:
        """An announcement for a deployment was refused."""
        deployment = self.deployments[deployment_id]
        deployment.refused_announcement.CopyFrom(refused)
        for result_id in deployment.result_ids:
            self._add_event(result_id, refused_announcement=refused)

    def end_watches(self) -> None:
        """Ends every watch in order, as the server does after ten minutes."""
        self._watch_number += 1
        self._notify()

    # ---- what servicers use --------------------------------------------------------------------------------------

    async def changes(self) -> AsyncIterator[None]:
        """Gives a turn now and after every change, until watches are ended."""
        number = self._watch_number
        self.watchers += 1
        try:
            while number == self._watch_number:
                changed = self._changed
                yield
                await changed.wait()
        finally:
            self.watchers -= 1

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _model(self, name: str) -> int:
        model = model_pb2.Model(id=len(self.models) + 1, name=name)
        self.models[model.id] = model
        return model.id

    def _add_event(self, result_id: int, **kind: Any) -> None:
        sequence = self.events[-1].sequence + 1 if self.events else 1
        event = result_pb2.ResultEvent(
            sequence=sequence, result_id=result_id, attempt=self.results[result_id].attempt, **kind
        )
        event.time.GetCurrentTime()
        self.events.append(event)
        self._notify()

    def _derive(self, deployment: deployment_pb2.Deployment) -> None:
        results = [self.results[one] for one in deployment.result_ids if one in self.results]
        states = {result.state for result in results}
        running = states - ENDED
        deployment.state = min(running) if running else max(states)
        if deployment.state == deployment_pb2.STATE_FAILED:
            deployment.error.CopyFrom(next(r.error for r in results if r.state == deployment_pb2.STATE_FAILED))
        if not running:
            deployment.end_time.GetCurrentTime()


def _get(items: Mapping[int, T], id: int, what: str) -> T:
    if id not in items:
        raise NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, f"no {what} has the id {id}", resource=what, id=id)
    return items[id]


class Registry(model_registry_pb2_grpc.ModelRegistryServicer):
    def __init__(self, plane: ControlPlane):
        self._plane = plane

    async def GetConfiguration(self, request: Any, context: Any) -> configuration_pb2.Configuration:
        return _get(self._plane.configurations, request.id, "configuration")

    async def ListConfigurations(self, request: Any, context: Any) -> Any:
        newest_first = reversed(self._plane.configurations.values())
        return model_registry_pb2.ListConfigurationsResponse(configurations=newest_first)


class Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    def __init__(self, plane: ControlPlane):
        self._plane = plane

    async def GetDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        return _get(self._plane.deployments, request.id, "deployment")

    async def ListDeployments(self, request: Any, context: Any) -> Any:
        newest_first = reversed(self._plane.deployments.values())
        return deployment_manager_pb2.ListDeploymentsResponse(deployments=newest_first)

    async def CancelDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        deployment = _get(self._plane.deployments, request.id, "deployment")
        for result_id in deployment.result_ids:
            if self._plane.results[result_id].state not in ENDED:
                self._plane.enter(result_id, deployment_pb2.STATE_CANCELLED)
        return deployment

    async def GetInference(self, request: Any, context: Any) -> inference_pb2.Inference:
        return _get(self._plane.inferences, request.id, "inference")

    async def ListInferences(self, request: Any, context: Any) -> Any:
        newest_first = reversed(self._plane.inferences.values())
        return deployment_manager_pb2.ListInferencesResponse(inferences=newest_first)

    async def StopInference(self, request: Any, context: Any) -> inference_pb2.Inference:
        self._plane.enter_inference(request.id, inference_pb2.INFERENCE_STATE_STOPPED)
        return self._plane.inferences[request.id]

    async def WatchLogs(self, request: Any, context: Any) -> AsyncIterator[deployment_manager_pb2.WatchLogsResponse]:
        key = ("inference", request.inference_id) if request.inference_id else ("deployment", request.deployment_id)
        sent = 0
        async for _ in self._plane.changes():
            lines = self._plane.logs.get(key, [])
            for workload, line in lines[sent:]:
                yield deployment_manager_pb2.WatchLogsResponse(workload=workload, lines=[line])
            sent = len(lines)
            if request.no_follow or self._has_ended(*key):
                return

    def _has_ended(self, kind: str, id: int) -> bool:
        if kind == "deployment":
            return _get(self._plane.deployments, id, kind).state in ENDED
        return _get(self._plane.inferences, id, kind).state in INFERENCE_ENDED


class Collector(result_collector_pb2_grpc.ResultCollectorServicer):
    def __init__(self, plane: ControlPlane):
        self._plane = plane

    async def GetResult(self, request: Any, context: Any) -> result_pb2.Result:
        return _get(self._plane.results, request.id, "result")

    async def ListResults(self, request: Any, context: Any) -> Any:
        wanted = [r for r in self._plane.results.values() if request.deployment_id in (0, r.deployment_id)]
        return result_collector_pb2.ListResultsResponse(results=reversed(wanted))

    async def WatchResults(self, request: Any, context: Any) -> AsyncIterator[result_pb2.ResultEvent]:
        ids = [request.result_id]
        if request.deployment_id:
            ids = list(_get(self._plane.deployments, request.deployment_id, "deployment").result_ids)
        after = request.after_sequence
        async for _ in self._plane.changes():
            for event in [e for e in self._plane.events if e.result_id in ids and e.sequence > after]:
                yield event
                after = event.sequence
            if all(_get(self._plane.results, one, "result").state in ENDED for one in ids):
                return

    async def DownloadArtifact(self, request: Any, context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        data = self._plane.files[request.result_id, request.name]
        artifact = result_pb2.Artifact(name=request.name, media_type="application/zip", size_bytes=len(data))
        body = httpbody_pb2.HttpBody(content_type=artifact.media_type)
        body.extensions.add().Pack(artifact)
        yield body
        for start in range(request.offset, len(data), 1000):
            yield httpbody_pb2.HttpBody(data=data[start : start + 1000])


class Predictions(predictions_pb2_grpc.PredictionsServicer):
    def __init__(self, plane: ControlPlane):
        self._plane = plane

    async def WatchPredictions(self, request: Any, context: Any) -> AsyncIterator[predictions_pb2.PredictionEvent]:
        inference = _get(self._plane.inferences, request.inference_id, "inference")
        answers = self._plane.answers[inference.id]
        sent = len(answers)
        async for _ in self._plane.changes():
            yield predictions_pb2.PredictionEvent(inference=inference)
            for prediction in answers[sent:]:
                yield predictions_pb2.PredictionEvent(prediction=prediction)
            sent = len(answers)
            if inference.state in INFERENCE_ENDED:
                return

    async def ListDeadLetters(self, request: Any, context: Any) -> predictions_pb2.ListDeadLettersResponse:
        newest_first = list(reversed(self._plane.dead_letters))[: request.page_size]
        return predictions_pb2.ListDeadLettersResponse(dead_letters=newest_first)

    async def ReplayDeadLetters(self, request: Any, context: Any) -> predictions_pb2.ReplayDeadLettersResponse:
        """Two a call."""
        left = [one.offset for one in self._plane.dead_letters if one.offset not in self._plane.replayed]
        self._plane.replayed += left[:2]
        ends = dict(request.ends) or {0: len(self._plane.dead_letters)}
        return predictions_pb2.ReplayDeadLettersResponse(replayed_count=len(left[:2]), done=len(left) <= 2, ends=ends)


def digits_stream(deployment_id: int) -> stream_pb2.Stream:
    """What a stream of the handwritten digits looks like."""
    return stream_pb2.Stream(
        id=1,
        deployment_id=deployment_id,
        ranges=[
            stream_pb2.OffsetRange(topic="digits", partition=0, start=0, end=809),
            stream_pb2.OffsetRange(topic="digits", partition=1, start=12, end=820),
        ],
        range_string="digits:0:0:809,digits:1:12:820",
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "uint8", "label_type": "uint8", "data_reshape": "8 8"},
        validation_rate=0.1,
        test_rate=0.1,
        record_count=1617,
        description="Handwritten digits",
    )


@asynccontextmanager
async def controlling(port: int = 0) -> AsyncIterator[ControlPlane]:
    """A running control plane on loopback."""
    plane = ControlPlane()
    add = [
        (model_registry_pb2_grpc.add_ModelRegistryServicer_to_server, Registry(plane), "headrace.v1.ModelRegistry"),
        (
            deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server,
            Manager(plane),
            "headrace.v1.DeploymentManager",
        ),
        (
            result_collector_pb2_grpc.add_ResultCollectorServicer_to_server,
            Collector(plane),
            "headrace.v1.ResultCollector",
        ),
        (predictions_pb2_grpc.add_PredictionsServicer_to_server, Predictions(plane), "headrace.v1.Predictions"),
    ]
    async with serving(f"127.0.0.1:{port}", add) as server:
        plane.port = server.port
        yield plane
        plane.end_watches()
