"""`python -P -m trainer`: one attempt at one result. Exits 0 done, 10 failed, 11 fenced, 75 worth another attempt."""

import os

from headrace.logs import bind, configure
from headrace.metrics import metrics_endpoint
from headrace.process import run_main, stop_on_signals
from headrace.settings import load
from trainer.attempt import Attempt
from trainer.settings import TrainerSettings


def main() -> int:
    configure("trainer")
    settings = load(TrainerSettings, os.environ)
    with (
        bind(result=settings.result_id, attempt=settings.attempt),
        stop_on_signals() as stop,
        metrics_endpoint(settings.metrics_listen, ready=lambda: not stop.is_set()),
    ):
        return Attempt(settings, stop).run()


if __name__ == "__main__":
    run_main(main)
