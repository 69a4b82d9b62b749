# Handwritten digits: 8 x 8 pixels with values from 0 to 16.
# Only the model: Headrace builds it in a sandbox, where `tf`, `keras`, `layers` and `np` are there already.
model = keras.Sequential(
    [
        keras.Input(shape=(8, 8)),
        layers.Rescaling(1 / 16),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
