"""A small code executor: it parses code and looks for a variable `model`, and imports no framework."""

from __future__ import annotations

import ast
from typing import Any

from headrace.v1 import code_executor_pb2, model_pb2
from headrace.v1.code_executor_pb2_grpc import CodeExecutorServicer


class ParsingExecutor(CodeExecutorServicer):
    """`built` counts the validations."""

    def __init__(self) -> None:
        self.built = 0

    async def ValidateCode(
        self, request: code_executor_pb2.ValidateCodeRequest, context: Any
    ) -> code_executor_pb2.ValidateCodeResponse:
        self.built += 1
        for file in ("imports", "code"):
            try:
                tree = ast.parse(getattr(request, file), file)
            except SyntaxError as error:
                return _wrong("CODE_ERROR", str(error.msg), file, error.lineno or 0, error.offset or 0)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if "model" not in names:
            return _wrong("NO_MODEL", "the code leaves no variable `model`", "code", 0, 0)
        return code_executor_pb2.ValidateCodeResponse(
            signature=model_pb2.Signature(
                inputs=[model_pb2.TensorSpec(name="input", dtype="float32", shape=[-1, 64])],
                parameter_count=len(request.code),
                summary="a summary",
            )
        )


def _wrong(reason: str, message: str, file: str, line: int, column: int) -> code_executor_pb2.ValidateCodeResponse:
    diagnostic = code_executor_pb2.Diagnostic(reason=reason, message=message, file=file, line=line, column=column)
    return code_executor_pb2.ValidateCodeResponse(diagnostics=[diagnostic])
