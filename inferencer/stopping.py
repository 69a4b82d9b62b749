"""The policy to stop: a partition is answered up to its first record that cannot be, and no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import FailedPrecondition
from inferencer.answers import Refusal

# Partition and offset of a record.
Place = tuple[int, int]


class RecordRefused(FailedPrecondition):
    """A record cannot be answered, and the policy is to stop at it. Metadata: topic, partition, offset."""


@dataclass(frozen=True)
class Stop:
    """Where the records of one batch end; falsy where nothing is wrong with any."""

    at: Mapping[int, tuple[int, Refusal]]
    """Partition to the offset of its first record that cannot be answered, and why; in the order of the batch."""

    def __bool__(self) -> bool:
        return bool(self.at)

    @classmethod
    def among(
        cls, places: Sequence[Place], answers: Sequence[bytes | Refusal], refused: Mapping[Place, Refusal]
    ) -> Stop:
        """refused: what is known of records, whatever their answers are."""
        at: dict[int, tuple[int, Refusal]] = {}
        for (partition, offset), answer in zip(places, answers, strict=True):
            outcome = refused.get((partition, offset), answer)
            if isinstance(outcome, Refusal):
                at.setdefault(partition, (offset, outcome))
        return cls(at)

    def before(self, places: Sequence[Place]) -> list[int]:
        """Positions in the batch of the records that may be answered."""
        return [
            index
            for index, (partition, offset) in enumerate(places)
            if partition not in self.at or offset < self.at[partition][0]
        ]

    def error(self, topic: str) -> RecordRefused:
        """Names the first of these records."""
        partition, (offset, refusal) = next(iter(self.at.items()))
        return RecordRefused(
            refusal.reason,
            f"the record at offset {offset} of {topic}/{partition} cannot be answered, and is the next one:"
            f" {refusal.message}",
            topic=topic,
            partition=partition,
            offset=offset,
        )
