"""Runs a person's code and says exactly where it is wrong."""

from __future__ import annotations

import ast
import dis
import linecache
import re
import sys
import traceback
import types
import warnings
from collections.abc import Mapping
from typing import Any

from frameworks.failure import Failure

MODULE = "headrace_model"
# The names of the two parts in tracebacks, and in answers without the brackets.
PARTS = ("imports", "code")
# Keras has the texts of exceptions in bold; a KeyError shows its own as a literal.
COLOURS = re.compile(r"(?:\x1b|\\x1b)\[[0-9;]*m")
FILENAMES = tuple(f"<{part}>" for part in PARTS)


def run_code(imports: str, code: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """Runs `imports`, then `code`, in one module where `names` are already there; returns the module's variables.

    Raises CODE_ERROR with file, line and column for code that does not compile or raises.
    """
    module = types.ModuleType(MODULE)
    # Whoever looks for the module of a class or function (dataclasses, serializers, AutoGraph) has to find it.
    sys.modules[MODULE] = module
    module.__dict__.update(names)
    compiled = [_compile(part, text) for part, text in zip(PARTS, (imports, code), strict=True)]
    for program in compiled:
        with located():
            exec(program, module.__dict__)  # noqa: S102  (this is what a worker is for)
    return module.__dict__


def _compile(part: str, text: str) -> types.CodeType:
    filename = f"<{part}>"
    # With an mtime of None the entry is never checked against a disk: tracebacks and AutoGraph read lines from here.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return compile(text, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _code_error(f"{type(error).__name__}: {error.msg}", part, error.lineno, error.offset) from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise _code_error(f"the {part} cannot be compiled: {error or type(error).__name__}", part) from error


class located:  # noqa: N801  (reads as a statement)
    """A with block in which the person's code runs: whatever it raises becomes a Failure with its place in the code."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and not isinstance(error, Failure):
            raise failure_of(error) from error


def failure_of(error: BaseException) -> Failure:
    """What a person has to know about an exception: its text, and the last place in their own code on the way to it."""
    if isinstance(error, Failure):
        return error
    part, line, column = place_of(error)
    if _is_out_of_memory(error):
        return Failure("OUT_OF_MEMORY", f"the memory did not suffice: {_text(error)}", **_place(part, line, column))
    if isinstance(error, OSError) and error.errno == 28:
        return Failure("DISK_FULL", f"the disk is full: {error}", **_place(part, line, column))
    if isinstance(error, SystemExit):
        return _code_error("the code exits; it has to leave a model and end", part, line, column)
    if isinstance(error, SyntaxError) and part:
        return _code_error(f"{type(error).__name__}: {error.msg}", part, line, column)
    return _code_error(_text(error), part, line, column)


def place_of(error: BaseException) -> tuple[str, int, int]:
    """(part, line, column) of the innermost frame in the person's code; ("", 0, 0) when there is none."""
    found = ("", 0, 0)
    for frame in traceback.TracebackException.from_exception(error).stack:
        if frame.filename in FILENAMES:
            column = getattr(frame, "colno", None)
            found = (frame.filename.strip("<>"), frame.lineno or 0, 0 if column is None else column + 1)
    return found


def unless_theirs(error: Exception, otherwise: Failure) -> Failure:
    """What an exception means while data meet the code for the first time.

    One that the code raises or causes by a mistake of its own (an attribute or a name that is not there, a call with
    wrong arguments) is about the code. One from an operator of the library says that data and model do not fit: that is
    `otherwise`, with the place in the code that it came through.
    """
    known = failure_of(error)
    if known.reason != "CODE_ERROR" or (known.facts["file"] and (_is_raised_there(error) or not _is_of_data(error))):
        return known
    otherwise.facts.update({name: value for name, value in known.facts.items() if name in ("file", "line", "column")})
    return otherwise


def _is_raised_there(error: BaseException) -> bool:
    """Whether a `raise` of the person's code made it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename not in FILENAMES:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _is_of_data(error: BaseException) -> bool:
    """Whether operators raise such errors for values, shapes and types that they cannot work with."""
    if isinstance(error, NotImplementedError | RecursionError):
        return False  # Python's own kinds of RuntimeError.
    # The second is TensorFlow's; this module serves both frameworks and imports neither.
    return isinstance(error, RuntimeError | ValueError | IndexError) or _has_kind(error, "OpError")


def _has_kind(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)


def place_of_model(code: str) -> dict[str, object]:
    """Where somebody looks who hears that there is no usable `model`: its last assignment, or the end of the code."""
    places = [
        (target.lineno, target.col_offset + 1)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == "model"
    ]
    line, column = max(places, default=(max(1, len(code.rstrip().splitlines())), 1))
    return _place("code", line, column)


def _code_error(message: str, part: str = "", line: int | None = None, column: int | None = None) -> Failure:
    return Failure("CODE_ERROR", message, **_place(part, line, column))


def _place(part: str, line: int | None, column: int | None) -> dict[str, object]:
    return {"file": part, "line": line or 0, "column": column or 0}


def _text(error: BaseException) -> str:
    # Frameworks append pages of state; the start says what is wrong.
    return COLOURS.sub("", f"{type(error).__name__}: {error}").strip()[:4000]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError"):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
