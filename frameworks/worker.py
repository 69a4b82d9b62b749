"""The main of a worker process: `python -P -m frameworks.worker tensorflow|pytorch [--serves] REQUEST_FD ANSWER_FD`.

It imports one framework, says `ready`, and answers requests until the pipe ends. A request is a frame whose kind names
what to do; its answer is `result` or `error`, and a training sends `progress` and `epoch` frames before that.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frameworks import arguments
from frameworks.checkpoints import START, Checkpoint, Checkpoints, Position
from frameworks.code import failure_of, place_of_model, run_code
from frameworks.exports.job import ExportJob, TensorSpec
from frameworks.failure import CancelledError, Failure
from frameworks.fields import Columns, Field, by_input, feeding, shown
from frameworks.framework import Framework, Plan, Scores, Training
from frameworks.judgement import MOST_OUTPUTS, SCORED_ROWS, Judgement, judge
from frameworks.loading import quickly
from frameworks.rows import Rows
from sandbox.frames import Frame, read_frame, write_frame

REQUEST_LIMIT_BYTES = 512 * 1024 * 1024
PROGRESS_INTERVAL_S = 0.5
# What each framework needs, and the extra that installs it.
NEEDS = {"tensorflow": ("tensorflow", "keras"), "pytorch": ("torch", "ignite", "safetensors")}
EXTRAS = {"tensorflow": "tensorflow", "pytorch": "torch"}


def main() -> None:
    """Serves one feeder with the framework of the command line."""
    *words, request_fd, answer_fd = sys.argv[1:]
    serve(lambda: _framework(words[0]), int(request_fd), int(answer_fd), trains="--serves" not in words)


def serve(make: Callable[[], Framework], request_fd: int, answer_fd: int, *, trains: bool = True) -> None:
    """Imports and warms a framework, then answers requests until there are no more.

    trains: whether what only trainings need is made ready as well.
    """
    pipes = Pipes(_private(request_fd), _private(answer_fd))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        with _muted(), quickly():
            framework = make()
            framework.warm_up(trains=trains)
    except Failure as failure:
        pipes.send_error(failure)
        return
    worker = Worker(framework, pipes)
    signal.signal(signal.SIGTERM, lambda *_: worker.request_stop())
    # Processes of a DataLoader have no training to end: they are to end themselves.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    pipes.send(Frame("ready", {"framework_version": framework.version}))
    worker.serve()


class Pipes:
    """The worker's ends of the two pipes."""

    def __init__(self, request_fd: int, answer_fd: int) -> None:
        self._requests = io.FileIO(request_fd, "r")
        self._answers = io.FileIO(answer_fd, "w")
        self._pid = os.getpid()

    def receive(self) -> Frame | None:
        """The next request; None when the feeder is gone."""
        return read_frame(self._requests, limit_bytes=REQUEST_LIMIT_BYTES)

    def send(self, frame: Frame) -> None:
        """Sends an answer, after everything that was printed before it."""
        if os.getpid() != self._pid:
            os._exit(0)  # The person's code forked and went on: only the original may answer.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # The person's code may have put anything in their place.
                stream.flush()
        write_frame(self._answers, frame)

    def send_error(self, failure: Failure) -> None:
        """Sends why there is no result."""
        fields = {"reason": failure.reason, "message": failure.message, "metadata": failure.facts}
        self.send(Frame("error", fields))


