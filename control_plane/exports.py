"""Results in other formats: converted by the executors, once each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from control_plane.executor_client import ExecutorClient
from control_plane.store import Store, results, states
from control_plane.validation import refuse
from headrace.errors import FailedPrecondition, FieldViolation
from headrace.v1 import deployment_pb2, error_pb2, model_pb2
from headrace.v1.result_pb2 import Artifact, Result
from sandbox.exports import EXPORT_FORMATS, ExportFormat

FORMATS: Mapping[int, Mapping[str, ExportFormat]] = {
    model_pb2.FRAMEWORK_TENSORFLOW: EXPORT_FORMATS["tensorflow"],
    model_pb2.FRAMEWORK_PYTORCH: EXPORT_FORMATS["pytorch"],
}


class Exports:
    """Who asks for a conversion that is under way joins it, and it ends although nobody waits for it any more."""

    def __init__(self, store: Store, executors: ExecutorClient) -> None:
        self._store = store
        self._executors = executors
        self._under_way: dict[tuple[int, str], asyncio.Task[Artifact]] = {}

    async def artifact(self, result_id: int, format: str) -> Artifact:
        """The result's model in a format, which may take a while.

        Raises WRONG_STATE, INVALID_FIELD with the formats that there are, and whatever the executor raises.
        """
        result = await self._store.read(lambda: results.get(result_id, full=False))
        form = _checked(result, format)
        if (there := _named(result, form.file)) is not None:
            return there
        return await asyncio.shield(self._conversion(result, format, form))

    def _conversion(self, result: Result, format: str, form: ExportFormat) -> asyncio.Task[Artifact]:
        key = (result.id, format)
        if key not in self._under_way:
            task = asyncio.create_task(self._convert(result, format, form), name=f"export {format} of {result.id}")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return self._under_way[key]

    def _forget(self, key: tuple[int, str], done: asyncio.Task[Artifact]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # Somebody has looked at it, whoever still waits.

    async def _convert(self, result: Result, format: str, form: ExportFormat) -> Artifact:
        await self._executors.export(result.framework, result.id, format)
        stored = _named(await self._store.read(lambda: results.get(result.id, full=False)), form.file)
        if stored is None:
            raise FailedPrecondition(
                error_pb2.REASON_NO_ARTIFACT,
                f"the executor says that it exported the result {result.id}, but there is no {form.file}; try again",
                resource="artifact",
                id=result.id,
                name=form.file,
            )
        return stored


def _checked(result: Result, format: str) -> ExportFormat:
    known = FORMATS[result.framework]
    if format not in known:
        refuse([FieldViolation("format", f"must be one of {', '.join(known)}, not {format[:80]!r}")])
    if result.state != deployment_pb2.STATE_FINISHED:
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the result {result.id} is {states.state_name(result.state)}; only one that is FINISHED is exported",
            resource="result",
            id=result.id,
            state=states.state_name(result.state),
        )
    return known[format]


def _named(result: Result, file: str) -> Artifact | None:
    return next((artifact for artifact in result.artifacts if artifact.name == file), None)
