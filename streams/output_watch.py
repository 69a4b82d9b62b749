"""Notices that readers with read_committed get nothing more of a topic: a transaction does not end, or it is gone.

Whoever writes there sees nothing of the one: the records behind the transaction are in the log, committed and hidden.
Of the other only once there is something to write, and not where brokers make a topic that is written to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Set

from headrace.errors import HeadraceError, NotFound, Unavailable
from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings, LogEnds, log_ends

log = logging.getLogger(__name__)

# Longer than a transaction may be open after its producer has died: Kafka looks for such every ten seconds.
PATIENCE_S = 60.0
LOOKS = 6  # in that time


class OutputWatch:
    """Looks every few seconds, on a thread of its own. A context manager.

    on_change: called on that thread with Unavailable (TRANSACTION_UNDECIDED) when the last stable offset of a partition
        has stood before its end for `patience_s`, with NotFound (UNKNOWN_TOPIC) when there is no such topic, and with
        None when neither is so any more.
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
        self._told: Set[int] | int = set()  # the partitions that were told of, or the reason
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output-watch", daemon=True)

    def __enter__(self) -> OutputWatch:
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
            hidden = self._hidden_in(log_ends(self._kafka, self._topic))
        except NotFound as error:
            self._tell(error.reason, error)
        except HeadraceError as error:  # Kafka is away, which others tell
            log.debug("the topic cannot be looked at", extra={"topic": self._topic, "cause": str(error)})
        else:
            self._tell(hidden.keys(), self._undecided(hidden) if hidden else None)

    def _tell(self, what: Set[int] | int, error: HeadraceError | None) -> None:
        if what != self._told:
            self._told = what
            self._on_change(error)

    def _hidden_in(self, ends: Mapping[int, LogEnds]) -> dict[int, LogEnds]:
        now = time.monotonic()
        known, self._stands = self._stands, {}
        for number, end in ends.items():
            if end.stable < end.high:
                stood, since = known.get(number, (-1, now))
                self._stands[number] = (end.stable, since if stood == end.stable else now)
        return {number: ends[number] for number, (_, since) in self._stands.items() if now - since >= self._patience_s}

    def _undecided(self, hidden: Mapping[int, LogEnds]) -> Unavailable:
        places = ", ".join(f"partition {number} from offset {end.stable}" for number, end in hidden.items())
        return Unavailable(
            error_pb2.REASON_TRANSACTION_UNDECIDED,
            f"readers with read_committed get nothing more of the topic {self._topic!r} ({places}): a transaction "
            f"there was not ended for {self._patience_s:g} s; where it hangs, somebody has to: kafka-transactions.sh "
            "find-hanging, then abort",
            topic=self._topic,
            partitions=",".join(map(str, hidden)),
            bootstrap_servers=self._kafka.bootstrap_servers,
        )
