"""The setting of Kafka-ML's paper: 1000 epochs of 22 steps of 10 on 239 rows. The data repeat; no epoch is short."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from benchmarks.report import Ratio
from benchmarks.training import Case, against_memory
from sandbox.session import FrameworkName

ROWS, FEATURES = 239, 6
KERAS = f"""
model = tf.keras.Sequential([
    tf.keras.Input(shape=({FEATURES},)),
    tf.keras.layers.Dense(128, activation="relu"),
    tf.keras.layers.Dense(2, activation="softmax"),
])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
"""
TORCH = f"""
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear({FEATURES}, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, x):
        return self.layers(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.001)

    def metrics(self):
        return {{"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}}

model = Network()
"""


CODE: dict[FrameworkName, str] = {"tensorflow": KERAS, "pytorch": TORCH}


def measure(framework: FrameworkName) -> list[Ratio]:
    """Seconds of both, in turn: about four minutes with Keras, two with PyTorch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples, labels = load_breast_cancer(return_X_y=True)
        samples = (samples - samples.mean(axis=0)) / samples.std(axis=0)
        np.save(folder / "samples.npy", samples[:ROWS, :FEATURES].astype(np.float32))
        np.save(folder / "labels.npy", labels[:ROWS].astype(np.uint8))
        case = Case(framework, CODE[framework], 10, 1000, 22)
        return [against_memory(case, folder, f"{ROWS} rows of {FEATURES} numbers", "≤ 1.05 ×")]
