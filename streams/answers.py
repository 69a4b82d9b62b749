"""The contract of answers and dead letters: their headers, and the topic that dead letters go to."""

import secrets
from collections.abc import Iterable

from headrace.v1.inference_pb2 import Inference

MODEL_HEADER = "headrace-model"  # NAME/VERSION
SOURCE_HEADER = "headrace-source"  # of the question, or of the refused message: TOPIC/PARTITION/OFFSET
ERROR_HEADER = "headrace-error"  # a reason
ERROR_MESSAGE_HEADER = "headrace-error-message"
# On a dead letter that has less than its question, which would have been too large with the headers above.
CUT_HEADER = "headrace-cut"
# On questions of Predict: GROUP/ID, the inference that is asked (`inference_group`) and the question. Every inference
# that reads the topic answers; one that is not asked leaves it out.
REQUEST_HEADER = "headrace-request"
# W3C's trace context: inferencers copy it as they copy every header of a question.
TRACE_HEADERS = ("traceparent", "tracestate")
# What an inferencer adds to an answer, and to a question that becomes a dead letter.
ANSWER_HEADERS = frozenset({MODEL_HEADER, SOURCE_HEADER})
DEAD_LETTER_HEADERS = ANSWER_HEADERS | {ERROR_HEADER, ERROR_MESSAGE_HEADER, CUT_HEADER}
MESSAGE_LIMIT = 1024  # characters of an error message in a header
_DEAD_LETTER_SUFFIX = ".dead-letters"


def inference_group(inference: Inference) -> str:
    """The consumer group of an inference: its committed offsets say what was answered."""
    return inference.consumer_group or f"headrace-inf-{inference.id}"


def new_inference_group(name: str) -> str:
    """For an inference of that name; not by its id, since platforms that share a Kafka count alike."""
    return f"headrace-inf-{name}-{secrets.token_hex(4)}"


def request_to(group_id: str, id: str = "") -> str:
    """The value of REQUEST_HEADER; without an id, what all values begin with that ask this inference."""
    return f"{group_id}/{id}"


def trace_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[tuple[str, bytes]]:
    """The trace context of a call, for the record that it becomes."""
    return [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in metadata or ()
        if name in TRACE_HEADERS
    ]


def dead_letter_topic(topic: str) -> str:
    """Where records of the topic go that get no answer, or control messages that are refused."""
    return topic + _DEAD_LETTER_SUFFIX
