"""Whether Kafka still has the records of a stream, in words."""

from headrace.v1 import stream_pb2

AVAILABILITY = {
    stream_pb2.AVAILABILITY_UNSPECIFIED: "not known: Kafka did not answer",
    stream_pb2.AVAILABILITY_AVAILABLE: "all records are available",
    stream_pb2.AVAILABILITY_PARTLY_EXPIRED: "a part was deleted by retention",
    stream_pb2.AVAILABILITY_EXPIRED: "nothing is left: deleted by retention, or the topic is gone or was made anew",
    stream_pb2.AVAILABILITY_NOT_WRITTEN: "a part is not written yet",
    stream_pb2.AVAILABILITY_BLOCKED: "written, but a part is hidden by an open transaction",
}
