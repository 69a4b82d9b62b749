"""CodeExecutor: says what code builds, and what is wrong with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from executors.exporting import export
from executors.settings import FRAMEWORKS, Settings
from executors.spares import Spares
from headrace.errors import FailedPrecondition, FieldViolation, HeadraceError, InvalidArgument, ResourceExhausted
from headrace.v1 import code_executor_pb2 as pb
from headrace.v1 import code_executor_pb2_grpc, error_pb2
from sandbox.jobs import Arguments
from sandbox.session import WorkerSession

CODE_LIMIT_BYTES = 1024 * 1024
RETRY_AFTER_S = 2.0


class CodeExecutor(code_executor_pb2_grpc.CodeExecutorServicer):
    """Of one framework. Each piece of code gets a worker of its own, which is ended afterwards whatever it did."""

    def __init__(self, settings: Settings, spares: Spares) -> None:
        self._settings = settings
        self._spares = spares
        self._validations = _Places("validations", settings.validations, settings.queue)
        # One at a time: it takes memory, and the processor for seconds.
        self._exports = _Places("exports", 1, settings.queue)

    async def ValidateCode(
        self, request: pb.ValidateCodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ValidateCodeResponse:
        """Wrong code is an answer with diagnostics; errors of the call are about the call."""
        self._check_framework(request.framework)
        _check_code(request)
        async with self._validations.taken(), self._spares.taken() as session:
            return await self._spares.in_thread(self._validate, session, request)

    async def ValidateSettings(
        self, request: pb.ValidateSettingsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ValidateSettingsResponse:
        """Wrong arguments are an answer with diagnostics."""
        self._check_framework(request.framework)
        given = request.arguments
        async with self._validations.waiting(), self._spares.clean() as session:
            check = partial(session.check_arguments, given.fit_args, given.evaluate_args)
            found: Arguments = await self._spares.in_thread(check)
        return pb.ValidateSettingsResponse(
            diagnostics=found.diagnostics,
            known_fit_args=found.known_fit_args,
            known_evaluate_args=found.known_evaluate_args,
        )

    async def Export(self, request: pb.ExportRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.ExportResponse:
        """Answers when the file is stored; a caller that goes away ends it."""
        if not self._settings.address:
            raise _no_control_plane(self._settings.framework)
        async with self._exports.taken(), self._spares.own(self._settings.export_limits) as session:
            artifact = await self._spares.in_thread(export, self._settings, session, request)
        return pb.ExportResponse(artifact_name=artifact.name)

    def _validate(self, session: WorkerSession, request: pb.ValidateCodeRequest) -> pb.ValidateCodeResponse:
        """Blocks until there is a verdict."""
        began = time.monotonic()
        answer = pb.ValidateCodeResponse(framework_version=session.framework_version)
        try:
            built = session.build(request.imports, request.code, timeout_s=self._settings.validation_s)
            answer.signature.CopyFrom(built.signature)
        except HeadraceError as error:
            answer.diagnostics.append(_diagnostic(error))
        answer.duration.FromNanoseconds(round((time.monotonic() - began) * 1e9))
        session.close()  # What was printed is complete only now.
        answer.output = session.output
        return answer

    def _check_framework(self, framework: int) -> None:
        if framework != FRAMEWORKS[self._settings.framework]:
            message = f"this executor serves {self._settings.framework} only"
            raise InvalidArgument(
                error_pb2.REASON_INVALID_FIELD, message, fields=[FieldViolation("framework", message)]
            )


class _Places:
    """Calls of one kind: some run, some wait, more are refused."""

    def __init__(self, what: str, running: int, waiting: int) -> None:
        self._what = what
        self._limit = self._left = running + waiting
        self._running = asyncio.Semaphore(running)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """The block runs when it is its turn. Raises OVERLOADED when all places are taken."""
        async with self.waiting(), self._running:
            yield

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """A place, for a call that needs no turn."""
        if self._left <= 0:
            message = f"{self._limit} {self._what} run or wait already; try again in {RETRY_AFTER_S:g} s"
            raise ResourceExhausted(
                error_pb2.REASON_OVERLOADED, message, retry_after_s=RETRY_AFTER_S, limit=self._limit
            )
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1


def _no_control_plane(framework: str) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE,
        f"the {framework} executor was started without a control plane, so it exports nothing; start it with "
        "HEADRACE_ADDRESS (HOST:PORT of the control plane) and HEADRACE_KAFKA",
        framework=framework,
    )


def _check_code(request: pb.ValidateCodeRequest) -> None:
    fields = [
        FieldViolation(name, f"{len(text)} characters; at most {CODE_LIMIT_BYTES} are allowed")
        for name, text in (("imports", request.imports), ("code", request.code))
        if len(text) > CODE_LIMIT_BYTES
    ]
    if not request.code.strip():
        fields.append(FieldViolation("code", "empty; it has to leave a variable `model`"))
    if fields:
        message = "; ".join(f"{bad.field}: {bad.description}" for bad in fields)
        raise InvalidArgument(error_pb2.REASON_INVALID_FIELD, message, fields=fields)


def _diagnostic(error: HeadraceError) -> pb.Diagnostic:
    facts = error.metadata
    return pb.Diagnostic(
        reason=error.reason_name,
        message=error.message,
        file=facts.get("file", ""),
        line=_number(facts.get("line")),
        column=_number(facts.get("column")),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0
