"""Sends a stream that has no end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from sinks.formats import encoder_for
from sinks.stream import SinkSettings, StreamSink


class OnlineSink(StreamSink):
    """A stream without an end, for a training that goes on while records arrive.

        with OnlineSink("localhost:9092", "sensors", deployment_id=5, data_format="AVRO") as sink:
            for reading in readings:                 # for ever
                sink.send({"temperature": reading.temperature}, reading.label)

    It is announced before the first record is sent: the topic, the encoding, and the header by which readers know the
    records of this sink among those of others. Nothing is announced at its end, and a sink that is killed leaves all
    that Kafka has confirmed to the stream; `close` only waits until everything is confirmed.

    data_format: RAW, AVRO, JSON or PROTOBUF.
    input_config: the format's configuration, as in the contract of the control topic (`data_type`, `data_scheme`, …);
        what it leaves open is as the first record has it.
    settings: those of `SinkSettings`, but for `transactional`: an announcement cannot wait for an end that never comes.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        deployment_id: int,
        *,
        data_format: str | int = "RAW",
        input_config: Mapping[str, str] | None = None,
        **settings: Unpack[SinkSettings],
    ) -> None:
        encoder = encoder_for(data_format, input_config)
        super().__init__(bootstrap_servers, topic, deployment_id, encoder, open_ended=True, **settings)
