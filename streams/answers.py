"""The contract of answers and dead letters: their headers, and the topic that dead letters go to."""

MODEL_HEADER = "headrace-model"  # NAME/VERSION
SOURCE_HEADER = "headrace-source"  # of the question, or of the refused message: TOPIC/PARTITION/OFFSET
ERROR_HEADER = "headrace-error"  # a reason
ERROR_MESSAGE_HEADER = "headrace-error-message"
MESSAGE_LIMIT = 1024  # characters of an error message in a header
_DEAD_LETTER_SUFFIX = ".dead-letters"


def dead_letter_topic(topic: str) -> str:
    """Where records of the topic go that get no answer, or control messages that are refused."""
    return topic + _DEAD_LETTER_SUFFIX
