"""The command `headrace`: its commands, and what becomes of errors.

A command's module is imported only when the command is called, so that `headrace --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class Entry(NamedTuple):
    """Where a command is, and what the list of commands says about it."""

    module: str
    attribute: str
    help: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("cli.platform", "up", "Start the platform on this machine."),
    "down": Entry("cli.platform", "down", "Stop the platform of this home folder."),
    "status": Entry("cli.platform", "status", "Show the platform's services."),
    "demo": Entry("cli.demo", "demo", "Tell the whole story on real data: train two models, then ask them."),
    "broker": Entry("cli.platform", "broker", "Run the embedded Kafka broker alone."),
    "model": Entry("cli.model", "app", "Models: create, list, show, update, delete, versions, alias."),
    "configuration": Entry("cli.configuration", "app", "Configurations: models that train on the same stream."),
    "train": Entry("cli.deployment", "train", "Train the models of a configuration, or a result again."),
    "deployment": Entry("cli.deployment", "app", "Trainings: list, show, cancel, delete, logs."),
    "send": Entry("cli.send", "send", "Send a file as a stream of records and announce it."),
    "stream": Entry("cli.stream", "app", "Streams: list, show, head, announce, replay, delete."),
    "result": Entry(
        "cli.result",
        "app",
        "Trained models: list, show, compare, confusion, roc, residuals, export, download, …",
    ),
    "infer": Entry("cli.inference", "infer", "Let a trained model answer a topic with a topic."),
    "inference": Entry(
        "cli.inference", "app", "Inferences: list, show, update, scale, stop, delete, logs, dead letters."
    ),
    "kafka-cluster": Entry("cli.kafka_cluster", "app", "Kafka clusters beside the platform's: create, list, delete."),
    "predict": Entry("cli.predict", "predict", "Ask an inference about the rows of a file."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the errors of every command end here."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = application(words)(args=words, prog_name="headrace", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`head`, a pager) has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        return report(error)


def application(words: Sequence[str]) -> typer.Typer:
    """The commands: the one that is called for, and of the others only the names."""
    app = typer.Typer(
        name="headrace",
        help="Train and serve TensorFlow and PyTorch models straight from the Kafka log.",
        epilog="HEADRACE_HOME is the home folder (default: .headrace here), HEADRACE_ADDRESS the control plane "
        "(default: that of the home's platform, else 127.0.0.1:8070).",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_version_option)
    wanted = next((word for word in words if not word.startswith("-")), "")
    for name, entry in COMMANDS.items():
        found = _load(entry) if name == wanted else _unloaded
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=entry.help, no_args_is_help=True)
        else:
            app.command(name, short_help=entry.help)(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version

        typer.echo(f"headrace {installed_version('headrace')}")
        raise typer.Exit


def _version_option(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_print_version),
) -> None:
    pass


def _load(entry: Entry) -> typer.Typer | Callable[..., Any]:
    found: typer.Typer | Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.attribute)
    return found


def _unloaded() -> None:
    """Stands in the list for a command that is not called."""


def report(error: Exception) -> int:
    """Print the error as one sentence on stderr and return the exit code; a bug's traceback goes to a file."""
    from headrace.errors import HeadraceError

    if isinstance(error, HeadraceError):
        _say(sentence(error))
        return exit_code(error)
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):
        return _report_usage(error)
    if isinstance(error, OSError) and error.filename is not None:
        _say(f"{error.filename}: {error.strerror}")
        return EXIT_FAILED
    return _report_bug(error)


def _report_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    message = str(error.format_message())
    if "Usage:" in message or not message:  # no command given: the help itself
        sys.stdout.write(message if message.endswith("\n") else f"{message}\n")
        return EXIT_USAGE
    command = context.command_path if context is not None else "headrace"
    end = "" if message.endswith("?") else "."
    _say(f"{message.rstrip('.')}{end} See: {command} --help")
    return int(error.exit_code)


def _report_bug(error: Exception) -> int:
    if os.environ.get("HEADRACE_DEBUG"):
        traceback.print_exception(error)
        return EXIT_FAILED
    log = _write_traceback(error)
    _say(f"this is a bug of Headrace ({type(error).__name__}: {error}); the details are in {log}, "
         "HEADRACE_DEBUG=1 prints them")  # fmt: skip
    return EXIT_FAILED


def _write_traceback(error: Exception) -> Path:
    handle, name = tempfile.mkstemp(prefix="headrace-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        file.writelines(traceback.format_exception(error))
    return Path(name)


def _say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"headrace: {text}\n")


def sentence(error: Any) -> str:
    """What a person reads of a HeadraceError: the message, every bad field, and the reason for those who search."""
    lines = [f"{error.message} [{error.reason_name}]"]
    shown = [bad for bad in error.fields if bad.description.rpartition(": ")[2] not in error.message]
    lines += [f"  {bad.field}: {bad.description}" for bad in shown]
    return "\n".join(lines)


def exit_code(error: Any) -> int:
    """3 for what does not exist, 4 where the platform cannot be reached, else 1."""
    from headrace.errors import NotFound, Unavailable
    from headrace.v1 import error_pb2

    if isinstance(error, NotFound):
        return EXIT_NOT_FOUND
    if isinstance(error, Unavailable) and error.reason != error_pb2.REASON_UNSPECIFIED:
        return EXIT_UNREACHABLE
    return EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_FAILED
