"""`python -m tests.inferencer.faults.child`: the process of a replica, as it is but for what the environment says.

The worker is one without a framework to import, unless asked otherwise, so that a thousand kills do not take hours;
timeouts are short for the same reason. `HEADRACE_PLANTED` plants a bug that the oracle has to find.
"""

import itertools
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import inferencer.__main__ as main
import inferencer.delivery as delivery
import inferencer.loading as loading
import inferencer.predictor as predictor
from headrace.process import run_main
from headrace.settings import load
from sandbox import session, spares
from streams.group import GroupMetadata
from streams.writer import TransactionalWriter
from tests.inferencer.faults import planted
from tests.sandbox.workers import plain_command


@dataclass(frozen=True)
class Conditions:
    """Read from the environment, as the settings of a replica are."""

    framework: str = "plain"
    """`plain`: no framework; otherwise that of the result."""
    planted: str = ""
    """The name of a function in `planted`."""
    session_timeout_ms: int = 15000
    max_poll_interval_ms: int = 300000
    transaction_timeout_ms: int = 30000
    commit_timeout_s: float = 30.0
    batch_timeout_s: float = 60.0
    part_timeout_s: float = 5.0
    stale_every: int = 0
    """Every so many commits are tried as a member of the generation before, which Kafka refuses; 0: none."""


def commit_stale(every: int) -> None:
    """What a rebalance between poll and commit does to a transaction."""
    send, numbers = TransactionalWriter.send_offsets, itertools.count(1)

    def stale(self: TransactionalWriter, topic: str, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        if next(numbers) % every == 0:
            at = len(b"CGMDv2:")
            raw = metadata.raw[:at] + struct.pack("<i", metadata.generation - 1) + metadata.raw[at + 4 :]
            metadata = GroupMetadata.parse(raw)
        send(self, topic, positions, metadata)

    TransactionalWriter.send_offsets = stale  # type: ignore[method-assign]


def replace(module: ModuleType, name: str, **options: object) -> None:
    """From now on the module makes its objects with these options as well."""
    setattr(module, name, partial(getattr(module, name), **options))


def apply(conditions: Conditions) -> None:
    """Changes what only constants and `__main__` say."""
    if conditions.framework == "plain":
        for module in (session, spares):
            setattr(module, "worker_command", lambda *_, **__: plain_command())  # noqa: B010
    group = {
        "session.timeout.ms": conditions.session_timeout_ms,
        "heartbeat.interval.ms": min(1000, conditions.session_timeout_ms // 4),
        "max.poll.interval.ms": max(conditions.max_poll_interval_ms, conditions.session_timeout_ms),
    }
    transactions = {"transaction.timeout.ms": conditions.transaction_timeout_ms}
    replace(main, "GroupReader", settings=group)
    replace(delivery, "TransactionalWriter", commit_timeout_s=conditions.commit_timeout_s, settings=transactions)
    replace(loading, "Predictor", batch_timeout_s=conditions.batch_timeout_s)
    predictor.PART_TIMEOUT_S = conditions.part_timeout_s
    if conditions.stale_every:
        commit_stale(conditions.stale_every)
    if conditions.planted:
        planted.BUGS[conditions.planted]()


if __name__ == "__main__":
    apply(load(Conditions, os.environ))
    run_main(main.main)
