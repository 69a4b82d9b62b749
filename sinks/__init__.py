"""For producers: send data to Kafka and announce it for a training. Needs neither gRPC nor a framework."""

from sinks.raw import RawSink

__all__ = ["RawSink"]
