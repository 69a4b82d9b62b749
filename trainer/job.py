"""One run of one model, from the wish to the stored result.

The worker starts first and imports its framework while the rest is found out; it builds the model while the records
are read. Whatever fails is a HeadraceError; the attempt decides what becomes of it.
"""

import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.chunks import sha256_of
from headrace.errors import HeadraceError, InvalidArgument, not_yet
from headrace.failpoints import fail_at
from headrace.patience import Patience
from headrace.v1 import deployment_pb2, error_pb2
from headrace.v1.result_collector_pb2 import Outcome, ReportRequest
from headrace.v1.result_pb2 import Epoch, Metrics, Progress
from headrace.v1.stream_catalog_pb2 import AwaitStreamRequest, AwaitStreamResponse
from headrace.v1.stream_pb2 import Stream
from sandbox.limits import limits_of
from sandbox.session import (
    BuiltModel,
    FitBegun,
    FitCheckpoint,
    FitEpoch,
    FitEvent,
    FitJob,
    FitProgress,
    SavedFile,
    WorkerSession,
)
from streams import spool
from streams.codecs import Field
from streams.kafka import KafkaSettings
from streams.preflight import Wait
from trainer import trained
from trainer.build import building
from trainer.data import Data, read_data
from trainer.ending import Ending
from trainer.epochs import EpochReports
from trainer.journal import Journal
from trainer.outcomes import artifact_of, counted, split_metrics
from trainer.report import Reporter
from trainer.schema import check_takes
from trainer.settings import TrainerSettings
from trainer.trained import Trained
from trainer.upload import Uploader
from trainer.wish import ControlPlane, Wish, load_wish

log = logging.getLogger(__name__)

AWAIT_S = 30
# An evaluation reads fewer rows than the training did, once.
EVALUATE_TIMEOUT_S = 600.0
SANDBOX_LEVEL = "process"
LAST_FINITE = "last_finite.checkpoint"


