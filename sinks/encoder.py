"""What a sink needs of a format: records of rows, and the configuration that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

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


def config_without(config: Mapping[str, str], labels: Rows | None) -> dict[str, str]:
    """What was asked for labels is left out where there are none: who reads the configuration would miss them."""
    return {key: value for key, value in config.items() if labels is not None or not key.startswith("label_")}
