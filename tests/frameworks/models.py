"""The same models in the words of both frameworks."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from sandbox.session import FrameworkName


@dataclass(frozen=True)
class Models:
    """Code by what the model does. Samples are (4,) unless said otherwise."""

    framework: FrameworkName
    epochs: str
    """The name of the argument that says how many."""
    steps: str
    classifier: str
    """Four numbers → three scores; learns class numbers."""
    binary: str
    """Four numbers → one probability."""
    regression: str
    """Four numbers → one number."""
    exploding: str
    """The classifier with a step width that no loss survives."""
    image: str
    """(8, 8) → three scores."""
    raising: str
    """Raises in its line 5 when it is trained."""
    several_outputs: str
    several_inputs: str
    """`left` (2,) and `right` (3,)."""
    embedding: str
    """Three whole numbers below 10 → two scores."""
    incomplete: str
    """Builds, but cannot be trained."""


def keras_model(layers: str, loss: str = "sparse_categorical_crossentropy", compile_args: str = "") -> str:
    return f"""
model = keras.Sequential([{layers}])
model.compile(optimizer=keras.optimizers.Adam(0.02), loss={loss!r}, metrics=["accuracy"]{compile_args})
"""


KERAS = Models(
    framework="tensorflow",
    epochs="epochs",
    steps="steps_per_epoch",
    classifier=keras_model(
        "keras.Input((4,)), layers.Dense(8, activation='relu'), layers.Dense(3, activation='softmax')"
    ),
    binary=keras_model("keras.Input((4,)), layers.Dense(1, activation='sigmoid')", "binary_crossentropy"),
    regression=keras_model("keras.Input((4,)), layers.Dense(1)", "mse").replace('"accuracy"', '"mae"'),
    exploding=keras_model("keras.Input((4,)), layers.Dense(1)", "mse").replace("0.02", "1e30"),
    image=keras_model("layers.Flatten(input_shape=(8, 8)), layers.Dense(3, activation='softmax')"),
    raising=textwrap.dedent(
        """\
        class Raising(layers.Layer):
            def call(self, x, training=False):
                if not training:
                    return x
                raise KeyError("not today")

        model = keras.Sequential([keras.Input((4,)), Raising(), layers.Dense(3, activation='softmax')])
        model.compile("adam", "sparse_categorical_crossentropy")
        """
    ),
    several_outputs=textwrap.dedent(
        """\
        given = keras.Input(shape=4, name="given")
        hidden = layers.Dense(6, activation="relu", name="hidden")(given)
        scores = layers.Dense(3, activation="softmax", name="scores")(hidden)
        sub_model = keras.Model(inputs=[given], outputs=[hidden, scores], name="sub_model")
        """
    ),
    several_inputs=textwrap.dedent(
        """\
        left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
        score = layers.Dense(3, activation="softmax")(layers.Concatenate()([left, right]))
        model = keras.Model([left, right], score)
        model.compile("adam", "sparse_categorical_crossentropy")
        """
    ),
    embedding=keras_model("layers.Embedding(10, 4), layers.Flatten(), layers.Dense(2, activation='softmax')"),
    incomplete="model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])",
)


def torch_model(
    body: str, forward: str, loss: str = "nn.CrossEntropyLoss()", metrics: str = '"accuracy": Accuracy()'
) -> str:
    # optimizer() uses the global `model`, as people's code does.
    return f"""
class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        {body}

    def forward(self, {forward}

    def loss_fn(self):
        return {loss}

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.02)

    def metrics(self):
        return {{{metrics}, "loss": Loss(self.loss_fn())}}

model = Net()
"""


TORCH = Models(
    framework="pytorch",
    epochs="max_epochs",
    steps="epoch_length",
    classifier=torch_model(
        "self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))", "x):\n        return self.net(x)"
    ),
    binary=torch_model(
        "self.net = nn.Linear(4, 1)",
        "x):\n        return torch.sigmoid(self.net(x))",
        "nn.BCELoss()",
        '"accuracy": Accuracy(lambda pair: (pair[0].round(), pair[1]))',
    ),
    regression=torch_model(
        "self.net = nn.Linear(4, 1)",
        "x):\n        return self.net(x)",
        "nn.MSELoss()",
        '"mae": ignite.metrics.MeanAbsoluteError()',
    ),
    exploding=torch_model(
        "self.net = nn.Linear(4, 1)",
        "x):\n        return self.net(x)",
        "nn.MSELoss()",
        '"mae": ignite.metrics.MeanAbsoluteError()',
    ).replace("0.02", "1e30"),
    image=torch_model("self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))", "x):\n        return self.net(x)"),
    raising=textwrap.dedent(
        """\
        class Net(nn.Module):
            def forward(self, x):
                if not self.training:
                    return self.net(x)
                raise KeyError("not today")

            def __init__(self):
                super().__init__()
                self.net = nn.Linear(4, 3)

            def loss_fn(self): return nn.CrossEntropyLoss()
            def optimizer(self): return torch.optim.Adam(self.parameters())
            def metrics(self): return {}

        model = Net()
        """
    ),
    several_outputs=torch_model(
        "self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)",
        'x):\n        hidden = self.first(x)\n        return {"hidden": hidden, "scores": self.second(hidden)}',
    ),
    several_inputs=torch_model(
        "self.net = nn.Linear(5, 3)", "left, right):\n        return self.net(torch.cat([left, right], 1))"
    ),
    embedding=torch_model(
        "self.net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))",
        "x):\n        return self.net(x)",
    ),
    incomplete="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
    def forward(self, x): return self.net(x)
    def optimizer(self): return torch.optim.Adam(self.parameters())
model = Net()
""",
)
