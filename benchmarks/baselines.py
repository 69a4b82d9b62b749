"""What everybody would write without Headrace. Each function is run in a process of its own:
`python -m benchmarks.baselines NAME ARGUMENTS…` prints one number, seconds or rows per second.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KERAS_MODEL = """
model = tf.keras.Sequential([
    tf.keras.Input(shape=(28, 28)),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Rescaling(1 / 255),
    tf.keras.layers.Dense(128, activation="relu"),
    tf.keras.layers.Dense(10, activation="softmax"),
])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
"""

TORCH_MODEL = """
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        return self.layers(x / 255)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.001)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}

model = Network()
"""

SMALL_KERAS = """
model = tf.keras.Sequential([
    tf.keras.Input(shape=(4,)),
    tf.keras.layers.Dense(16, activation="relu"),
    tf.keras.layers.Dense(3, activation="softmax"),
])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
"""

SMALL_TORCH = TORCH_MODEL.replace(
    "nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))",
    "nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))",
)


def fit_keras(folder: str, batch_size: str, epochs: str, steps: str) -> float:
    """Seconds of `Model.fit` on arrays in memory; with `steps` an epoch is so many, of data that repeat."""
    import numpy as np
    import tensorflow as tf

    names: dict[str, Any] = {"tf": tf}
    exec((Path(folder) / "tensorflow.code").read_text(), names)
    samples = np.load(Path(folder) / "samples.npy")
    labels = np.load(Path(folder) / "labels.npy")
    started = time.perf_counter()
    if int(steps):
        data = tf.data.Dataset.from_tensor_slices((samples, labels)).shuffle(len(samples)).repeat()
        data = data.batch(int(batch_size)).prefetch(tf.data.AUTOTUNE)
        names["model"].fit(data, steps_per_epoch=int(steps), epochs=int(epochs), verbose=0)
    else:
        names["model"].fit(samples, labels, batch_size=int(batch_size), epochs=int(epochs), verbose=0)
    return time.perf_counter() - started


def fit_torch(folder: str, batch_size: str, epochs: str, steps: str) -> float:
    """Seconds of an Ignite trainer over a DataLoader on tensors in memory; with `steps` an epoch is so many."""
    import numpy as np
    import torch
    from ignite.engine import Engine, create_supervised_trainer
    from ignite.metrics import Accuracy, Loss
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    names: dict[str, Any] = {"torch": torch, "nn": nn, "Accuracy": Accuracy, "Loss": Loss}
    exec((Path(folder) / "pytorch.code").read_text(), names)
    model = names["model"]
    samples = torch.from_numpy(np.load(Path(folder) / "samples.npy")).float()
    labels = torch.from_numpy(np.load(Path(folder) / "labels.npy")).long()
    loader = DataLoader(TensorDataset(samples, labels), batch_size=int(batch_size), shuffle=True)
    started = time.perf_counter()
    trainer: Engine = create_supervised_trainer(
        model,
        model.optimizer(),
        model.loss_fn(),
        output_transform=lambda x, y, y_pred, loss: (y_pred.detach(), y),
    )
    for name, metric in model.metrics().items():
        metric.attach(trainer, name)
    trainer.run(loader, max_epochs=int(epochs), epoch_length=int(steps) or None)
    return time.perf_counter() - started


def predict_keras(*arguments: str) -> float:
    """Rows per second of a bare consume–predict–produce loop with a Keras model."""
    return _predict_keras(KERAS_MODEL, "uint8", (28, 28), arguments)


def predict_small_keras(*arguments: str) -> float:
    """The same with rows of four numbers."""
    return _predict_keras(SMALL_KERAS, "float32", (4,), arguments)


def predict_torch(*arguments: str) -> float:
    """Rows per second of a bare consume–predict–produce loop with a PyTorch model."""
    return _predict_torch(TORCH_MODEL, "uint8", (28, 28), arguments)


def predict_small_torch(*arguments: str) -> float:
    """The same with rows of four numbers."""
    return _predict_torch(SMALL_TORCH, "float32", (4,), arguments)


def _predict_keras(code: str, dtype: str, shape: tuple[int, ...], arguments: Sequence[str]) -> float:
    import tensorflow as tf

    names: dict[str, Any] = {"tf": tf}
    exec(code, names)
    model = names["model"]
    model.load_weights(arguments[-1])
    call = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, *shape), dtype)])
    return _predict_loop(arguments, dtype, shape, lambda batch: call(batch).numpy())


def _predict_torch(code: str, dtype: str, shape: tuple[int, ...], arguments: Sequence[str]) -> float:
    import torch
    from ignite.metrics import Accuracy, Loss
    from safetensors.torch import load_file
    from torch import nn

    names: dict[str, Any] = {"torch": torch, "nn": nn, "Accuracy": Accuracy, "Loss": Loss}
    exec(code, names)
    model = names["model"].eval()
    model.load_state_dict(load_file(arguments[-1]))

    def predict(batch: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(batch).float()).numpy()

    return _predict_loop(arguments, dtype, shape, predict)


def _predict_loop(arguments: Sequence[str], dtype: str, shape: tuple[int, ...], predict: Any) -> float:
    """Arguments: bootstrap servers, topic of the questions, topic of the answers, rows, file of the weights."""
    import numpy as np
    import orjson
    from confluent_kafka import Consumer, Producer

    bootstrap, source, target, rows = *arguments[:3], int(arguments[3])
    predict(np.zeros((256, *shape), dtype))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bare-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,
        }
    )
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "compression.type": "lz4", "linger.ms": 5})
    consumer.subscribe([source])
    answered = 0
    first = 0.0
    while answered < rows:
        messages = consumer.consume(256, 0.1)
        if not messages:
            continue
        first = first or time.perf_counter()
        batch = np.frombuffer(b"".join(m.value() or b"" for m in messages), dtype).reshape(-1, *shape)
        for message, values in zip(messages, predict(batch), strict=True):
            value = orjson.dumps({"values": values}, option=orjson.OPT_SERIALIZE_NUMPY)
            while True:
                try:
                    producer.produce(target, value, message.key(), headers=message.headers())
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
        for message in messages:
            consumer.store_offsets(message)
        answered += len(messages)
    producer.flush(60)
    seconds = time.perf_counter() - first
    consumer.close()
    return answered / seconds


def main() -> None:
    """Runs the named baseline and prints its number."""
    name, *arguments = sys.argv[1:]
    predicting = (predict_keras, predict_small_keras, predict_torch, predict_small_torch)
    baselines = {f.__name__: f for f in (fit_keras, fit_torch, *predicting)}
    print(json.dumps(baselines[name](*arguments)))


if __name__ == "__main__":
    main()
