"""Keras and PyTorch behind one protocol. Runs only inside a worker: nothing imports it, `sandbox` starts it."""