class Worker:
    """One framework and at most one model."""

    def __init__(self, framework: Framework, pipes: Pipes) -> None:
        self._framework = framework
        self._pipes = pipes
        self._model: Any = None
        self._keep_integers = False
        # One row of what it was trained on.
        self._fed: Columns = {}
        self._declares = False
        self._stop_requested = False
        self._handlers: Mapping[str, Callable[[Frame], Frame]] = {
            "build": self._build,
            "check_arguments": self._check_arguments,
            "fit": self._fit,
            "evaluate": self._evaluate,
            "describe": self._describe,
            "save": self._save,
            "load": self._load,
            "export": self._export,
            "warm": self._warm,
            "predict": self._predict,
        }

    def request_stop(self) -> None:
        """Lets a training end after its step."""
        self._stop_requested = True

    @property
    def stop_requested(self) -> bool:
        """Whether a training has to end."""
        return self._stop_requested

    def serve(self) -> None:
        """Answers requests until there are no more."""
        while (request := self._pipes.receive()) is not None:
            try:
                answer = self._handlers[request.kind](request)
            except Failure as failure:
                self._pipes.send_error(failure)
            except BaseException as error:
                # The person's code may raise anything. Its traceback is for their logs, its place for the answer.
                traceback.print_exception(error)
                self._pipes.send_error(failure_of(error))
            else:
                self._pipes.send(answer)

    def _build(self, request: Frame) -> Frame:
        fields = request.fields
        self._framework.begin()
        if fields["seed"] is not None:
            self._framework.seed(fields["seed"])
        self._run(fields["imports"], fields["code"])
        if fields["trainable"]:
            with _placed_in(fields["code"]):
                self._framework.check_trainable(self._model)
        answer = self._described()
        self._declares = bool(answer.fields["signature"]["inputs"])
        return answer

    def _load(self, request: Frame) -> Frame:
        fields = request.fields
        self._keep_integers = fields["keep_integers"]
        self._framework.begin()
        self._run(fields["imports"], fields["code"])
        self._model = self._framework.load_weights(self._model, Path(fields["path"]))
        return self._described()

    def _run(self, imports: str, code: str) -> None:
        variables = run_code(imports, code, self._framework.names())
        with _placed_in(code):
            self._model = self._framework.find_model(variables)
        # PyTorch's optimizer() may use the global `model`, whatever the person called it.
        variables.setdefault("model", self._model)

    def _described(self) -> Frame:
        signature = asdict(self._framework.describe(self._model))
        return Frame("result", {"signature": signature, "framework_version": self._framework.version})

    def _check_arguments(self, request: Frame) -> Frame:
        known = {"fit_args": self._framework.fit_arguments, "evaluate_args": self._framework.evaluate_arguments}
        diagnostics = [
            {**asdict(problem), "file": what}
            for what, those in known.items()
            for problem in arguments.parse(request.fields[what], those)[1]
        ]
        names = {f"known_{what}": those.names for what, those in known.items()}
        return Frame("result", {"diagnostics": diagnostics, **names})

    def _fit(self, request: Frame) -> Frame:
        fields = request.fields
        self._keep_integers = fields["keep_integers"]
        self._framework.seed(fields["seed"])
        model = self._built_model()
        rows = self._open_rows(fields, "training_rows")
        _tell_unused(rows)
        self._fed, _ = rows.first(1)
        training = Training(
            rows=rows,
            validation=self._validation_rows(fields),
            batch_size=fields["batch_size"],
            arguments=arguments.values_of(fields["fit_args"], self._framework.fit_arguments, "fit_args"),
            seed=fields["seed"],
            keep_integers=self._keep_integers,
            checkpoints=self._checkpoints(fields),
        )
        arguments.values_of(fields["evaluate_args"], self._framework.evaluate_arguments, "evaluate_args")
        self._framework.fit(model, training, lambda plan: Report(self, self._pipes, plan))
        return Frame("result")

    def _checkpoints(self, fields: Mapping[str, Any]) -> Checkpoints | None:
        if fields["checkpoints"] is None:
            return None
        # Another version may compute another way, and keep other things.
        digest = f"{fields['checkpoint_digest']} {self._framework.version}"
        return Checkpoints(Path(fields["checkpoints"]), digest, fields["checkpoint_interval_s"])

    def _validation_rows(self, fields: Mapping[str, Any]) -> Rows | None:
        if fields["validation_rows"] is None:
            return None
        rows = self._open_rows(fields, "validation_rows")
        return rows if len(rows) else None

    def _evaluate(self, request: Frame) -> Frame:
        fields = request.fields
        given = arguments.values_of(fields["evaluate_args"], self._framework.evaluate_arguments, "evaluate_args")
        model, keep_integers = self._built_model(), fields["keep_integers"]
        rows, batch_size = self._open_rows(fields, "rows"), fields["batch_size"]
        if len(rows) == 0:
            raise Failure("EMPTY_STREAM", "there are no rows to evaluate")
        metrics = self._framework.evaluate(model, rows, given, batch_size, keep_integers=keep_integers)
        judged = self._judge(rows, fields)
        return Frame("result", {"metrics": metrics, **judged.fields}, judged.arrays)

    def _judge(self, rows: Rows, fields: Mapping[str, Any]) -> Judgement:
        """Only a confusion matrix was asked for: nothing else that goes wrong here costs a training its end."""
        if rows.labels is None or len(rows.labels) != 1:
            return Judgement()
        if fields["confusion_matrix"]:
            return self._judge_all(rows, fields)
        try:
            one = self._scores(rows.evenly(1), fields)
            few = one is not None and one.outputs.size <= MOST_OUTPUTS
            return self._judge_all(rows.evenly(SCORED_ROWS), fields) if few else Judgement()
        except Exception as error:
            print(f"no curves are drawn of the answers: {failure_of(error).message}")
            return Judgement()

    def _judge_all(self, rows: Rows, fields: Mapping[str, Any]) -> Judgement:
        scores = self._scores(rows, fields)
        if scores is None or rows.labels is None:
            return Judgement()
        labels = next(iter(rows.labels.values()))[rows.index]
        return judge(labels, scores, confusion_matrix=fields["confusion_matrix"])

    def _scores(self, rows: Rows, fields: Mapping[str, Any]) -> Scores | None:
        batch_size, keep_integers = fields["batch_size"], fields["keep_integers"]
        return self._framework.scores(self._model, rows, batch_size, keep_integers=keep_integers)

    def _describe(self, request: Frame) -> Frame:
        model = self._built_model()
        if not self._fed:
            return self._described()
        try:
            described = self._framework.describe_fed(
                model, self._fed, keep_integers=self._keep_integers, declares=self._declares
            )
        except Failure as failure:
            # A model may be trained whose answers are nothing that predictions carry.
            print(f"what the model answers is not known: {failure.message}")
            return self._described()
        return Frame("result", {"signature": asdict(described), "framework_version": self._framework.version})

    def _save(self, request: Frame) -> Frame:
        return Frame("result", {"files": self._framework.save(self._built_model(), Path(request.fields["folder"]))})

    def _export(self, request: Frame) -> Frame:
        fields = request.fields
        job = ExportJob(
            format=fields["format"],
            path=Path(fields["path"]),
            inputs=tuple(TensorSpec.of(each) for each in fields["inputs"]),
            outputs=tuple(TensorSpec.of(each) for each in fields["outputs"]),
            calibration=None if fields["samples"] is None else self._open_rows({**fields, "labels": None}, "rows"),
        )
        self._framework.export(self._built_model(), job)
        return Frame("result")

    def _warm(self, request: Frame) -> Frame:
        self._framework.warm(self._built_model(), request.fields["max_rows"], keep_integers=self._keep_integers)
        return Frame("result")

    def _predict(self, request: Frame) -> Frame:
        model = self._built_model()
        chosen = feeding(self._framework.inputs(model), request.arrays, _fields_of(request.fields))
        columns = by_input(request.arrays, chosen)
        return Frame("result", {}, self._framework.predict(model, columns, keep_integers=self._keep_integers))

    def _open_rows(self, fields: Mapping[str, Any], which: str) -> Rows:
        rows = Rows.open(
            fields["samples"], fields["labels"], fields[which], fields["in_memory_bytes"], _fields_of(fields)
        )
        return rows.feeding(self._framework.inputs(self._model))

    def _built_model(self) -> Any:
        if self._model is None:
            raise Failure("NO_MODEL", "no model has been built in this worker")
        return self._model


