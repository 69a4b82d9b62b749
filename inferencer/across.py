"""Answers on another Kafka cluster than their questions: no transaction spans both, so a crash may repeat answers."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from headrace.errors import InvalidArgument
from inferencer.delivery import AtLeastOnce
from streams.group import GroupMetadata, GroupReader
from streams.kafka import KafkaSettings
from streams.writer import SentRecord


class Nowhere:
    """A cluster that is only written to has no offsets of ours."""

    def commit(self, positions: Mapping[int, int]) -> None:
        """Nothing to do."""


class AcrossClusters:
    """A Delivery: offsets commit when the answers there and the dead letters here are confirmed."""

    pacing = AtLeastOnce.pacing
    shows_at_once = AtLeastOnce.shows_at_once

    def __init__(self, source: KafkaSettings, target: KafkaSettings, output_topic: str, reader: GroupReader) -> None:
        self._here, self._there = AtLeastOnce(source, reader), AtLeastOnce(target, Nowhere())
        self._output_topic = output_topic
        self._open = ExitStack()

    def __enter__(self) -> "AcrossClusters":
        with ExitStack() as stack:
            stack.enter_context(self._here)
            stack.enter_context(self._there)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def produce(self, topic: str, records: Sequence[SentRecord]) -> dict[int, InvalidArgument]:
        """See Delivery."""
        delivery = self._there if topic == self._output_topic else self._here
        return delivery.produce(topic, records)

    def commit(self, positions: Mapping[int, int], metadata: GroupMetadata) -> None:
        """See Delivery."""
        self._there.commit({}, metadata)
        self._here.commit(positions, metadata)

    def recover(self) -> None:
        """Nothing to undo: what was produced stays, and is produced again."""
