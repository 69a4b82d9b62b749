"""`python -P -m inferencer`: one replica of an inference, until it is stopped."""

import logging
import os
import sys
import threading
from contextlib import ExitStack
from datetime import timedelta

from headrace import logs
from headrace.client import connect
from headrace.errors import Cancelled, HeadraceError
from headrace.metrics import metrics_endpoint
from headrace.process import EXIT_FAILED, EXIT_FENCED, EXIT_OK, EXIT_RETRY, run_main, stop_on_signals
from headrace.settings import load
from headrace.v1 import inference_pb2
from headrace.v1.inference_pb2 import Inference
from inferencer.answers import DEAD_LETTER_SUFFIX, encoder_of
from inferencer.delivery import AtLeastOnce, Delivery, ExactlyOnce, is_fenced
from inferencer.loop import DEFAULT_MAX_ROWS, DEFAULT_MAX_WAIT_S, Loop, Route, Target, is_permanent
from inferencer.predictor import Predictor, Recipe
from inferencer.served import Served, fetch_served
from inferencer.settings import Settings
from inferencer.status import Reporter, Status
from streams.codecs import codec_for
from streams.group import GroupReader
from streams.kafka import KafkaSettings, partitions_of

log = logging.getLogger(__name__)


def main() -> int:
    """Starts the parts, runs the loop, and tells how it ended by the exit code."""
    settings = load(Settings, os.environ)
    logs.configure("inferencer")
    with logs.bind(inference=settings.inference_id, slot=settings.slot), stop_on_signals() as stop:
        try:
            return replica(settings, stop)
        except Cancelled:
            return EXIT_OK


def replica(settings: Settings, stop: threading.Event) -> int:
    """The life of a replica: fetch what to serve, load it, answer."""
    with ExitStack() as stack:
        channel = stack.enter_context(connect(settings.address))
        served = fetch_served(channel, settings.inference_id, settings.work_dir / "weights", stop)
        status = Status(settings.slot, served.result.version)
        fenced = threading.Event()

        def end_as_fenced() -> None:
            fenced.set()
            stop.set()

        stack.enter_context(
            Reporter(
                channel,
                status,
                inference_id=settings.inference_id,
                attempt=settings.attempt,
                on_fenced=end_as_fenced,
            )
        )
        stack.enter_context(metrics_endpoint(settings.metrics_listen, ready=lambda: status.is_running))
        try:
            answer(settings, served, status, stop)
        except HeadraceError as error:
            return _exit_code(error, status)
        status.stopped()
        return EXIT_FENCED if fenced.is_set() else EXIT_OK


def answer(settings: Settings, served: Served, status: Status, stop: threading.Event) -> None:
    """Loads the model, joins the group, and answers until stopped."""
    inference = served.inference
    kafka = KafkaSettings(settings.kafka)
    group_id = f"headrace-inf-{inference.id}"
    recipe = Recipe(
        served.result,
        served.weights,
        settings.work_dir / f"worker-{settings.slot}",
        settings.worker_memory_bytes,
        on_output=lambda text: print(text, end="", file=sys.stderr, flush=True),
    )
    with ExitStack() as stack:
        predictor = stack.enter_context(Predictor(recipe, encoder_of(inference)))
        reader = GroupReader(
            kafka,
            group_id=group_id,
            topic=inference.input_topic,
            slot=str(settings.slot),
            start_offsets=dict(inference.start_offsets),
            on_revoke=lambda partitions: loop.before_revoke(partitions),
            on_lost=lambda partitions: loop.after_loss(partitions),
        )
        # Opening the writer first fences what an earlier process of this slot left open, before the group is joined.
        delivery = stack.enter_context(_delivery(kafka, f"{group_id}-{settings.slot}", inference, reader))
        loop = Loop(
            route=_route(kafka, inference, served.label),
            reader=reader,
            codec=codec_for(inference.input_format, dict(inference.input_config)),
            predictor=predictor,
            delivery=delivery,
            status=status,
        )
        with reader:
            log.info("answering", extra={"input": inference.input_topic, "output": inference.output_topic})
            loop.run(stop)
            reader.leave()


def _delivery(kafka: KafkaSettings, transactional_id: str, inference: Inference, reader: GroupReader) -> Delivery:
    if inference.guarantee == inference_pb2.GUARANTEE_AT_LEAST_ONCE:
        return AtLeastOnce(kafka, reader)
    return ExactlyOnce(kafka, transactional_id, inference.input_topic)


def _route(kafka: KafkaSettings, inference: Inference, label: str) -> Route:
    wait: timedelta | None = inference.batch.max_wait.ToTimedelta() if inference.batch.HasField("max_wait") else None
    return Route(
        input_topic=inference.input_topic,
        output=_target(kafka, inference.output_topic),
        dead_letters=_target(kafka, inference.input_topic + DEAD_LETTER_SUFFIX),
        model=label.encode(),
        on_error=inference.on_error or inference_pb2.ERROR_POLICY_DEAD_LETTER,
        max_rows=inference.batch.max_rows or DEFAULT_MAX_ROWS,
        max_wait_s=wait.total_seconds() if wait is not None else DEFAULT_MAX_WAIT_S,
    )


def _target(kafka: KafkaSettings, topic: str) -> Target:
    """The topic as it is; whoever created the inference created it."""
    return Target(topic, len(partitions_of(kafka, topic)))


def _exit_code(error: HeadraceError, status: Status) -> int:
    facts = logs.error_fields(error)
    if is_fenced(error):
        log.warning("another process has this slot", extra=facts)
        return EXIT_FENCED
    log.error("the replica ends", extra=facts)
    if is_permanent(error):
        status.failed(error)
        return EXIT_FAILED
    return EXIT_RETRY


if __name__ == "__main__":
    run_main(main)
