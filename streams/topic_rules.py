"""What a topic takes: for one record that it does not, Kafka refuses the whole batch that the record came in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from headrace.errors import PermissionDenied
from streams.delivery import MESSAGE_MAX_BYTES
from streams.kafka import KafkaSettings, topic_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TopicRules:
    """As they are when they are asked for.

    needs_key: it is compacted. max_batch_bytes: as the topic says, or what producers send by default, if that is less.
    """

    needs_key: bool = False
    max_batch_bytes: int = MESSAGE_MAX_BYTES


USUAL = TopicRules()


def rules_of(kafka: KafkaSettings, topic: str) -> TopicRules:
    """Raises NotFound (UNKNOWN_TOPIC), Unavailable. Who may not see the topic's configuration gets USUAL."""
    try:
        config = topic_config(kafka, topic)
    except PermissionDenied as error:
        log.info("the topic's configuration is not known", extra={"topic": topic, "cause": str(error)})
        return USUAL
    limit = min(MESSAGE_MAX_BYTES, int(config["max.message.bytes"]))
    return TopicRules("compact" in config["cleanup.policy"], limit)


def fitting(kafka: KafkaSettings, *rules: TopicRules) -> KafkaSettings:
    """For a producer to topics with these rules: it makes no larger batches than they take."""
    limit = min(one.max_batch_bytes for one in rules)
    return replace(kafka, options={"batch.size": str(limit), **kafka.options}) if limit < MESSAGE_MAX_BYTES else kafka
