"""Whether a training can be created: every bad field at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from control_plane.availability import add_availability
from control_plane.executor_client import ExecutorClient
from control_plane.store import Store, configurations, models, results, states, streams
from control_plane.stream_heads import ASK_TIMEOUT_S, check_topics
from control_plane.training_checks import (
    arguments_of,
    bad_arguments,
    bad_beside_result,
    bad_description,
    bad_resources,
    bad_settings,
    bad_topics,
    refuse_later_features,
)
from headrace.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound, not_yet
from headrace.v1 import error_pb2, model_pb2, result_pb2, stream_pb2
from headrace.v1.deployment_pb2 import Deployment
from streams.control import topics_of
from streams.kafka import KafkaSettings, topic_ids, unknown_topic

_EXPIRED = (stream_pb2.AVAILABILITY_PARTLY_EXPIRED, stream_pb2.AVAILABILITY_EXPIRED)


class DeploymentCheck:
    """Asks the store, the executors and Kafka, as far as a wish concerns them."""

    def __init__(self, store: Store, executors: ExecutorClient, kafka: KafkaSettings) -> None:
        self._store, self._executors, self._kafka = store, executors, kafka

    async def check(self, wish: Deployment) -> None:
        """Raises Unimplemented (NOT_YET), InvalidArgument, NotFound (UNKNOWN_TOPIC for the stream's), Unavailable,
        FailedPrecondition (DATA_EXPIRED, TOPIC_RECREATED).
        """
        refuse_later_features(wish)
        problems = _Problems()
        problems.invalid += bad_settings(wish.settings)
        problems.invalid += bad_resources("deployment.resources", wish.resources)
        problems.invalid += bad_description("deployment.description", wish.description)
        members = await self._find_models(wish.configuration_id, problems)
        stream = await self._find_stream(wish.stream_id, problems)
        problems.invalid += bad_topics(wish, stream)
        if not problems.invalid:
            await self._check_arguments(wish, members, problems)
        problems.refuse()
        if stream is not None:
            await self._check_records(stream, "stream", stream.id)

    async def check_again(self, wish: Deployment) -> None:
        """Of a wish with from_result_id. Raises as `check`, and FailedPrecondition for a result without a stream."""
        refuse_later_features(wish)
        problems = _Problems()
        problems.invalid += bad_beside_result(wish)
        problems.invalid += bad_resources("deployment.resources", wish.resources)
        problems.invalid += bad_description("deployment.description", wish.description)
        result = await self._find_result(wish.from_result_id, problems)
        problems.refuse()
        if result is not None:
            _check_has_stream(result)
            await self._check_records(result.stream, "result", result.id)

    async def _find_result(self, result_id: int, problems: _Problems) -> result_pb2.Result | None:
        try:
            return await self._store.read(lambda: results.get(result_id, full=False))
        except NotFound as error:
            problems.missing.append(FieldViolation("deployment.from_result_id", error.message))
            return None

    async def _find_models(self, configuration_id: int, problems: _Problems) -> Sequence[model_pb2.Model]:
        name = "deployment.configuration_id"
        if not configuration_id:
            problems.invalid.append(FieldViolation(name, "must be the id of a configuration: it says what to train"))
            return []

        def find() -> list[model_pb2.Model]:
            return [models.get(one, full=False) for one in configurations.get(configuration_id).model_ids]

        try:
            return await self._store.read(find)
        except NotFound as error:
            problems.missing.append(FieldViolation(name, error.message))
            return []

    async def _find_stream(self, stream_id: int, problems: _Problems) -> stream_pb2.Stream | None:
        if not stream_id:
            return None
        try:
            return await self._store.read(lambda: streams.get(stream_id))
        except NotFound as error:
            problems.missing.append(FieldViolation("deployment.stream_id", error.message))
            return None

    async def _check_arguments(self, wish: Deployment, members: Sequence[model_pb2.Model], problems: _Problems) -> None:
        """Arguments of `fit` and `evaluate`, of the frameworks that are concerned; no question where there are none."""
        concerned = {member.framework for member in members}
        for framework, arguments in arguments_of(wish.settings).items():
            if framework not in concerned or not (arguments.fit_args.strip() or arguments.evaluate_args.strip()):
                continue
            answer = await self._executors.check_arguments(framework, arguments)
            if found := list(bad_arguments(framework, answer)):
                problems.arguments += found
                problems.is_unknown |= any(one.reason == "UNKNOWN_ARGUMENT" for one in answer.diagnostics)
                problems.known["known_fit_args"] = ", ".join(answer.known_fit_args)
                problems.known["known_evaluate_args"] = ", ".join(answer.known_evaluate_args)

    async def _check_records(self, stream: stream_pb2.Stream, resource: str, id: int) -> None:
        """`resource` and `id` say whose stream it is."""
        if stream.incremental or stream.open_topics:
            raise not_yet("training on a stream without an end", "announce ranges of offsets")
        # Kafka being away is no reason to refuse: the trainer waits for it.
        await add_availability(self._kafka, [stream])
        if stream.availability in _EXPIRED:
            await asyncio.to_thread(_check_topics, self._kafka, stream)
            part = "all" if stream.availability == stream_pb2.AVAILABILITY_EXPIRED else "a part"
            whose = f"stream {id}" if resource == "stream" else f"stream of the {resource} {id}"
            raise FailedPrecondition(
                error_pb2.REASON_DATA_EXPIRED,
                f"Kafka has deleted {part} of the {whose}; send the data again, or choose another stream",
                resource=resource,
                id=id,
                availability=stream_pb2.Availability.Name(stream.availability),
            )


def _check_topics(kafka: KafkaSettings, stream: stream_pb2.Stream) -> None:
    """Raises NotFound (UNKNOWN_TOPIC), FailedPrecondition (TOPIC_RECREATED), Unavailable."""
    names = sorted(topics_of(stream))
    known = topic_ids(kafka, names, ASK_TIMEOUT_S)
    if missing := [name for name in names if name not in known]:
        raise unknown_topic(missing[0])
    check_topics(kafka, stream, ASK_TIMEOUT_S)


def _check_has_stream(result: result_pb2.Result) -> None:
    if not result.HasField("stream"):
        state = states.state_name(result.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {result.id} ({state}) was never given a stream, so it cannot be trained again; "
            "create a deployment of its configuration",
            resource="result",
            id=result.id,
            state=state,
        )


@dataclass
class _Problems:
    """What is wrong, by how wrong it is: the worst decides the code and the reason, and all fields are named."""

    invalid: list[FieldViolation] = field(default_factory=list)
    arguments: list[FieldViolation] = field(default_factory=list)
    missing: list[FieldViolation] = field(default_factory=list)
    # Whether one of the arguments is none that there is; else their values are wrong.
    is_unknown: bool = False
    # The arguments that would be right.
    known: dict[str, str] = field(default_factory=dict)

    def refuse(self) -> None:
        """Raise unless there are none."""
        fields = [*self.invalid, *self.arguments, *self.missing]
        message = "; ".join(f"{one.field}: {one.description}" for one in fields)
        if self.invalid:
            raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, message, fields=fields, field=fields[0].field)
        if self.arguments:
            reason = error_pb2.REASON_UNKNOWN_ARGUMENT if self.is_unknown else error_pb2.REASON_INVALID_FIELD
            error = InvalidArgument(reason, message, fields=fields, field=fields[0].field)
            error.metadata |= self.known
            raise error
        if self.missing:
            resource = fields[0].field.removeprefix("deployment.").removeprefix("from_").removesuffix("_id")
            raise NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, message, fields=fields, resource=resource)
