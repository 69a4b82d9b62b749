"""Sends samples and labels in Avro."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Unpack

from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO
from sinks.formats import CodecEncoder
from sinks.stream import SinkSettings, StreamSink

# A schema as its JSON text or as what that text means.
Schema = str | Mapping[str, Any] | list[Any]


class AvroSink(StreamSink):
    """A stream of samples and labels as Avro binary. Promises, errors and settings are those of RawSink.

        with AvroSink("localhost:9092", "patients", deployment_id=2) as sink:
            sink.send({"age": 51, "marker": 0.7}, label=1)                     # one record
            sink.send_batch({"age": ages, "marker": markers}, labels)          # columns of them
            sink.send_batch([{"age": 51, "marker": 0.7}, …], labels)           # a list of them

    data_scheme, label_scheme: the schemas, as JSON text or as dictionaries; those of the first sample and label unless
        given. Records of several fields become one row of a model in schema order, or feed its inputs by name. None is
        null, where the given schema has a union with null and a default, which is what a training reads.
    registry_url: of a schema registry. Records then begin with the id of their schema (Confluent's wire format). The
        schemas are the latest of the subjects `data_subject` (`TOPIC-value`) and `label_subject` (`TOPIC-key`), which
        must be there.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        data_scheme: Schema | None = None,
        label_scheme: Schema | None = None,
        registry_url: str = "",
        data_subject: str = "",
        label_subject: str = "",
        **settings: Unpack[SinkSettings],
    ) -> None:
        given = {"data_scheme": _text(data_scheme), "label_scheme": _text(label_scheme)}
        if registry_url:
            given |= {
                "registry_url": registry_url,
                "data_subject": data_subject or f"{topic}-value",
                "label_subject": label_subject or f"{topic}-key",
            }
        encoder = CodecEncoder(DATA_FORMAT_AVRO, {name: value for name, value in given.items() if value})
        super().__init__(bootstrap_servers, topic, deployment_id, encoder, **settings)


def _text(schema: Schema | None) -> str:
    if schema is None or isinstance(schema, str):
        return schema or ""
    return json.dumps(schema)
