"""Measurements against stated baselines: `make bench`. Every figure is a ratio taken within one run."""
