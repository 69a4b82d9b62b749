"""Sends samples and labels in JSON."""

from __future__ import annotations

from typing import Unpack

from headrace.v1.stream_pb2 import DATA_FORMAT_JSON
from sinks.formats import CodecEncoder
from sinks.stream import SinkSettings, StreamSink


class JsonSink(StreamSink):
    """A stream of samples and labels as JSON. Promises, errors and settings are those of RawSink.

        with JsonSink("localhost:9092", "wines", deployment_id=3) as sink:
            sink.send({"alcohol": 13.2, "ash": 2.1}, label=0)      # an object of numbers
            sink.send([13.2, 2.1], label=0)                        # or an array, in another stream
            sink.send_batch({"alcohol": alcohol, "ash": ash}, labels)

    A sample has numbers, and arrays and objects of them, alike in all samples. NaN and infinities are refused: JSON
    has none.

    data_type, label_type: of the rows that a model gets (numpy's names); that of the first ones unless given.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        data_type: str | None = None,
        label_type: str | None = None,
        **settings: Unpack[SinkSettings],
    ) -> None:
        given = {"data_type": data_type, "label_type": label_type}
        encoder = CodecEncoder(DATA_FORMAT_JSON, {name: value for name, value in given.items() if value})
        super().__init__(bootstrap_servers, topic, deployment_id, encoder, **settings)
