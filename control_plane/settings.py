"""The settings of the control plane: `HEADRACE_` and the field's name in capitals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.v1 import model_pb2


@dataclass(frozen=True)
class Settings:
    # The folder for everything that is kept.
    home: Path
    # HOST:PORT of the Kafka cluster, several joined by commas.
    kafka: str
    # A call waits at most so many seconds for Kafka's answer about topics and offsets, where it has time for more.
    kafka_wait_s: float = 6.0
    # Where the API is served.
    listen: str = "127.0.0.1:8070"
    # The code executors, one per framework.
    tensorflow_executor: str = "127.0.0.1:8071"
    pytorch_executor: str = "127.0.0.1:8072"
    # The topic that announces streams.
    control_topic: str = "KAFKA_ML_CONTROL_TOPIC"
    # At most so many trainings at once; 0: one per core.
    max_trainings: int = 0
    # The SQLite file. Empty: headrace.db in the home folder.
    database: str = ""
    # Where artifacts are kept, as an fsspec URL or a path. Empty: the folder artifacts in the home folder.
    artifacts: str = ""
    # Whether trainers and inferencers stop when the control plane is stopped.
    stop_workloads: bool = True
    # HOST:PORT of Prometheus metrics; empty: none.
    metrics_listen: str = ""

    @property
    def database_path(self) -> Path:
        return Path(self.database) if self.database else self.home / "headrace.db"

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or str(self.home / "artifacts")

    @property
    def uploads_path(self) -> Path:
        """What has arrived of artifacts so far."""
        return self.home / "uploads"

    @property
    def trainings_at_once(self) -> int:
        return self.max_trainings or len(os.sched_getaffinity(0))

    @property
    def executors(self) -> Mapping[int, str]:
        """Framework to the address of its code executor."""
        return {
            model_pb2.FRAMEWORK_TENSORFLOW: self.tensorflow_executor,
            model_pb2.FRAMEWORK_PYTORCH: self.pytorch_executor,
        }
