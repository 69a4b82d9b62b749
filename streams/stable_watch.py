"""Notices that readers with read_committed get nothing more of a topic, because a transaction in it does not end.

Whoever writes there sees nothing of it: the records behind the transaction are in the log, committed and hidden.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from headrace.errors import HeadraceError, Unavailable
from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings, LogEnds, log_ends

log = logging.getLogger(__name__)

# Longer than a transaction may be open after its producer has died: Kafka looks for such every ten seconds.
PATIENCE_S = 60.0
LOOKS = 6  # in that time


class StableWatch:
    """Looks every few seconds, on a thread of its own. A context manager.

    on_change: called on that thread with Unavailable (TRANSACTION_UNDECIDED) when the last stable offset of a partition
        has stood before its end for `patience_s`, and with None when no partition's does any more.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        on_change: Callable[[HeadraceError | None], None],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._kafka, self._topic, self._on_change, self._patience_s = kafka, topic, on_change, patience_s
        self._stands: dict[int, tuple[int, float]] = {}  # partition → last stable offset, and since when
        self._hidden: dict[int, LogEnds] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stable-watch", daemon=True)

    def __enter__(self) -> StableWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Does not wait for a look that is on its way."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._patience_s / LOOKS):
            self._look()

    def _look(self) -> None:
        try:
            ends = log_ends(self._kafka, self._topic)
        except HeadraceError as error:  # Kafka is away, which the writer tells
            log.debug("the topic cannot be looked at", extra={"topic": self._topic, "cause": str(error)})
            return
        before, self._hidden = self._hidden, self._hidden_in(ends)
        if self._hidden.keys() != before.keys():
            self._on_change(self._undecided() if self._hidden else None)

    def _hidden_in(self, ends: Mapping[int, LogEnds]) -> dict[int, LogEnds]:
        now = time.monotonic()
        known, self._stands = self._stands, {}
        for number, end in ends.items():
            if end.stable < end.high:
                stood, since = known.get(number, (-1, now))
                self._stands[number] = (end.stable, since if stood == end.stable else now)
        return {number: ends[number] for number, (_, since) in self._stands.items() if now - since >= self._patience_s}

    def _undecided(self) -> Unavailable:
        places = ", ".join(f"partition {number} from offset {end.stable}" for number, end in self._hidden.items())
        return Unavailable(
            error_pb2.REASON_TRANSACTION_UNDECIDED,
            f"readers with read_committed get nothing more of the topic {self._topic!r} ({places}): a transaction "
            f"there was not ended for {self._patience_s:g} s; where it hangs, somebody has to: kafka-transactions.sh "
            "find-hanging, then abort",
            topic=self._topic,
            partitions=",".join(map(str, self._hidden)),
            bootstrap_servers=self._kafka.bootstrap_servers,
        )