class Report:
    """Tells the feeder about a training: at most two progress frames a second, and every epoch."""

    def __init__(self, worker: Worker, pipes: Pipes, plan: Plan) -> None:
        self._worker, self._pipes, self._plan = worker, pipes, plan
        self._epochs_done = self._steps_done = self._step = 0
        self._first_step = 0
        self._epoch_began = time.monotonic()
        self._told = 0.0

    @property
    def stop_requested(self) -> bool:
        """Whether the feeder asked for the end."""
        return self._worker.stop_requested

    def stop(self) -> None:
        """Raises CANCELLED."""
        raise CancelledError

    def begun(self, checkpoint: Checkpoint | None) -> None:
        """Tells where the training begins, and every epoch before it: the feeder may have lost what it heard."""
        at = START if checkpoint is None else checkpoint.position
        seconds = 0.0 if checkpoint is None else checkpoint.seconds
        self._pipes.send(Frame("begun", {**asdict(at), "steps": self._plan.steps, "seconds": seconds}))
        for metrics in () if checkpoint is None else checkpoint.epochs:
            self._steps_done += self._plan.steps
            self.epoch(metrics)
        self._step = self._first_step = at.step
        self._steps_done += at.step

    def kept(self, position: Position) -> None:
        """Tells of a checkpoint."""
        self._pipes.send(Frame("checkpoint", {**asdict(position), "steps": self._plan.steps}))

    def step(self, loss: float, count: int = 1) -> None:
        """Counts steps; raises NAN_LOSS."""
        self._step += count
        self._steps_done += count
        if not math.isfinite(loss):
            epoch = self._epochs_done + 1
            message = f"the loss became {loss} in epoch {epoch}, step {self._step}; a lower learning rate may help"
            raise Failure("NAN_LOSS", message, epoch=epoch, step=self._step)
        if time.monotonic() - self._told >= PROGRESS_INTERVAL_S:
            self._tell()

    def epoch(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Sends an epoch's metrics."""
        self._epochs_done += 1
        fields = {"number": self._epochs_done, "metrics": metrics, "step": self._steps_done}
        self._pipes.send(Frame("epoch", fields))
        self._step, self._first_step, self._epoch_began = 0, 0, time.monotonic()

    def _tell(self) -> None:
        self._told = time.monotonic()
        seconds = max(self._told - self._epoch_began, 1e-6)
        fields = {
            "epoch": self._epochs_done + 1,
            "epochs": self._plan.epochs,
            "step": self._step,
            "steps": self._plan.steps,
            "rows_per_second": (self._step - self._first_step) * self._plan.batch_size / seconds,
        }
        self._pipes.send(Frame("progress", fields))


@contextlib.contextmanager
def _placed_in(code: str) -> Iterator[None]:
    """Gives a missing or unusable model its place in the code."""
    try:
        yield
    except Failure as failure:
        if failure.reason == "NO_MODEL" and not failure.facts.get("line"):
            failure.facts.update({name: str(value) for name, value in place_of_model(code).items()})
        raise


def _fields_of(request: Mapping[str, Any]) -> tuple[Field, ...]:
    return tuple(Field.of(each) for each in request["fields"])


def _tell_unused(rows: Rows) -> None:
    """Nothing of the data is left out in silence: this is in the log of the run."""
    taken = {field.start for field in rows.chosen}
    unused = [field.name for field in rows.fields if field.start not in taken]
    if taken and unused:
        print(f"the model has no input for these fields of the stream, which are not used: {shown(unused)}")


def _framework(name: str) -> Framework:
    missing = [module for module in NEEDS[name] if find_spec(module) is None]
    if missing:
        command = f"pip install 'headrace[{EXTRAS[name]}]'"
        message = f"{' and '.join(missing)} not installed; run: {command}"
        raise Failure("NOT_INSTALLED", message, framework=name, command=command)
    # Never both in one process: they abort each other.
    framework: Framework
    if name == "tensorflow":
        from frameworks.tensorflow import TensorFlow

        framework = TensorFlow()
    else:
        from frameworks.pytorch import PyTorch

        framework = PyTorch()
    return framework


def _private(fd: int) -> int:
    """The same pipe under a high number that no child process inherits, out of the way of code that counts from 3."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(fd)
    return moved


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """What the frameworks print while they load is no output of the person's code."""
    kept = [os.dup(1), os.dup(2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for fd in (*kept, nothing):
            os.close(fd)


if __name__ == "__main__":
    main()
