# Four lengths of an iris in centimetres; which of three kinds is it?
# Only the model: Headrace builds it in a sandbox, where `tf`, `keras`, `layers` and `np` are there already.
model = keras.Sequential(
    [
        keras.Input(shape=(4,)),
        layers.Dense(16, activation="relu"),
        layers.Dense(3, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.02),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
