"""`python -P -m logger`: records the control topic until it is stopped."""

import os

from headrace import logs
from headrace.client import connect
from headrace.metrics import metrics_endpoint
from headrace.process import run_main, stop_on_signals
from headrace.settings import load
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from logger.recorder import Recorder
from logger.settings import Settings
from streams.kafka import KafkaSettings


def main() -> None:
    """Wires the recorder and runs it."""
    logs.configure("logger")
    settings = load(Settings, os.environ)
    with stop_on_signals() as stop, connect(settings.address) as channel:
        recorder = Recorder(KafkaSettings(settings.kafka), settings.control_topic, StreamCatalogStub(channel))
        with metrics_endpoint(settings.metrics_listen, ready=lambda: recorder.ready):
            recorder.run(stop)


if __name__ == "__main__":
    run_main(main)
