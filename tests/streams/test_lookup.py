"""Single records by their place."""

from collections.abc import Callable

from streams.kafka import KafkaSettings
from streams.lookup import RecordLookup
from streams.writer import BatchProducer


def test_records_are_found_by_their_place_and_what_is_not_there_is_left_out(
    kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    name = topic(partitions=2)
    with BatchProducer(kafka) as producer:
        for number in range(20):
            producer.produce(name, None, b"%d" % number, None, number % 2)
        producer.flush()
    with RecordLookup(kafka, name) as lookup:
        assert lookup.values({(0, 3), (1, 0), (1, 9)}, 20.0) == {(0, 3): b"6", (1, 0): b"1", (1, 9): b"19"}
        # Behind where the one before it ended, and before.
        assert lookup.values({(0, 1)}, 20.0) == {(0, 1): b"2"}
        assert lookup.values({(0, 0), (1, 4000)}, 3.0) == {(0, 0): b"0"}
