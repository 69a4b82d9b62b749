# 13 numbers about a wine; which of three growers made it? The fields of a JSON object are one row.
# Only the model: Headrace builds it in a sandbox, where `tf`, `keras`, `layers` and `np` are there already.
model = keras.Sequential(
    [
        keras.Input(shape=(13,)),
        layers.BatchNormalization(momentum=0.9),  # alcohol is about 13, proline about 750
        layers.Dense(16, activation="relu"),
        layers.Dense(3, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
