"""Asks the code executors what code builds and which arguments are known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from headrace.client import connect_async
from headrace.errors import FieldViolation, InvalidArgument, Unavailable, Unimplemented
from headrace.v1 import code_executor_pb2, deployment_pb2, error_pb2, model_pb2
from headrace.v1.code_executor_pb2_grpc import CodeExecutorStub

VALIDATION_TIMEOUT_S = 120.0
# It may wait for others, and a large model takes minutes.
EXPORT_TIMEOUT_S = 1800.0

FRAMEWORK_NAMES = {model_pb2.FRAMEWORK_TENSORFLOW: "TensorFlow", model_pb2.FRAMEWORK_PYTORCH: "PyTorch"}
EXTRAS = {model_pb2.FRAMEWORK_TENSORFLOW: "tensorflow", model_pb2.FRAMEWORK_PYTORCH: "torch"}


class ExecutorClient:
    """The executors by framework. Made by `executors_at`."""

    def __init__(self, addresses: Mapping[int, str], stubs: Mapping[int, CodeExecutorStub]) -> None:
        self._addresses = addresses
        self._stubs = stubs

    async def signature_of(self, framework: model_pb2.Framework, imports: str, code: str) -> model_pb2.Signature:
        """Build the code once in a sandbox.

        Raises InvalidArgument with the executor's diagnostics, Unavailable when it is away.
        """
        request = code_executor_pb2.ValidateCodeRequest(framework=framework, imports=imports, code=code)
        try:
            answer = await self._stub(framework).ValidateCode(request, timeout=VALIDATION_TIMEOUT_S)
        except Unavailable as error:
            raise self._away(framework, error) from error
        if answer.diagnostics:
            raise wrong_code(answer.diagnostics)
        signature: model_pb2.Signature = answer.signature
        return signature

    async def check_arguments(
        self, framework: model_pb2.Framework, arguments: deployment_pb2.FrameworkArguments
    ) -> code_executor_pb2.ValidateSettingsResponse:
        """What the executor says of arguments of `fit` and `evaluate`; Unavailable when it is away."""
        request = code_executor_pb2.ValidateSettingsRequest(framework=framework, arguments=arguments)
        try:
            answer: code_executor_pb2.ValidateSettingsResponse = await self._stub(framework).ValidateSettings(
                request, timeout=VALIDATION_TIMEOUT_S
            )
        except Unavailable as error:
            raise self._away(framework, error) from error
        return answer

    async def export(self, framework: model_pb2.Framework, result_id: int, format: str) -> None:
        """Have a result's model converted and stored; Unavailable when the executor is away."""
        request = code_executor_pb2.ExportRequest(result_id=result_id, format=format)
        try:
            await self._stub(framework).Export(request, timeout=EXPORT_TIMEOUT_S)
        except Unavailable as error:
            raise self._away(framework, error) from error

    def _stub(self, framework: model_pb2.Framework) -> CodeExecutorStub:
        if framework not in self._stubs:
            raise _not_installed(framework)
        return self._stubs[framework]

    def _away(self, framework: model_pb2.Framework, error: Unavailable) -> Unavailable:
        if error.reason != error_pb2.REASON_SERVICE_UNAVAILABLE:
            return error
        name, address = FRAMEWORK_NAMES[framework], self._addresses[framework]
        return Unavailable(
            error_pb2.REASON_SERVICE_UNAVAILABLE,
            f"the code executor for {name} at {address} cannot be reached; see that it runs, and try again",
            retry_after_s=2,
            service="executors",
            framework=name,
            address=address,
        )


@asynccontextmanager
async def executors_at(addresses: Mapping[int, str]) -> AsyncIterator[ExecutorClient]:
    """Channels to the executors (framework to HOST:PORT; empty: not installed); each connects with its first call."""
    async with AsyncExitStack() as stack:
        stubs = {
            framework: CodeExecutorStub(await stack.enter_async_context(connect_async(address)))
            for framework, address in addresses.items()
            if address
        }
        yield ExecutorClient(addresses, stubs)


def _not_installed(framework: model_pb2.Framework) -> Unimplemented:
    name = FRAMEWORK_NAMES[framework]
    return Unimplemented(
        error_pb2.REASON_NOT_INSTALLED,
        f"{name} is not installed on this platform; install it with: pip install 'headrace[{EXTRAS[framework]}]', "
        "and start the platform again",
        framework=name,
    )


def wrong_code(diagnostics: Sequence[code_executor_pb2.Diagnostic]) -> InvalidArgument:
    """The error for code that builds no model: the first diagnostic's reason and place, and all as bad fields."""
    first = diagnostics[0]
    reasons: Mapping[str, int] = dict(error_pb2.Reason.items())
    place = {"file": first.file or "code"}
    if first.line:
        place |= {"line": str(first.line), "column": str(first.column)}
    error = InvalidArgument(
        reasons.get(f"REASON_{first.reason}", error_pb2.REASON_CODE_ERROR),
        f"the {_where(first)} builds no model: {first.message}",
        fields=[
            FieldViolation(f"model.{found.file or 'code'}", f"{_line(found)}{found.message}") for found in diagnostics
        ],
    )
    error.metadata |= place
    return error


def _where(found: code_executor_pb2.Diagnostic) -> str:
    where = found.file or "code"
    return f"{where} (line {found.line}, column {found.column})" if found.line else where


def _line(found: code_executor_pb2.Diagnostic) -> str:
    return f"line {found.line}, column {found.column}: " if found.line else ""