class Job:
    """One attempt at one result. `run` returns when the result is FINISHED and everything of it is stored."""

    def __init__(
        self,
        settings: TrainerSettings,
        control_plane: ControlPlane,
        reporter: Reporter,
        ending: Ending,
        patience: Patience,
    ) -> None:
        self._settings = settings
        self._control_plane = control_plane
        self._reporter = reporter
        self._ending = ending
        self._patience = patience
        self._folder = settings.work_dir
        self._part = self._folder / "trained.part"
        self._outcome = Outcome()
        # (read, of): all that tells of the training tells it, too.
        self._records = (0, 0)
        self._epochs = EpochReports(control_plane.results, reporter, patience, settings)
        self._fitting = False

    def run(self) -> None:
        """Trains, unless an earlier attempt has, and delivers."""
        wish = load_wish(self._control_plane, self._settings.result_id, self._patience)
        kept = trained.find(wish.digest, self._folder / "trained")
        if kept is not None:
            log.info("an earlier attempt trained this already")
            self._report_again(kept)
        else:
            kept = self._train(wish)
        self._deliver(kept)

    def _train(self, wish: Wish) -> Trained:
        with self._worker(wish) as session:
            self._reporter.change_state(deployment_pb2.STATE_STARTING)
            with building(session, wish, self._ending) as built:
                stream = self._await_stream(wish)
                self._limit_time(wish)
                data = self._read(stream, wish)
                self._check(built.result(), data, wish)
            training_s = self._fit(session, data, wish)
            self._evaluate(session, data, wish, training_s)
            return self._keep(session, wish)

    @contextmanager
    def _worker(self, wish: Wish) -> Iterator[WorkerSession]:
        folder = _empty(self._folder / "worker")
        memory_bytes = self._settings.worker_memory_bytes or wish.deployment.resources.memory_bytes
        limits = limits_of(memory_bytes)
        with WorkerSession.start(wish.framework, limits=limits, folder=folder, on_output=_print) as session:
            self._ending.on_end(lambda: self._end_worker(session))
            yield session
        shutil.rmtree(folder, ignore_errors=True)

    def _end_worker(self, session: WorkerSession) -> None:
        """A training sees by itself that the run has ended, and may have time for a checkpoint."""
        if not self._fitting:
            session.kill()

    def _await_stream(self, wish: Wish) -> Stream:
        self._reporter.change_state(deployment_pb2.STATE_WAITING)
        request = AwaitStreamRequest(deployment_id=wish.deployment.id)
        request.wait.FromSeconds(AWAIT_S)
        awaits = self._control_plane.streams.AwaitStream
        while True:
            response: AwaitStreamResponse = self._patience.call(lambda: awaits(request, timeout=2 * AWAIT_S))
            if response.HasField("stream"):
                _check_has_end(response.stream)
                self._learn(Outcome(stream=response.stream, settings=wish.settings))
                return response.stream

    def _limit_time(self, wish: Wish) -> None:
        """The deadline does not count the wait for the stream, so it begins here."""
        if wish.settings.HasField("deadline"):
            self._ending.end_after(wish.settings.deadline.ToNanoseconds() / 1e9)

    def _read(self, stream: Stream, wish: Wish) -> Data:
        self._reporter.change_state(deployment_pb2.STATE_READING)
        fail_at("before_read")
        with self._decode_errors_counted():
            data = read_data(
                stream, wish.settings, KafkaSettings(self._settings.kafka), self._folder, self._settings.shared_dir,
                on_progress=self._tell_reading, on_wait=self._tell_waiting, stop=self._ending.event,
                wait_s=self._settings.kafka_wait_s, limit_bytes=self._settings.spool_limit_bytes,
            )  # fmt: skip
        fail_at("after_spool")
        if self._records == (0, 0):  # An earlier attempt has read them, or another training of the deployment.
            self._records = (data.spool.record_count, data.spool.record_count)
        known = Outcome(split_sizes=data.sizes, decode_error_count=data.spool.decode_error_count)
        known.reading_time.FromNanoseconds(round(data.spool.reading_s * 1e9))
        self._learn(known)
        self._learn_config(data.spool.config)
        return data

    @contextmanager
    def _decode_errors_counted(self) -> Iterator[None]:
        """A result that fails for undecodable records says how many there were, too."""
        try:
            yield
        except InvalidArgument as error:
            if error.reason == error_pb2.REASON_DECODE_ERROR:
                self._learn(Outcome(decode_error_count=int(error.metadata["count"])))
            raise

    def _learn_config(self, config: Mapping[str, str]) -> None:
        """What the records decided about their format: an inference then decodes its questions alike."""
        stream = self._outcome.stream
        if any(stream.input_config.get(name) != value for name, value in config.items()):
            stream.input_config.update(config)
            self._reporter.outcome(Outcome(stream=stream))

    def _tell_waiting(self, wait: Wait) -> None:
        """The stream was announced before all of it was written."""
        progress = Progress(phase=deployment_pb2.STATE_READING, records_total=wait.total, waits_for=wait.why)
        self._reporter.progress(progress)

    def _tell_reading(self, reading: spool.Progress) -> None:
        self._records = (reading.read, reading.total)
        progress = Progress(
            phase=deployment_pb2.STATE_READING,
            records_read=reading.read,
            records_total=reading.total,
            rows_per_second=reading.records_per_s,
        )
        _set_time_left(progress, reading.left_s)
        self._reporter.progress(progress, always=reading.read >= reading.total)

    def _check(self, model: BuiltModel, data: Data, wish: Wish) -> None:
        """Refuses records that the model does not take, before the first step.

        Only Keras models declare what they take. Of a PyTorch model the signature holds the names of several inputs,
        but only a guess of a single one: there the worker sees.
        """
        self._learn(Outcome(framework_version=model.framework_version, sandbox_level=SANDBOX_LEVEL))
        if wish.framework == "tensorflow" or len(model.signature.inputs) > 1:
            check_takes(model.signature, data.spool.sample_spec.shape, _fields(data))

    def _fit(self, session: WorkerSession, data: Data, wish: Wish) -> float:
        """Trains to the last epoch; the seconds that it took."""
        self._reporter.change_state(deployment_pb2.STATE_TRAINING)
        fail_at("before_fit")
        started = time.monotonic()
        done, before_s = 0, 0.0
        with trained.epochs_journal(_empty(self._part)) as epochs:
            for event in self._fit_events(session, self._fit_job(data, wish)):
                match event:
                    case FitEpoch():
                        self._tell_epoch(event, epochs)
                        done = event.number
                        fail_at("after_epoch")
                    case FitProgress():
                        self._tell_training(event, wish.settings.batch_size)
                    case FitBegun():
                        before_s = event.trained_s
                        log.info("training", extra={"from_epoch": event.epoch, "from_step": event.step})
                        self._tell_place(event)
                    case FitCheckpoint():
                        self._tell_place(event)
                        fail_at("after_checkpoint")
        # Progress comes once a second: without this a watcher would see the last epochs' for ever.
        self._reporter.progress(self._training(epoch=done, epochs=done), always=True)
        training_s = before_s + time.monotonic() - started
        known = Outcome(metrics=self._outcome.metrics)
        known.training_time.FromNanoseconds(round(training_s * 1e9))
        self._learn(known)
        return training_s

    def _fit_events(self, session: WorkerSession, job: FitJob) -> Iterator[FitEvent]:
        self._fitting = True
        try:
            yield from session.fit(job, stop=self._ending.event)
        except HeadraceError as error:
            if error.reason == error_pb2.REASON_NAN_LOSS:
                self._keep_last_finite(self._folder / "checkpoints")
            raise
        finally:
            self._fitting = False
        # The run may have ended when the training had just done so, and nobody broke off the worker.
        self._ending.check()

    def _keep_last_finite(self, checkpoints: Path) -> None:
        """With the result: the folder goes, and whoever asks what made a loss explode needs the weights before it."""
        newest = max(checkpoints.glob("*.checkpoint"), default=None)
        if newest is None:
            return
        try:
            artifact = artifact_of(SavedFile(LAST_FINITE, newest, "application/octet-stream"))
            self._uploader().upload(artifact, newest)
        except HeadraceError as error:
            log.warning("the last finite checkpoint is not kept", extra={"cause": error.message})

    def _fit_job(self, data: Data, wish: Wish) -> FitJob:
        return FitJob(
            samples=data.spool.samples,
            labels=data.spool.labels,
            training_rows=data.rows["training"],
            validation_rows=data.rows.get("validation"),
            batch_size=wish.settings.batch_size,
            fit_args=wish.arguments.fit_args,
            evaluate_args=wish.arguments.evaluate_args,
            seed=wish.settings.seed,
            keep_integers=wish.settings.keep_integers,
            fields=_fields(data),
            checkpoints=self._folder / "checkpoints",
            checkpoint_digest=_digest(wish, data),
            checkpoint_interval_s=wish.settings.checkpoint_interval.ToNanoseconds() / 1e9,
        )

    def _tell_place(self, at: FitBegun | FitCheckpoint) -> None:
        """What is told first of an attempt's training is what it was spared: by that it is progress over the last."""
        place = self._training(epoch=at.epoch, step=at.step, steps=at.steps)
        self._reporter.progress(place, always=isinstance(at, FitBegun))

    def _tell_epoch(self, event: FitEpoch, epochs: Journal) -> None:
        epoch = Epoch(
            result_id=self._settings.result_id,
            attempt=self._settings.attempt,
            number=event.number,
            metrics=split_metrics(event.metrics),
            step=event.step,
        )
        epoch.end_time.GetCurrentTime()
        epochs.append(ReportRequest(seq=event.number, epoch=epoch))
        self._epochs.tell(epoch)
        # An epoch without a validation leaves the one before as the last.
        for split, values in epoch.metrics.splits.items():
            self._outcome.metrics.splits[split].CopyFrom(values)

    def _tell_training(self, event: FitProgress, batch_size: int) -> None:
        progress = self._training(
            epoch=event.epoch - 1,
            epochs=event.epochs,
            step=event.step,
            steps=event.steps,
            rows_per_second=event.rows_per_second,
        )
        _set_time_left(progress, event.left_s(batch_size))
        self._reporter.progress(progress)

    def _training(self, **numbers: Any) -> Progress:
        read, total = self._records
        return Progress(phase=deployment_pb2.STATE_TRAINING, records_read=read, records_total=total, **numbers)

    def _evaluate(self, session: WorkerSession, data: Data, wish: Wish, training_s: float) -> None:
        """The metrics of the test split, and the confusion matrix on it (on the validation where there is no test)."""
        self._reporter.change_state(deployment_pb2.STATE_EVALUATING)
        confusion_matrix = wish.settings.confusion_matrix
        split = "test" if "test" in data.rows else "validation"
        if split not in data.rows or (split == "validation" and not confusion_matrix):
            return
        evaluation = session.evaluate(
            data.spool.samples,
            data.spool.labels,
            data.rows[split],
            batch_size=wish.settings.batch_size,
            evaluate_args=wish.arguments.evaluate_args,
            confusion_matrix=confusion_matrix,
            keep_integers=wish.settings.keep_integers,
            fields=_fields(data),
            timeout_s=max(EVALUATE_TIMEOUT_S, training_s),
        )
        known = Outcome(confusion_matrix=counted(evaluation), roc=evaluation.roc, residuals=evaluation.residuals)
        for judged in ("roc", "residuals"):
            if known.HasField(judged):
                getattr(known, judged).split = split
        known.metrics.MergeFrom(self._outcome.metrics)
        known.metrics.splits[split].CopyFrom(Metrics(values=evaluation.metrics))
        self._learn(known)

    def _keep(self, session: WorkerSession, wish: Wish) -> Trained:
        """Saves the model beside all that was reported, for an attempt that would come after this one."""
        self._reporter.change_state(deployment_pb2.STATE_UPLOADING)
        signature = session.describe().signature
        signature.summary = ""  # The code says it, and a long one fits no message.
        self._learn(Outcome(signature=signature))
        artifacts = [artifact_of(file) for file in session.save(self._part)]
        done = Trained(self._outcome, artifacts, self._part)
        return trained.keep(done, wish.digest, self._folder / "trained")

    def _report_again(self, kept: Trained) -> None:
        self._reporter.change_state(deployment_pb2.STATE_STARTING)
        for epoch in kept.epochs():
            self._epochs.tell(epoch)
        self._reporter.outcome(kept.outcome)
        self._reporter.change_state(deployment_pb2.STATE_UPLOADING)

    def _deliver(self, done: Trained) -> None:
        """Uploads the files; FINISHED is the last event, and comes when they are stored."""
        fail_at("before_upload")
        uploader = self._uploader()
        for artifact in done.artifacts:
            uploader.upload(artifact, done.folder / artifact.name)
        fail_at("after_upload")
        self._ending.check()
        fail_at("before_finish")
        self._reporter.change_state(deployment_pb2.STATE_FINISHED)

    def _uploader(self) -> Uploader:
        return Uploader(
            self._control_plane.results,
            self._patience,
            result_id=self._settings.result_id,
            attempt=self._settings.attempt,
        )

    def _learn(self, known: Outcome) -> None:
        self._outcome.MergeFrom(known)
        self._reporter.outcome(known)


def _fields(data: Data) -> tuple[Field, ...]:
    """What a row consists of, where the records have named fields."""
    return data.spool.fields


def _check_has_end(stream: Stream) -> None:
    if stream.open_topics and not stream.ranges:
        raise not_yet(
            f"training on a stream without an end ({', '.join(stream.open_topics)})",
            "announce what is in the topic: headrace stream announce --topic TOPIC --deployment ID",
        )


def _digest(wish: Wish, data: Data) -> str:
    """Names a training: of this wish on these records. How they are split follows from both."""
    parts = [wish.digest, *data.spool.digests, *(f"{name} {sha256_of(path)}" for name, path in data.rows.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _empty(folder: Path) -> Path:
    """The folder, made anew: an attempt that was killed may have left something in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _print(text: str) -> None:
    """What the user's code prints goes where this process prints: into the log of the run."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _set_time_left(progress: Progress, left_s: float | None) -> None:
    if left_s is not None:
        progress.time_left.FromNanoseconds(round(left_s * 1e9))
