"""Bytewax: `flat_map_batch` over what its source reads at once, which are up to 1,000 records; recovery is on, since
without it a crash forgets what was answered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from benchmarks.peers.answering import Answering, Job


def main() -> None:
    """Until it is killed."""
    job = Job.told()
    answering = Answering(job.model)

    def answer(messages: Sequence[Any]) -> list[Any]:
        answers = answering.batch([message.value for message in messages])
        return [KafkaSinkMessage(message.key, value) for message, value in zip(messages, answers, strict=True)]

    flow = Dataflow("peer")
    questions = kop.input("questions", flow, brokers=[job.bootstrap], topics=[job.source], batch_size=1000)
    answers = op.flat_map_batch("answer", questions.oks, answer)
    kop.output("answers", answers, brokers=[job.bootstrap], topic=job.target)
    init_db_dir(Path(job.folder), 1)
    run_main(flow, recovery_config=RecoveryConfig(job.folder))


if __name__ == "__main__":
    main()
