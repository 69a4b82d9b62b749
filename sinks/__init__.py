"""For producers: send data to Kafka and announce it for a training. Needs neither gRPC nor a framework.

RawSink, AvroSink, JsonSink, ProtobufSink: a data set. OnlineSink: a stream without an end. InferenceSink: questions to
a deployed model, and their answers.
"""

from sinks.avro import AvroSink
from sinks.inference import Answer, InferenceSink
from sinks.json import JsonSink
from sinks.online import OnlineSink
from sinks.protobuf import ProtobufSink
from sinks.raw import RawSink
from sinks.stream import SinkSettings

__all__ = ["Answer", "AvroSink", "InferenceSink", "JsonSink", "OnlineSink", "ProtobufSink", "RawSink", "SinkSettings"]
