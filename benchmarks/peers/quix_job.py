"""Quix Streams: `apply` on a streaming data frame, one record at a time, as its documentation has it.

It has batches of records only as windows by key, and a window that does not fill leaves its records unanswered.
"""

from quixstreams import Application

from benchmarks.peers.answering import Answering, Job


def main() -> None:
    """Until it is killed."""
    job = Job.told()
    answering = Answering(job.model)
    app = Application(job.bootstrap, consumer_group=job.target, auto_offset_reset="earliest", loglevel="ERROR")
    source = app.topic(job.source, value_deserializer="bytes", key_deserializer="bytes")
    target = app.topic(job.target, value_serializer="bytes", key_serializer="bytes")
    app.dataframe(source).apply(answering.one).to_topic(target)
    app.run()


if __name__ == "__main__":
    main()
