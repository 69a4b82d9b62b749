"""The formats that a trained model can be brought into, by framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_TFLITE = "application/vnd.tflite"
_ONNX = "application/vnd.onnx"


@dataclass(frozen=True)
class ExportFormat:
    """One format: the file that it is, and what a conversion needs."""

    file: str
    media_type: str
    is_original: bool = False
    """What every training leaves behind: there is nothing to convert."""
    is_calibrated: bool = False
    """Its conversion looks at samples of the stream."""


EXPORT_FORMATS: Mapping[str, Mapping[str, ExportFormat]] = {
    "tensorflow": {
        "keras": ExportFormat("model.keras", "application/vnd.keras", is_original=True),
        "savedmodel": ExportFormat("model.savedmodel.zip", "application/zip"),
        "tflite": ExportFormat("model.tflite", _TFLITE),
        "tflite_int8": ExportFormat("model.int8.tflite", _TFLITE, is_calibrated=True),
        "onnx": ExportFormat("model.onnx", _ONNX),
    },
    "pytorch": {
        "safetensors": ExportFormat("model.safetensors", "application/vnd.safetensors", is_original=True),
        "exported_program": ExportFormat("model.pt2", "application/zip"),
        "onnx": ExportFormat("model.onnx", _ONNX),
    },
}
