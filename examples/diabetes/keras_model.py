# Ten numbers about a patient; how far does diabetes progress in a year? A regression: one number, from 25 to 346.
# Only the model: Headrace builds it in a sandbox, where `tf`, `keras`, `layers` and `np` are there already.
model = keras.Sequential(
    [
        keras.Input(shape=(10,)),
        layers.BatchNormalization(momentum=0.9),  # age, pressure and six blood values have very different units
        layers.Dense(16, activation="relu"),
        layers.Dense(1),
        layers.Rescaling(75, offset=150),  # about the mean and the deviation of what is to be told
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss="mean_squared_error",
    metrics=["mean_absolute_error"],
)
