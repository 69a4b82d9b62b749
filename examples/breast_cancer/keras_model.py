# 30 measurements of cell nuclei, benign or malignant. A record of several fields is one row, in the schema's order.
# Only the model: Headrace builds it in a sandbox, where `tf`, `keras`, `layers` and `np` are there already.
model = keras.Sequential(
    [
        keras.Input(shape=(30,)),
        layers.BatchNormalization(momentum=0.9),  # the measurements have very different units
        layers.Dense(16, activation="relu"),
        layers.Dense(2, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
