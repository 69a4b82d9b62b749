"""A conversation with one worker: typed calls, each with a deadline, each failure a HeadraceError.

    with WorkerSession.start("pytorch", limits=Limits(), folder=folder) as session:
        session.wait_ready(60)
        session.build(imports, code)
        for event in session.fit(job, deadline_s=None, stop=stop):
            ...

A worker serves one job and is thrown away. A failure of the code (CODE_ERROR, SCHEMA_MISMATCH, …) leaves the worker
alive and able to answer; a failure of the worker (WORKER_CRASHED, DEADLINE, OUT_OF_MEMORY by its limit, …) is its end,
and every later call raises that same failure.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

import numpy as np
from google.protobuf import json_format

from headrace.errors import Cancelled, HeadraceError
from headrace.v1 import code_executor_pb2, error_pb2, model_pb2, result_pb2
from sandbox.channel import Channel, ChannelClosedError
from sandbox.frames import Frame, FrameError
from sandbox.jobs import (
    Arguments,
    BuiltModel,
    Columns,
    Confusion,
    Evaluation,
    ExportJob,
    FitBegun,
    FitCheckpoint,
    FitEpoch,
    FitEvent,
    FitJob,
    FitProgress,
    RowField,
    SavedFile,
)
from sandbox.limits import Ending, Limits
from sandbox.memory import oom_kills
from sandbox.process import Started, WorkerProcess, start_worker
from sandbox.verdicts import deadline_error, ended_error, protocol_error, reported_error

__all__ = [
    "Arguments",
    "BuiltModel",
    "Confusion",
    "Evaluation",
    "ExportJob",
    "FitCheckpoint",
    "FitEpoch",
    "FitEvent",
    "FitJob",
    "FitProgress",
    "FitBegun",
    "SavedFile",
    "WorkerSession",
]

FrameworkName = Literal["tensorflow", "pytorch"]

FRAME_LIMIT_BYTES = 512 * 1024 * 1024
# How often a waiting fit looks at its stop event.
STOP_INTERVAL_S = 0.1
# A worker that was asked to stop gets this long to reach the end of its step.
STOP_GRACE_S = 3.0
# After the pipes closed, the warden needs a moment to see why.
ENDING_TIMEOUT_S = 2.0
# A framework's import takes seconds, on a busy machine many.
READY_TIMEOUT_S = 600.0
# "No deadline", as a number that clocks and polls can add up.
FOREVER_S = 10.0 * 365 * 86400


def worker_command(framework: FrameworkName, *, serves: bool = False) -> list[str]:
    """What a worker with this framework is started by. serves: it is not to train, and is smaller and sooner ready."""
    return [sys.executable, "-P", "-s", "-m", "frameworks.worker", framework, *(["--serves"] if serves else [])]


class WorkerSession:
    """One worker with one framework. One call at a time; `interrupt` and `kill` may come from any thread."""

    def __init__(self, process: WorkerProcess, limits: Limits, folder: Path) -> None:
        self._process = process
        self._limits = limits
        self.folder = folder
        """The worker's home. It stays when the worker has ended."""
        # Whoever closes the pipes waits for whoever still reads them.
        self._conversation = threading.RLock()
        self._channel = Channel(process.request_fd, process.answer_fd, limit_bytes=FRAME_LIMIT_BYTES)
        self._failure: HeadraceError | None = None
        self._oom_kills = oom_kills()
        self._ready: Mapping[str, Any] | None = None
        self._killed = self._closed = False

    @classmethod
    def start(
        cls,
        framework: FrameworkName,
        *,
        limits: Limits | None = None,
        folder: Path,
        on_output: Callable[[str], None] | None = None,
        threads: int | None = None,
        serves: bool = False,
    ) -> WorkerSession:
        """Starts a worker and returns at once, while it imports its framework.

        `folder` becomes its home, its place for temporary files and its current folder; the caller removes it.
        `on_output` is called on another thread with what the code prints, bounded per second. One that `serves` only
        answers: a training would first have to load what that needs.
        """
        limits = limits or Limits()
        command = worker_command(framework, serves=serves)
        started = start_worker(command, limits=limits, folder=folder, threads=threads)
        return cls.of(started, limits, folder, on_output)

    @classmethod
    def of(
        cls, started: Started, limits: Limits, folder: Path, on_output: Callable[[str], None] | None = None
    ) -> WorkerSession:
        """With a worker that runs already, in its home `folder`."""
        return cls(WorkerProcess(started, limits=limits, on_output=on_output), limits, folder)

    def __enter__(self) -> WorkerSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the worker has neither ended nor failed, as far as anybody can see."""
        return self._failure is None and self._process.alive

    @property
    def output(self) -> str:
        """What the code printed so far, cut at the limit."""
        return self._process.output.text

    @property
    def framework_version(self) -> str:
        """Such as `torch 2.15.0, ignite 0.5.5`; empty before the worker is ready."""
        return str((self._ready or {}).get("framework_version", ""))

    def close(self) -> None:
        """Ends the worker and everything that it started. Called by the end of the with block."""
        self.kill()
        with self._conversation:
            self._failure = self._failure or Cancelled(error_pb2.REASON_CANCELLED, "the worker was stopped")
            if not self._closed:
                self._closed = True
                self._channel.close()

    def kill(self) -> Ending:
        """Ends the worker and everything that it started, now. A call that waits for it raises CANCELLED."""
        self._killed = True
        return self._process.kill()

    def interrupt(self) -> None:
        """Asks a running fit to end after its step; it then raises CANCELLED. Other calls go on."""
        self._process.interrupt()

    def wait_ready(self, timeout_s: float) -> None:
        """Waits until the framework is imported. Raises NOT_INSTALLED when it is not there."""
        if self._ready is None:
            end = time.monotonic() + timeout_s
            self._ready = self._receive("ready", end, "importing the framework", timeout_s).fields

    def build(
        self, imports: str, code: str, *, seed: int | None = None, trainable: bool = False, timeout_s: float = 60.0
    ) -> BuiltModel:
        """Runs the code and describes the model that it leaves.

        With `trainable` the model must also be complete for `fit` (a Keras model compiled). Raises
        CODE_ERROR{file, line, column}, NO_MODEL.
        """
        fields = {"imports": imports, "code": code, "seed": seed, "trainable": trainable}
        return self._built(self._call("build", fields, timeout_s=timeout_s))

    def check_arguments(self, fit_args: str, evaluate_args: str, timeout_s: float = 10.0) -> Arguments:
        """Checks arguments without a model; runs none of the user's code."""
        texts = {"fit_args": fit_args, "evaluate_args": evaluate_args}
        fields = self._call("check_arguments", texts, timeout_s=timeout_s).fields
        with self._well_formed("check_arguments"):
            diagnostics = [json_format.ParseDict(one, code_executor_pb2.Diagnostic()) for one in fields["diagnostics"]]
            known_fit, known_evaluate = fields["known_fit_args"], fields["known_evaluate_args"]
            return Arguments(diagnostics, [str(name) for name in known_fit], [str(name) for name in known_evaluate])

    def fit(
        self, job: FitJob, *, deadline_s: float | None = None, stop: threading.Event | None = None
    ) -> Iterator[FitEvent]:
        """Trains; yields progress and epochs as they come and returns after the last epoch.

        When `stop` is set, the training ends after its step, or is killed after a grace time, with CANCELLED. With
        `job.checkpoints` it begins where it ended before, whatever ended it. Raises
        SCHEMA_MISMATCH (before the first step), NAN_LOSS{epoch, step}, NO_MODEL (not compiled), UNKNOWN_ARGUMENT,
        DEADLINE.
        """
        end = time.monotonic() + (FOREVER_S if deadline_s is None else deadline_s)
        self._send("fit", self._fit_fields(job), {}, end, deadline_s or FOREVER_S)
        while True:
            frame = self._next_of_fit(end, deadline_s or FOREVER_S, stop)
            if frame.kind == "result":
                return
            yield self._fit_event(frame)

    def evaluate(  # noqa: PLR0913
        self,
        samples: Columns,
        labels: Columns | None,
        rows: Path | None,
        *,
        batch_size: int = 32,
        evaluate_args: str = "",
        confusion_matrix: bool = False,
        keep_integers: bool = False,
        fields: Sequence[RowField] = (),
        timeout_s: float = 600.0,
    ) -> Evaluation:
        """Metrics of the model on some rows, and ROC curves or residuals, whichever fits.

        With `confusion_matrix` also the counts, if the model is a classifier.
        """
        request = {
            "samples": _paths(samples),
            "labels": _paths(labels),
            "rows": _path(rows),
            "fields": _told(fields),
            "batch_size": batch_size,
            "evaluate_args": evaluate_args,
            "confusion_matrix": confusion_matrix,
            "keep_integers": keep_integers,
            "in_memory_bytes": self._in_memory_bytes,
        }
        frame = self._call("evaluate", request, timeout_s=timeout_s)
        with self._well_formed("evaluate"):
            counts = frame.arrays.get("confusion")
            labels_of_classes = [str(label) for label in frame.fields.get("classes", [])]
            confusion = None if counts is None else Confusion(labels_of_classes, counts)
            metrics = _metrics(frame.fields["metrics"])
            return Evaluation(metrics, confusion, _roc(frame.fields), _residuals(frame.fields))

    def describe(self, timeout_s: float = 120.0) -> BuiltModel:
        """The model as it is now; after a `fit` with the inputs and outputs that its rows gave it."""
        return self._built(self._call("describe", {}, timeout_s=timeout_s))

    def save(self, folder: Path, timeout_s: float = 600.0) -> list[SavedFile]:
        """Writes the trained model: `model.keras` or `model.safetensors`. The folder must exist."""
        frame = self._call("save", {"folder": str(folder.absolute())}, timeout_s=timeout_s)
        with self._well_formed("save"):
            return [_saved_file(folder, one) for one in frame.fields["files"]]

    def load(
        self, imports: str, code: str, path: Path, *, keep_integers: bool = False, timeout_s: float = 120.0
    ) -> BuiltModel:
        """Builds the model from its code, then takes its weights from a saved file."""
        fields = {"imports": imports, "code": code, "path": str(path.absolute()), "keep_integers": keep_integers}
        return self._built(self._call("load", fields, timeout_s=timeout_s))

    def export(self, job: ExportJob, *, timeout_s: float = 600.0) -> None:
        """Writes the loaded model in another format, to `job.path`, whose folder must exist.

        Raises EXPORT_FAILED, NOT_INSTALLED (a converter's library), INVALID_FIELD (format), CODE_ERROR.
        """
        fields = {
            "format": job.format,
            "path": str(job.path.absolute()),
            "inputs": [_tensor(spec) for spec in job.signature.inputs],
            "outputs": [_tensor(spec) for spec in job.signature.outputs],
            "samples": _paths(job.samples),
            "rows": None,
            "fields": _told(job.fields),
            "in_memory_bytes": self._in_memory_bytes,
        }
        self._call("export", fields, timeout_s=timeout_s)
        with self._well_formed("export"):
            if job.path.is_symlink() or not job.path.is_file():
                raise ValueError(f"no file {job.path.name!r}")

    def warm(self, max_rows: int, timeout_s: float = 120.0) -> None:
        """Prepares predictions of up to `max_rows` rows a call, where the model's inputs are known."""
        self._call("warm", {"max_rows": max_rows}, timeout_s=timeout_s)

    def predict(
        self, columns: Mapping[str, np.ndarray], *, fields: Sequence[RowField] = (), timeout_s: float = 60.0
    ) -> dict[str, np.ndarray]:
        """The model's outputs for rows, as float32: `{name: (rows, …)}` in the model's order.

        `columns` holds one array under the name "" or one per named input. `fields` are those of the only array: a
        model with several inputs takes them by name. Raises SCHEMA_MISMATCH, CODE_ERROR.
        """
        self.send_predict(columns, fields=fields, timeout_s=timeout_s)
        return self.receive_predict(timeout_s)

    def send_predict(
        self, columns: Mapping[str, np.ndarray], *, fields: Sequence[RowField] = (), timeout_s: float = 60.0
    ) -> None:
        """Sends rows without waiting for the answer; answers come in order, one `receive_predict` each."""
        self._send("predict", {"fields": _told(fields)}, columns, time.monotonic() + timeout_s, timeout_s)

    def answer_ready(self, wait_s: float) -> bool:
        """Whether `receive_predict` would return or fail at once; waits for it so long."""
        return self._failure is not None or self._channel.ready(time.monotonic() + wait_s)

    def receive_predict(self, timeout_s: float = 60.0) -> dict[str, np.ndarray]:
        """The answer to the oldest `send_predict` that has none yet."""
        return dict(self._receive("result", time.monotonic() + timeout_s, "a prediction", timeout_s).arrays)

    @property
    def _in_memory_bytes(self) -> int:
        """Data up to this size are loaded by the worker; larger ones stay in their files."""
        return self._limits.memory_bytes // 4 if self._limits.memory_bytes else 2**62

    def _fit_fields(self, job: FitJob) -> dict[str, Any]:
        return {
            "samples": _paths(job.samples),
            "labels": _paths(job.labels),
            "training_rows": _path(job.training_rows),
            "validation_rows": _path(job.validation_rows),
            "batch_size": job.batch_size,
            "fit_args": job.fit_args,
            "evaluate_args": job.evaluate_args,
            "seed": job.seed,
            "keep_integers": job.keep_integers,
            "in_memory_bytes": self._in_memory_bytes if job.in_memory_bytes is None else job.in_memory_bytes,
            "fields": _told(job.fields),
            "checkpoints": _path(job.checkpoints),
            "checkpoint_digest": job.checkpoint_digest,
            "checkpoint_interval_s": job.checkpoint_interval_s,
        }

    def _fit_event(self, frame: Frame) -> FitEvent:
        with self._well_formed("fit"):
            fields = frame.fields
            if frame.kind in ("begun", "checkpoint"):
                epoch, step, steps = (int(fields[name]) for name in ("epoch", "step", "steps"))
                if frame.kind == "checkpoint":
                    return FitCheckpoint(epoch, step, steps)
                return FitBegun(epoch, step, steps, float(fields["seconds"]))
            if frame.kind == "progress":
                epoch, epochs, step, steps = (int(fields[name]) for name in ("epoch", "epochs", "step", "steps"))
                return FitProgress(epoch, epochs, step, steps, float(fields["rows_per_second"]))
            metrics = {str(split): _metrics(values) for split, values in fields["metrics"].items()}
            return FitEpoch(int(fields["number"]), metrics, int(fields["step"]))

    def _next_of_fit(self, end: float, timeout_s: float, stop: threading.Event | None) -> Frame:
        arrived = False
        while not arrived and time.monotonic() < end:
            if stop is not None and stop.is_set():
                self._stop_fit()
            arrived = self._arrived(min(end, time.monotonic() + STOP_INTERVAL_S))
        frame = self._receive_any(end, "the training", timeout_s)
        if frame.kind not in ("progress", "epoch", "begun", "checkpoint", "result"):
            raise self._fail(protocol_error(f"a {frame.kind!r:.40} during a training"))
        return frame

    def _arrived(self, until: float) -> bool:
        with self._typed_failures("the training", STOP_INTERVAL_S):
            return self._channel.ready(until)

    def _stop_fit(self) -> NoReturn:
        self.interrupt()
        end = time.monotonic() + STOP_GRACE_S
        try:
            while self._receive_any(end, "stopping", STOP_GRACE_S).kind != "result":
                pass
        except HeadraceError:
            pass  # It stopped as asked, or it is dead; the outcome is the same.
        self.kill()
        raise self._fail(Cancelled(error_pb2.REASON_CANCELLED, "the training was stopped"))

    def _built(self, frame: Frame) -> BuiltModel:
        with self._well_formed("build"):
            signature = json_format.ParseDict(frame.fields["signature"], model_pb2.Signature())
            return BuiltModel(signature, str(frame.fields["framework_version"]))

    def _call(self, kind: str, fields: Mapping[str, Any], *, timeout_s: float) -> Frame:
        end = time.monotonic() + timeout_s
        self._send(kind, fields, {}, end, timeout_s)
        return self._receive("result", end, kind, timeout_s)

    def _send(
        self, kind: str, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray], end: float, timeout_s: float
    ) -> None:
        with self._typed_failures(kind, timeout_s):
            if self._ready is None:
                self.wait_ready(min(end - time.monotonic(), READY_TIMEOUT_S))
            self._channel.send(Frame(kind, fields, arrays), end)

    def _receive(self, kind: str, end: float, what: str, timeout_s: float) -> Frame:
        frame = self._receive_any(end, what, timeout_s)
        if frame.kind != kind:
            raise self._fail(protocol_error(f"a {frame.kind!r:.40} where {kind!r} was due"))
        return frame

    def _receive_any(self, end: float, what: str, timeout_s: float) -> Frame:
        with self._typed_failures(what, timeout_s):
            frame = self._channel.receive(end)
        if frame.kind == "error":
            raise reported_error(frame.fields, self._limits)
        return frame

    @contextmanager
    def _typed_failures(self, what: str, timeout_s: float) -> Iterator[None]:
        """Turns every way in which a pipe can fail into the right error, and the worker's end into a lasting one."""
        with self._conversation:
            if self._failure is not None:
                raise self._failure
            try:
                yield
            except TimeoutError as error:
                raise self._fail(deadline_error(what, timeout_s)) from error
            except FrameError as error:
                raise self._fail(protocol_error(str(error))) from error
            except ChannelClosedError as error:
                raise self._fail(self._why_closed()) from error

    @contextmanager
    def _well_formed(self, what: str) -> Iterator[None]:
        """What the worker sent is the user's code's word: whatever cannot be read is a breach of the protocol."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, json_format.ParseError) as error:
            raise self._fail(protocol_error(f"its answer to {what} cannot be read: {error!r:.200}")) from error

    def _fail(self, error: HeadraceError) -> HeadraceError:
        self.kill()
        self._failure = self._failure or error
        return self._failure

    def _why_closed(self) -> HeadraceError:
        asked = self._killed
        ending = self._process.wait(ENDING_TIMEOUT_S)
        if ending.verdict == "asked" and not asked:
            return protocol_error("it closed its pipes")
        out_of_memory = oom_kills() > self._oom_kills
        return ended_error(ending, self._limits, output_tail=self._process.output.tail, out_of_memory=out_of_memory)


def _paths(columns: Columns | None) -> str | dict[str, str] | None:
    if columns is None or isinstance(columns, Path):
        return None if columns is None else str(columns.absolute())
    return {name: str(path.absolute()) for name, path in columns.items()}


def _told(fields: Sequence[RowField]) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "dtype": field.spec.dtype.str,
            "shape": list(field.spec.shape),
            "start": field.start,
            "stop": field.stop,
        }
        for field in fields
    ]


def _tensor(spec: model_pb2.TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _roc(fields: Mapping[str, Any]) -> result_pb2.Roc | None:
    if fields.get("roc") is None:
        return None
    roc = result_pb2.Roc(row_count=int(fields["scored_rows"]))
    return json_format.ParseDict({"curves": fields["roc"]}, roc)


def _residuals(fields: Mapping[str, Any]) -> result_pb2.Residuals | None:
    if fields.get("residuals") is None:
        return None
    return json_format.ParseDict(fields["residuals"], result_pb2.Residuals(row_count=int(fields["scored_rows"])))


def _saved_file(folder: Path, fields: Mapping[str, Any]) -> SavedFile:
    name = str(fields["name"])
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"a file name {name!r}")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"no file {name!r}")
    return SavedFile(name, path, str(fields["media_type"]))
