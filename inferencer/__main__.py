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
from headrace.watchdog import Watchdog
from inferencer.across import AcrossClusters
from inferencer.delivery import AtLeastOnce, Delivery, ExactlyOnce, is_fenced
from inferencer.loading import ModelLoader
from inferencer.loop import DEFAULT_MAX_ROWS, DEFAULT_MAX_WAIT_S, Loop, Route, Target, is_permanent
from inferencer.models import Following
from inferencer.served import Clusters, fetch_clusters, fetch_inference
from inferencer.settings import Settings
from inferencer.status import Reporter, Status
from inferencer.workers import Workers
from streams.answers import dead_letter_topic, inference_group
from streams.clusters import secrets_of
from streams.codecs import codec_for
from streams.group import GroupReader
from streams.kafka import KafkaSettings, partitions_of
from streams.output_watch import OutputWatch
from streams.topic_rules import fitting, rules_of
from streams.topic_watch import TopicWatch

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
    """The life of a replica: learn what is wished for, load it, answer, follow the wish."""
    fenced = threading.Event()

    def end_as_fenced() -> None:
        fenced.set()
        stop.set()

    with ExitStack() as stack:
        channel = stack.enter_context(connect(settings.address))
        inference = fetch_inference(channel, settings.inference_id, stop)
        status = Status(settings.slot)
        workers = stack.enter_context(_workers(settings, status))
        models = Following(ModelLoader(channel, inference, settings.work_dir / "weights", workers), status)
        reporter = Reporter(
            channel,
            status,
            inference_id=settings.inference_id,
            attempt=settings.attempt,
            on_fenced=end_as_fenced,
            on_wish=models.wish,
        )
        stack.enter_context(reporter)
        port = stack.enter_context(metrics_endpoint(settings.metrics_listen, ready=lambda: status.is_ready))
        if port:
            status.serves_metrics(f"{settings.metrics_listen.rpartition(':')[0]}:{port}")
        try:
            clusters = fetch_clusters(channel, inference, KafkaSettings(settings.kafka), secrets_of(os.environ), stop)
            with models.start(inference, stop):
                answer(settings, inference, clusters, models, status, stop)
        except HeadraceError as error:
            if stop.is_set() and isinstance(error, Cancelled):
                raise
            return _exit_code(error, status)
        status.stopped()
        return EXIT_FENCED if fenced.is_set() else EXIT_OK


def _workers(settings: Settings, status: Status) -> Workers:
    return Workers(
        settings.work_dir / f"worker-{settings.slot}",
        memory_bytes=settings.worker_memory_bytes,
        spare=settings.spare_worker,
        keeper=settings.spares,
        is_busy=lambda: status.is_behind,
        on_output=lambda text: print(text, end="", file=sys.stderr, flush=True),
    )


def answer(
    settings: Settings,
    inference: Inference,
    clusters: Clusters,
    models: Following,
    status: Status,
    stop: threading.Event,
) -> None:
    """Joins the group, and answers until stopped."""
    group_id, route = inference_group(inference), _route(clusters, inference)
    reader = GroupReader(
        clusters.input,
        group_id=group_id,
        topic=inference.input_topic,
        slot=str(settings.slot),
        start_offsets=dict(inference.start_offsets),
        on_revoke=lambda partitions: loop.before_revoke(partitions),
        on_lost=lambda partitions: loop.after_loss(partitions),
    )
    with (
        Watchdog(settings.stall_s) as watchdog,
        # Opening the writer first fences what an earlier process of this slot left open, before the group is joined.
        _delivery(clusters, f"{group_id}-{settings.slot}", inference, route, reader) as delivery,
    ):
        loop = Loop(
            route=route,
            reader=reader,
            codec=codec_for(inference.input_format, dict(inference.input_config)),
            models=models,
            delivery=delivery,
            status=status,
            on_turn=watchdog.alive,
        )
        with (
            reader,
            TopicWatch(
                clusters.input,
                inference.input_topic,
                reader.fail,
                on_contact=status.hears,
                held_to=inference.input_topic_id,
            ),
            OutputWatch(clusters.output, inference.output_topic, status.hides, patience_s=settings.hidden_after_s),
        ):
            log.info("answering", extra={"input": inference.input_topic, "output": inference.output_topic})
            loop.run(stop)
            reader.leave()


def _delivery(
    clusters: Clusters, transactional_id: str, inference: Inference, route: Route, reader: GroupReader
) -> Delivery:
    output, dead_letters = route.output.rules, route.dead_letters.rules
    if clusters.input != clusters.output:
        here, there = fitting(clusters.input, dead_letters), fitting(clusters.output, output)
        return AcrossClusters(here, there, inference.output_topic, reader)
    kafka = fitting(clusters.input, output, dead_letters)
    if inference.guarantee == inference_pb2.GUARANTEE_AT_LEAST_ONCE:
        return AtLeastOnce(kafka, reader)
    return ExactlyOnce(kafka, transactional_id, inference.input_topic)


def _route(clusters: Clusters, inference: Inference) -> Route:
    wait: timedelta | None = inference.batch.max_wait.ToTimedelta() if inference.batch.HasField("max_wait") else None
    return Route(
        input_topic=inference.input_topic,
        output=_target(clusters.output, inference.output_topic),
        dead_letters=_target(clusters.input, dead_letter_topic(inference.input_topic)),
        on_error=inference.on_error or inference_pb2.ERROR_POLICY_DEAD_LETTER,
        max_rows=inference.batch.max_rows or DEFAULT_MAX_ROWS,
        max_wait_s=wait.total_seconds() if wait is not None else DEFAULT_MAX_WAIT_S,
    )


def _target(kafka: KafkaSettings, topic: str) -> Target:
    """The topic as it is; whoever created the inference created it."""
    return Target(topic, len(partitions_of(kafka, topic)), rules_of(kafka, topic))


def _exit_code(error: HeadraceError, status: Status) -> int:
    facts = logs.error_fields(error)
    if is_fenced(error):
        log.warning("another process has this slot", extra=facts)
        return EXIT_FENCED
    log.error("the replica ends", extra=facts)
    is_for_good = is_permanent(error)
    status.breaks_off(error, for_good=is_for_good)
    return EXIT_FAILED if is_for_good else EXIT_RETRY


if __name__ == "__main__":
    run_main(main)
