"""Pathway: a UDF that gets batches (`max_batch_size`), with the backlog limited as its documentation advises.
Persistence is on, since without it a crash forgets what was answered.
"""

import pathway as pw

from benchmarks.peers.answering import Answering, Job

BATCH = 1024
BACKLOG = 20_000
AUTOCOMMIT_MS = 100


def main() -> None:
    """Until it is killed."""
    job = Job.told()
    answering = Answering(job.model)

    @pw.udf(max_batch_size=BATCH, deterministic=True)  # type: ignore[untyped-decorator]
    def answer(data: list[bytes]) -> list[bytes]:
        return answering.batch(data)

    kafka = {"bootstrap.servers": job.bootstrap}
    questions = pw.io.kafka.read(
        {**kafka, "group.id": job.target, "auto.offset.reset": "earliest"},
        topic=job.source,
        format="raw",
        autogenerate_key=True,
        autocommit_duration_ms=AUTOCOMMIT_MS,
        max_backlog_size=BACKLOG,
        name="questions",
    )
    answers = questions.select(key=questions.key, value=answer(questions.data))
    pw.io.kafka.write(answers, kafka, job.target, format="raw", key=answers.key, value=answers.value)
    kept = pw.persistence.Config(pw.persistence.Backend.filesystem(job.folder))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=kept)


if __name__ == "__main__":
    main()
