"""The names of workloads and their work folders: made of ids, so that creating one twice is one."""

from __future__ import annotations

import re

_TRAINER = re.compile(r"train-(\d+)-a(\d+)")
_REPLICA = re.compile(r"infer-(\d+)-(\d+)")


def trainer_name(result_id: int, attempt: int) -> str:
    return f"train-{result_id}-a{attempt}"


def replica_name(inference_id: int, slot: int) -> str:
    return f"infer-{inference_id}-{slot}"


def trainer_work(result_id: int) -> str:
    return f"result-{result_id}"


def deployment_work(deployment_id: int) -> str:
    """What the trainings of a deployment share: the records of its stream."""
    return f"deployment-{deployment_id}"


def replica_work(inference_id: int, slot: int) -> str:
    return f"inference-{inference_id}-{slot}"


def result_of(name: str) -> int | None:
    """The result that a trainer computes; None for another workload."""
    found = _TRAINER.fullmatch(name)
    return int(found[1]) if found else None


def replica_of(name: str) -> tuple[int, int] | None:
    """Inference and slot; None for another workload."""
    found = _REPLICA.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def trainings_owner(result_id: int) -> str:
    """Whose workloads compute a result, whichever the attempt."""
    return f"result {result_id}"


def replicas_owner(inference_id: int) -> str:
    """Whose workloads serve an inference, whichever the slot."""
    return f"inference {inference_id}"


def owner_of(name: str) -> str | None:
    """The resource that a workload belongs to."""
    if (result_id := result_of(name)) is not None:
        return trainings_owner(result_id)
    if (replica := replica_of(name)) is not None:
        return replicas_owner(replica[0])
    return None


def work_of(name: str) -> str | None:
    """The work folder of a workload."""
    if (result_id := result_of(name)) is not None:
        return trainer_work(result_id)
    if (replica := replica_of(name)) is not None:
        return replica_work(*replica)
    return None
