"""What a sink needs of a format: records of rows, and the configuration that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import DataFormat
from sinks.rows import mismatch
from streams.codecs import Rows


class Encoder(Protocol):
    """Encodes the records of one stream, all of one type and shape: what was asked for, else that of the first one."""

    @property
    def data_format(self) -> DataFormat:
        """How the records are encoded."""

    @property
    def config(self) -> dict[str, str]:
        """The complete input_config, once there was a record."""

    def samples(self, rows: Rows, labels: Rows | None) -> Iterable[bytes]:
        """The value of each record. `labels` are not encoded; an encoder may look at those that come first.

        Raises InvalidArgument (SCHEMA_MISMATCH) for rows unlike the first ones, (INVALID_FORMAT) for such that the
        format has no form for.
        """

    def labels(self, rows: Rows) -> Iterable[bytes]:
        """The key of each record."""

    @property
    def decided(self) -> Any:
        """What the records so far have decided, for `undo`."""

    def undo(self, decided: Any) -> None:
        """Go back to what was decided then: the records since were refused."""


class LabelRule:
    """Either all records of a stream have labels, or none has."""

    def __init__(self) -> None:
        self.labelled: bool | None = None
        """None while no record has decided it."""

    def check(self, *, labelled: bool) -> None:
        """Raises InvalidArgument (SCHEMA_MISMATCH)."""
        if self.labelled is not None and self.labelled != labelled:
            raise mismatch(
                "some records have labels and some have none; send those without labels with `send_unsupervised`"
            )
        self.labelled = labelled


def texts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What was asked for. Raises InvalidArgument (INVALID_FORMAT) with all that is no text, as a tuple for a shape."""
    examples = {"type": ", such as 'float32'", "reshape": ", such as '28 28'"}
    bad = [
        FieldViolation(name, f"is a text{examples.get(name.rpartition('_')[2], '')}, not {value!r}")
        for name, value in config.items()
        if not isinstance(value, str)
    ]
    if bad:
        told = "; ".join(f"{violation.field} {violation.description}" for violation in bad)
        raise InvalidArgument(error_pb2.REASON_INVALID_FORMAT, told, fields=bad)
    return dict(config)


def config_without(config: Mapping[str, str], labels: Rows | None) -> dict[str, str]:
    """What was asked for labels is left out where there are none: who reads the configuration would miss them."""
    return {key: value for key, value in config.items() if labels is not None or not key.startswith("label_")}
