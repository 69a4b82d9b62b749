"""The one exception that a worker turns into an answer with a reason."""

from __future__ import annotations


class Failure(Exception):
    """Something that the person who wrote the code or sent the data can act on.

    `reason` is a name of headrace.v1.Reason without its prefix. The message says what was wrong, with the value, and
    what would be right; `facts` are in it too, one by one.
    """

    def __init__(self, reason: str, message: str, **facts: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.facts = {name: str(value) for name, value in facts.items()}


class CancelledError(Failure):
    """The feeder asked to stop."""

    def __init__(self) -> None:
        super().__init__("CANCELLED", "the training was stopped")


def no_labels() -> Failure:
    """A model that learns from labels was given a stream of samples only."""
    return Failure("SCHEMA_MISMATCH", "the stream has no labels, but the model's loss needs them")


def schema_mismatch(what: str, actual: object, expected: object) -> Failure:
    """`what` are the samples or the labels; `actual` is what the stream has and `expected` what the model takes."""
    message = f"the stream's {what} have the shape {actual}, but the model takes {expected}"
    return Failure("SCHEMA_MISMATCH", message, expected=expected, actual=actual)
