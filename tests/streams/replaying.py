"""`python -m tests.streams.replaying KAFKA TOPIC TARGET`: replays a topic as a process that a test may have killed."""

import sys

from streams.kafka import KafkaSettings, Message, headers_of, log_ends
from streams.replay import Copy, Replayed, Replayer


def replay(kafka: KafkaSettings, topic: str, target: str, kind: str = "", within_s: float = 60.0) -> Replayed:
    """To the target's first partition; the kind is the header `kind`."""

    def kind_of(record: Message) -> str:
        return (dict(headers_of(record))["kind"] or b"").decode()  # type: ignore[union-attr]

    def copy_of(record: Message) -> Copy:
        kept = [header for header in headers_of(record) if header[0] != "kind"]
        return Copy(target, 0, record.key(), record.value(), kept)

    ends = {number: one.high for number, one in log_ends(kafka, topic).items()}
    return Replayer(kafka, topic, kind_of, copy_of).replay(ends, kind, within_s=within_s)


if __name__ == "__main__":
    replay(KafkaSettings(sys.argv[1]), sys.argv[2], sys.argv[3])
