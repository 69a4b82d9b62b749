"""The processes of the only replica of an inference on this machine."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
from confluent_kafka import KafkaException

from headrace.v1 import inference_pb2
from streams.kafka import KafkaSettings

LIMIT_S = 90.0


def replica_process(kafka: KafkaSettings, inference: inference_pb2.Inference) -> psutil.Process:
    """Of the only replica; other platforms of this machine have inferences of the same id. Raises AssertionError while
    there is none.
    """
    wanted = {"HEADRACE_KAFKA": kafka.bootstrap_servers, "HEADRACE_INFERENCE_ID": str(inference.id)}
    for process in psutil.process_iter(["cmdline"]):
        if "inferencer" in (process.info["cmdline"] or []) and wanted.items() <= _environment(process).items():
            return process
    raise AssertionError(f"no replica of {inference.id} runs")


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def tree_of(replica: psutil.Process) -> list[psutil.Process]:
    """Its process, its workers, and their wardens."""
    workers = workers_of(replica)
    return [replica, *workers, *(warden for each in workers if (warden := each.parent()) is not None)]


def workers_of(replica: psutil.Process) -> list[psutil.Process]:
    """Whoever started them: their homes are in its work folder."""
    work = replica.environ()["HEADRACE_WORK_DIR"]
    return [
        each
        for each in psutil.process_iter(["cmdline", "cwd"])
        if "frameworks.worker" in (each.info["cmdline"] or []) and Path(each.info["cwd"] or "/").is_relative_to(work)
    ]


def await_spare(kafka: KafkaSettings, inference: inference_pb2.Inference) -> None:
    """Until a second worker of the only replica has imported its framework, and nothing of it computes."""
    await_that(lambda: _has_spare(replica_process(kafka, inference)), "a spare worker")


def _has_spare(replica: psutil.Process) -> bool:
    """Whether a second worker waits, with its framework imported."""
    return len(workers_of(replica)) == 2 and _is_idle(replica)


def _is_idle(replica: psutil.Process) -> bool:
    """Whether nothing of it imports or computes."""
    before = sum(sum(each.cpu_times()[:2]) for each in tree_of(replica))
    time.sleep(1)
    return sum(sum(each.cpu_times()[:2]) for each in tree_of(replica)) - before < 0.1


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Until the condition holds; what it raises of processes that come and go means "not yet"."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            if condition():
                return
        except (AssertionError, ValueError, psutil.Error, KafkaException):
            pass  # not yet
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
