"""From a result of the control plane to a model that answers."""

import logging
import threading
from pathlib import Path

import grpc
import numpy as np

from headrace import logs
from headrace.errors import HeadraceError
from headrace.v1.inference_pb2 import Inference
from inferencer.answers import encoder_of
from inferencer.loop import Model
from inferencer.predictor import Predictor, Recipe, RowsMismatch
from inferencer.served import fetch_served
from inferencer.workers import Workers
from streams.codecs import codec_for

log = logging.getLogger(__name__)

# A model that squeezes the axis of its rows away shows it with one row, a model that loses one with more.
WARM_ROWS = (1, 2)


class ModelLoader:
    """Loads models for one inference; each has a worker of its own."""

    def __init__(self, channel: grpc.Channel, inference: Inference, folder: Path, workers: Workers) -> None:
        self._channel, self._inference, self._folder, self._workers = channel, inference, folder, workers
        self._encode = encoder_of(inference)
        self._predictors: dict[int, Predictor] = {}  # by the id of the model that it answers for

    def load(self, result_id: int, stop: threading.Event, *, strict: bool) -> Model:
        """See Loader."""
        served = fetch_served(self._channel, result_id, self._folder, stop)
        predictor = Predictor(Recipe(served.result, served.weights), self._workers, self._encode)
        predictor.start()
        try:
            self._warm(predictor, strict)
        except BaseException:
            predictor.close()
            raise
        model = Model(served.label.encode(), result_id, served.result.version, predictor)
        self._predictors[id(model)] = predictor
        return model

    def end(self, model: Model) -> None:
        """See Loader."""
        self._predictors.pop(id(model)).close()

    def _warm(self, predictor: Predictor, strict: bool) -> None:
        """With rows of zeros, where the length of a row is known before the first one came.

        A model that gives another number of rows than it got is always refused: it would do so to any.
        """
        codec = codec_for(self._inference.input_format, dict(self._inference.input_config))
        if not codec.sample_spec.is_known:
            return
        try:
            for rows in WARM_ROWS:
                zeros = np.zeros((rows, *codec.sample_spec.shape), codec.sample_spec.dtype)
                predictor.warm({"": zeros}, codec.fields)
        except HeadraceError as error:
            if strict or isinstance(error, RowsMismatch):
                raise
            log.warning("the model does not answer rows of zeros", extra=logs.error_fields(error))
