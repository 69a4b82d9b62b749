"""What a saved model holds, without what its container holds besides."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np


def weights_of(path: Path) -> str:
    """The SHA-256 of every array: the container of Keras' files holds the time of its making, too."""
    if path.suffix == ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: digest.update(name.encode() + _bytes_of(item)))
    return digest.hexdigest()


def _bytes_of(item: Any) -> bytes:
    return np.asarray(item).tobytes() if isinstance(item, h5py.Dataset) else b""
