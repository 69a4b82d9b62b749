"""`python -m benchmarks [NAME …]`: measures what is named, or everything, and keeps it in RESULTS.md."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    answer_times,
    decoding,
    deployment,
    epochs,
    inference,
    large,
    paper,
    reading,
    replicas,
    reports,
    sending,
    training,
)
from benchmarks.peers import measure as peers
from benchmarks.report import RESULTS, Ratio, keep
from cli.broker import Broker
from streams.kafka import KafkaSettings


def with_broker(measure: Callable[[KafkaSettings], list[Ratio]]) -> list[Ratio]:
    """Of what needs a broker alone."""
    with tempfile.TemporaryDirectory() as home, Broker(Path(home), port=0, stop_with_parent=True) as broker:
        return measure(KafkaSettings(broker.bootstrap_servers))


BENCHMARKS: dict[str, Callable[[], list[Ratio]]] = {
    "decoding": decoding.measure,
    "reading": lambda: with_broker(reading.measure),
    "sending": lambda: with_broker(sending.measure),
    "training": training.measure,
    "deployment": deployment.measure,
    "epochs": epochs.measure,
    "paper-tensorflow": lambda: paper.measure("tensorflow"),
    "paper-pytorch": lambda: paper.measure("pytorch"),
    "large": large.measure,
    "reports": reports.measure,
    "watchers": reports.measure_watched,
    "inference": inference.measure,
    "inference-small": inference.measure_small,
    "answer-times": answer_times.measure,
    "replicas": replicas.measure,
    "peers": peers.measure,
}

ABOUT = {"answer-times": answer_times.ABOUT, "peers": peers.ABOUT}


def main() -> None:
    """Prints each figure when it is there, and keeps them by benchmark."""
    for name in sys.argv[1:] or list(BENCHMARKS):
        ratios = BENCHMARKS[name]()
        for ratio in ratios:
            print(ratio.row(), flush=True)
        keep(name, ratios, ABOUT.get(name, ""))
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
