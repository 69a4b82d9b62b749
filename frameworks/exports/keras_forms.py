"""A Keras model as SavedModel, TFLite and ONNX."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from frameworks.exports.job import ExportJob, need, writer_of
from frameworks.failure import Failure
from frameworks.rows import Rows

# What inputs look like to `model(…)`: a TensorSpec, or a list or dict of them.
Specs = Any


def export(model: keras.Model, job: ExportJob, specs: Specs) -> None:
    """Writes the model in the job's format; `specs` has the structure of the model's inputs."""
    write: Callable[[keras.Model, ExportJob, Specs], None] = writer_of(job, _WRITERS)
    with job.converting():
        write(model, job, specs)


def _write_saved_model(model: keras.Model, job: ExportJob, specs: Specs) -> None:
    """A zip, for it is a folder."""
    with _saved_model(model, job, specs) as folder, zipfile.ZipFile(job.path, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))


def _write_tflite(model: keras.Model, job: ExportJob, specs: Specs) -> None:
    with _saved_model(model, job, specs) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        # What TFLite has no operator of its own for needs TensorFlow's at run time.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        job.path.write_bytes(converter.convert())


def _write_tflite_int8(model: keras.Model, job: ExportJob, specs: Specs) -> None:
    """Weights and activations of eight bits; inputs and outputs stay float32."""
    if job.calibration is None or not len(job.calibration):
        raise Failure("EMPTY_STREAM", "there are no records to calibrate the model with")
    calibration = job.calibration
    with _saved_model(model, job, specs) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(calibration, specs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        job.path.write_bytes(converter.convert())


def _write_onnx(model: keras.Model, job: ExportJob, specs: Specs) -> None:
    need("onnx", "tf2onnx")
    from frameworks.exports.onnx_names import name_tensors

    model.export(job.path, format="onnx", verbose=False, input_signature=[specs])
    name_tensors(job.path, job.outputs)


@contextmanager
def _saved_model(model: keras.Model, job: ExportJob, specs: Specs) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=job.path.parent) as folder:
        model.export(folder, format="tf_saved_model", verbose=False, input_signature=[specs])
        yield Path(folder)


def _samples(calibration: Rows, specs: Specs) -> Iterator[Any]:
    """The rows, batch by batch, as a converter of a SavedModel takes them."""
    flat: Sequence[tf.TensorSpec] = tf.nest.flatten(specs)
    for columns, _ in calibration.batches(flat[0].shape[0] or 1):
        if len(flat) == 1:
            yield [_as(flat[0], next(iter(columns.values())))]
        else:
            yield {spec.name: _as(spec, columns[spec.name]) for spec in flat}


def _as(spec: tf.TensorSpec, array: np.ndarray) -> np.ndarray:
    """In the type and the shape that the model takes; Keras would make a vector of one of a scalar by itself."""
    batch = spec.shape[0] or len(array)
    # The last rows of a model with a fixed batch are repeated.
    full = np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])
    is_scalar = {full.shape[1:], tuple(spec.shape[1:])} == {(), (1,)}
    return full.astype(spec.dtype.as_numpy_dtype).reshape((batch, *spec.shape[1:]) if is_scalar else full.shape)


_WRITERS: Mapping[str, Callable[[keras.Model, ExportJob, Specs], None]] = {
    "savedmodel": _write_saved_model,
    "tflite": _write_tflite,
    "tflite_int8": _write_tflite_int8,
    "onnx": _write_onnx,
}
