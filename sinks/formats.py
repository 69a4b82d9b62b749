"""The encoder of each format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from headrace.errors import InvalidArgument
from headrace.v1 import error_pb2
from headrace.v1.stream_pb2 import DATA_FORMAT_PROTOBUF, DATA_FORMAT_RAW, DataFormat
from sinks.encoder import Encoder, config_without, texts_of
from streams.codecs import Codec, Rows, codec_of

_PREFIX = "DATA_FORMAT_"


def format_of(name: str | int) -> DataFormat:
    """Of a name such as `RAW`, in any case. Raises InvalidArgument (INVALID_FORMAT) with the known ones."""
    known = {text.removeprefix(_PREFIX): number for text, number in DataFormat.items() if number}
    number = known.get(name.upper()) if isinstance(name, str) else name
    if number not in known.values():
        raise InvalidArgument(
            error_pb2.REASON_INVALID_FORMAT,
            f"the format {name!r} is unknown; the known ones are {', '.join(known)}",
            input_format=name,
        )
    return cast(DataFormat, number)


def encoder_for(data_format: str | int, config: Mapping[str, str] | None = None) -> Encoder:
    """Encodes as the configuration says; what it leaves open is as the first sample has it."""
    number = format_of(data_format)
    if number == DATA_FORMAT_RAW:
        from sinks.raw import RawEncoder

        return RawEncoder(config or {})
    if number == DATA_FORMAT_PROTOBUF:
        from sinks.protobuf import ProtobufEncoder

        return ProtobufEncoder(config or {})
    return CodecEncoder(number, config or {})


class CodecEncoder:
    """Any format, by its codec, which is chosen by the first rows."""

    def __init__(self, data_format: DataFormat, config: Mapping[str, str]) -> None:
        self._format = data_format
        self._given = texts_of(config)
        self._codec: Codec | None = None

    @property
    def data_format(self) -> DataFormat:
        return self._format

    @property
    def config(self) -> dict[str, str]:
        return self._open_codec.config

    def samples(self, rows: Rows, labels: Rows | None) -> Iterable[bytes]:
        if self._codec is None or (labels is not None and self._codec.label_spec is None):
            # Where samples without labels came first, they have decided what a sample is.
            decided = self._codec.config if self._codec is not None else {}
            self._codec = codec_of(self._format, rows, labels, config_without(self._given, labels) | decided)
        return self._codec.encode_samples(rows)

    def labels(self, rows: Rows) -> Iterable[bytes]:
        return self._open_codec.encode_labels(rows)

    @property
    def decided(self) -> Codec | None:
        return self._codec

    def undo(self, decided: Codec | None) -> None:
        self._codec = decided

    @property
    def _open_codec(self) -> Codec:
        assert self._codec is not None, "something was sent"
        return self._codec
