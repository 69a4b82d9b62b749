"""Sends samples and labels as protobuf messages."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import numpy as np
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from headrace.v1.stream_pb2 import DATA_FORMAT_PROTOBUF, DataFormat
from sinks.encoder import config_without, texts_of
from sinks.rows import mismatch
from sinks.stream import SinkSettings, StreamSink
from streams.codecs import Codec, Rows, codec_for, codec_of


class ProtobufSink(StreamSink):
    """A stream of samples and labels as protobuf messages. Promises, errors and settings are those of RawSink.

        with ProtobufSink("localhost:9092", "sensors", deployment_id=4) as sink:
            sink.send(Reading(temperature=20.5, humidity=0.4), label=1)     # a message of yours
            sink.send_batch(readings, labels)                               # a list of them

        with ProtobufSink("localhost:9092", "sensors", deployment_id=4, data_message=Reading) as sink:
            sink.send({"temperature": 20.5, "humidity": 0.4}, label=1)      # its fields
            sink.send_batch({"temperature": temperatures, "humidity": humidities}, labels)

    data_message, label_message: classes of messages (or one of their instances); that of the first message unless
        given, and where arrays are sent a message with a field for each. Their descriptors travel with the
        announcement, so nobody else needs the classes.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        data_message: type[Message] | Message | None = None,
        label_message: type[Message] | Message | None = None,
        **settings: Unpack[SinkSettings],
    ) -> None:
        given: dict[str, str] = {}
        for prefix, message in (("data", data_message), ("label", label_message)):
            if message is not None:
                given = with_message(given, prefix, message)
        super().__init__(bootstrap_servers, topic, deployment_id, ProtobufEncoder(given), **settings)


class ProtobufEncoder:
    """Messages as they are, and messages of arrays."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._given = texts_of(config)
        self._config: dict[str, str] = {}
        self._codec: Codec | None = None

    @property
    def data_format(self) -> DataFormat:
        return DATA_FORMAT_PROTOBUF

    @property
    def config(self) -> dict[str, str]:
        assert self._codec is not None, "something was sent"
        return self._codec.config

    def samples(self, rows: Rows, labels: Rows | None) -> Iterable[bytes]:
        if self._codec is None or (labels is not None and self._codec.label_spec is None):
            self._config = _completed(config_without(self._given, labels), rows, labels)
            self._codec = codec_for(DATA_FORMAT_PROTOBUF, self._config)
        messages = _messages(rows)
        return self._codec.encode_samples(rows) if messages is None else self._written(messages, "data_message")

    def labels(self, rows: Rows) -> Iterable[bytes]:
        assert self._codec is not None, "samples go first"
        messages = _messages(rows)
        return self._codec.encode_labels(rows) if messages is None else self._written(messages, "label_message")

    @property
    def decided(self) -> tuple[dict[str, str], Codec | None]:
        return self._config, self._codec

    def undo(self, decided: tuple[dict[str, str], Codec | None]) -> None:
        self._config, self._codec = decided

    def _written(self, messages: list[Message], key: str) -> list[bytes]:
        expected = self._config[key]
        for message in messages:
            if message.DESCRIPTOR.full_name != expected:
                raise mismatch(f"a message is a {message.DESCRIPTOR.full_name}, where this stream has {expected}")
        return [message.SerializeToString() for message in messages]


def with_message(config: Mapping[str, str], prefix: str, message: type[Message] | Message) -> dict[str, str]:
    """The input_config with one more message, and its descriptors."""
    descriptor: Any = message.DESCRIPTOR
    files = FileDescriptorSet.FromString(base64.b64decode(config.get("descriptor_set", "")))
    names = {file.name for file in files.file}
    files.file.extend(file for file in _files(descriptor.file, {}) if file.name not in names)
    text = base64.b64encode(files.SerializeToString(deterministic=True)).decode()
    return {**config, "descriptor_set": text, f"{prefix}_message": descriptor.full_name}


def _files(file: FileDescriptor, found: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The file and what it imports, which comes first."""
    if file.name not in found:
        for imported in file.dependencies:
            _files(imported, found)
        found[file.name] = FileDescriptorProto()
        file.CopyToProto(found[file.name])
    return list(found.values())


def _completed(given: Mapping[str, str], rows: Rows, labels: Rows | None) -> dict[str, str]:
    """With the messages that are missing: those of the first records, or of arrays like theirs."""
    config = dict(given)
    sides = {"data": rows, "label": labels}
    missing = {prefix: side for prefix, side in sides.items() if side is not None and f"{prefix}_message" not in given}
    for prefix, side in list(missing.items()):
        if messages := _messages(side):
            config = with_message(config, prefix, messages[0])
            del missing[prefix]
    if set(missing) == {prefix for prefix, side in sides.items() if side is not None}:
        # Descriptors of a message that is not sent would be taken for theirs.
        config.pop("descriptor_set", None)
        return codec_of(DATA_FORMAT_PROTOBUF, rows, labels, config).config
    for prefix, side in missing.items():
        config = _with_rows(config, prefix, side)
    return config


def _with_rows(config: Mapping[str, str], prefix: str, rows: Rows) -> dict[str, str]:
    """With a message that is made for such rows."""
    made = codec_of(DATA_FORMAT_PROTOBUF, rows).config
    files = [FileDescriptorSet.FromString(base64.b64decode(one["descriptor_set"])) for one in (config, made)]
    files[0].MergeFrom(files[1])
    text = base64.b64encode(files[0].SerializeToString(deterministic=True)).decode()
    return {**config, "descriptor_set": text, f"{prefix}_message": made["data_message"]}


def _messages(rows: Rows) -> list[Message] | None:
    """The messages, where the rows are messages."""
    if not isinstance(rows, np.ndarray) or rows.dtype != object or rows.ndim != 1:
        return None
    messages: list[Any] = rows.tolist()
    return messages if all(isinstance(message, Message) for message in messages) else None
